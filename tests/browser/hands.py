"""Hands on a panel: what a person does with the mouse and the keyboard, and sees of it."""

import re

from playwright.sync_api import TimeoutError, expect

PANEL = ".canarykit-panel"
_HEARD = "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
_BETWEEN = """([selector, low, high]) => {
  const share = parseFloat(document.querySelector(selector).innerText);
  return low <= share && share <= high;
}"""


class Hands:
    """One panel in a notebook.

    Parameters
    ----------
    page : playwright.sync_api.Page
        Where a notebook shows it.
    """

    def __init__(self, page):
        self.page = page
        self.panel = page.locator(PANEL)
        self.panel.scroll_into_view_if_needed()
        self.handle = self.panel.get_by_role("slider")
        self.readout = self.panel.locator(".canarykit-slider .widget-readout")
        self.asked = self.panel.locator(".canarykit-asked")
        self.share = self.panel.locator(".canarykit-share")
        self.chart = self.panel.locator("img.canarykit-chart").first
        self.phase = self.panel.locator(".canarykit-phase")
        self.verdict = self.panel.locator(".canarykit-verdict")
        self.message = self.panel.get_by_role("status")

    def button(self, name):
        """One of the panel's buttons."""
        return self.panel.get_by_role("button", name=name, exact=True)

    def drag(self, percent):
        """Drag the slider with the mouse, about there; return where it stands."""
        track = self.panel.locator(".canarykit-slider .noUi-base").bounding_box()
        handle = self.handle.bounding_box()
        y = handle["y"] + handle["height"] / 2
        self.page.mouse.move(handle["x"] + handle["width"] / 2, y)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + track["width"] * percent / 100, y, steps=8)
        self.page.mouse.up()
        return self.wish()

    def nudge(self, percent):
        """Move the slider with the arrow keys, exactly there."""
        self.handle.focus()
        while self.wish() != percent:
            before = self.wish()
            self.handle.press("ArrowRight" if before < percent else "ArrowLeft")
            expect(self.readout).not_to_have_text(f"{before:g}")
        self.page.wait_for_function(_HEARD)

    def wish(self):
        """Where the slider stands, percent."""
        return float(self.readout.inner_text())

    def apply(self, percent, *, within=20.0):
        """Press Apply and see the weight in force, and the served share follow it.

        Raises
        ------
        AssertionError
            The weight asked for, or the served share, did not follow in time.
        """
        self.button("Apply").click()
        expect(self.asked).to_have_text(f"{percent:g} %", timeout=within * 1e3)
        about = [f"{PANEL} .canarykit-share", percent - 12, percent + 12]
        try:
            self.page.wait_for_function(_BETWEEN, arg=about, timeout=within * 1e3)
        except TimeoutError:
            raise AssertionError(
                f"{percent:g} % is in force, but after {within:g} s {self.share.inner_text()} was served"
            ) from None

    def confirm(self, name):
        """Press a button that asks once, and say yes."""
        self.button(name).click()
        expect(self.panel.get_by_role("alert")).to_have_text(re.compile(rf"^{name}\b.*\?"))
        self.button("Yes").click()
