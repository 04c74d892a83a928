"""A notebook that a person has open in JupyterLab, and what they do with it."""

from playwright.sync_api import expect

_CELLS = """() => jupyterapp.shell.currentWidget.content.widgets
  .filter(cell => cell.model.type === 'code')
  .map(cell => ({
    source: cell.model.sharedModel.getSource(),
    count: cell.model.executionCount,
    outputs: cell.model.outputs.toJSON()}))"""
_READY = """name => {
  const panel = window.jupyterapp?.shell.currentWidget;
  return panel?.context?.isReady && panel.context.path === name && panel.sessionContext?.session?.kernel?.status === 'idle';
}"""
_DONE = """last => {
  const panel = jupyterapp.shell.currentWidget;
  const cells = panel.content.widgets.slice(0, last + 1).filter(cell => cell.model.type === 'code');
  const failed = cells.some(cell => cell.model.outputs.toJSON().some(output => output.output_type === 'error'));
  const left = cells.some(cell => cell.model.executionState !== 'idle' || cell.model.executionCount === null);
  return failed || (!left && panel.sessionContext.session.kernel.status === 'idle');
}"""
_CLOSE = """async () => {
  const panel = jupyterapp.shell.currentWidget;
  await panel.sessionContext.shutdown();
  panel.context.model.dirty = false;
  panel.close();
}"""
_SELECT = """text => {
  const notebook = jupyterapp.shell.currentWidget.content;
  const holds = cell => cell.model.type === 'code' && cell.model.sharedModel.getSource().includes(text);
  const found = notebook.widgets.findIndex(holds);
  if (found >= 0) { notebook.deselectAll(); notebook.activeCellIndex = found; }
  return found;
}"""


class CellFailed(AssertionError):
    """A cell of the notebook showed an error."""


class Opened:
    """One notebook, open in front of a person.

    Parameters
    ----------
    page : playwright.sync_api.Page
        The browser's tab, on its way there; JupyterLab must have been started with ``--expose-app-in-browser``.
    name : str
        The notebook, in the server's folder.
    """

    def __init__(self, page, name):
        self.page = page
        page.wait_for_function(_READY, arg=name)

    def look(self, *, width=1280, height=900, dark=False):
        """Take another window size and theme; the side bar makes room on a narrow screen."""
        self.page.set_viewport_size({"width": width, "height": height})
        theme = "JupyterLab Dark" if dark else "JupyterLab Light"
        self.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-light", "false" if dark else "true")
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)  # or the next theme would remove it a second time
        self.page.evaluate("() => jupyterapp.shell.collapseLeft()")

    def run_all(self, *, within=120.0):
        """Run all cells and wait for the kernel.

        Raises
        ------
        CellFailed
            A cell showed an error.
        """
        self._command("notebook:run-all-cells")
        self._wait(within)

    def run_through(self, text, *, within=120.0):
        """Run all cells up to the first one that holds a text, and that one; as `run_all`."""
        last = self._select(text)
        self._command("notebook:run-all-above")
        self._wait(within, last - 1)
        self.run(text, within=within)

    def run(self, text, *, within=120.0):
        """Run the first cell that holds a text; as `run_all`."""
        last = self._select(text)
        self._command("notebook:run-cell")
        self._wait(within, last)

    def run_rest(self, *, within=120.0):
        """Run the cells after the one that was run last; as `run_all`."""
        self.page.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex += 1; }")
        self._command("notebook:run-all-below")
        self._wait(within)

    def cells(self):
        """Source, count and outputs of each code cell."""
        return self.page.evaluate(_CELLS)

    def close(self):
        """End the kernel, and with it everything that the notebook started; close it unsaved, in the usual look."""
        self.look()
        self.page.evaluate(_CLOSE)

    def _select(self, text):
        found = self.page.evaluate(_SELECT, text)
        assert found >= 0, f"no code cell holds {text!r}"
        return found

    def _command(self, name):
        self.page.evaluate("name => { jupyterapp.commands.execute(name); }", name)  # and not wait for it

    def _wait(self, within, last=10_000):
        self.page.wait_for_function(_DONE, arg=last, timeout=within * 1e3)
        for cell in self.cells():
            for output in cell["outputs"]:
                if output["output_type"] == "error":
                    raise CellFailed(f"{output['ename']}: {output['evalue']}, in:\n{cell['source']}")
