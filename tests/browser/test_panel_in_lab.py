"""The panel under a person's hands, in a real JupyterLab."""

import pytest
from axe import violations
from hands import PANEL, Hands
from lab import NOTEBOOKS
from playwright.sync_api import expect

pytestmark = [pytest.mark.real("browser"), pytest.mark.real("jupyter")]
LOOKS = [(width, dark) for width in (1280, 400) for dark in (False, True)]
IMPORTS = "import canarykit as ck\nfrom canarykit.serving import digits"
SERVICE = """stable, canary = ck.Version("v1", model=digits.model("stable")), ck.Version("v2", model=digits.model("good"))
exp = ck.Experiment(ck.Service("digits", stable=stable, canary=canary), {where!r})
exp.deploy()
exp.send(150)"""
PANEL_CELL = "panel = ck.Panel(exp)\npanel"
REST = "ending = exp.ending\nlost = exp.stop_sending()\nexp.teardown()"


@pytest.fixture
def show(lab, open_notebook):
    """Open a small notebook with a panel, and run it up to there; more cells may follow."""

    def show_(where, *more):
        notebook = open_notebook(lab.write("panel.ipynb", IMPORTS, SERVICE.format(where=where), PANEL_CELL, *more))
        notebook.run_through(PANEL_CELL)
        return notebook, Hands(notebook.page)

    return show_


@pytest.mark.real("envoy")
@pytest.mark.slow
def test_the_first_notebook_is_moved_by_hand_and_promoted(lab, open_notebook, picture):
    """
    A person runs 01-first-canary up to its panel, drags the slider, presses Apply, and sees the served share and the chart
    follow; promotes; and the rest of the notebook holds.
    """
    notebook = open_notebook(lab.copy(NOTEBOOKS / "01-first-canary.ipynb", rate=200.0, watch="6s"))
    notebook.run_through("Panel(")
    hands = Hands(notebook.page)
    assert hands.drag(25) == pytest.approx(25, abs=3)
    hands.nudge(25)
    hands.apply(25)
    before = hands.chart.get_attribute("src")
    hands.nudge(50)
    expect(hands.asked).to_have_text("25 %")  # dragging moves nothing
    hands.apply(50)
    expect(hands.chart).not_to_have_attribute("src", before)
    for width, dark in LOOKS:
        notebook.look(width=width, height=1800, dark=dark)  # the whole panel at once
        picture(f"panel-{width}-{'dark' if dark else 'light'}", hands.panel)
    notebook.look()
    expect(hands.verdict).to_contain_text("pass:", timeout=90_000)
    hands.confirm("Promote")
    expect(hands.phase).to_contain_text("promoted")
    notebook.run_rest()


@pytest.mark.real("envoy")
@pytest.mark.slow
def test_abort_returns_all_traffic_to_stable(show):
    """
    Abort asks once, and then all traffic is back on stable, no request lost; the rest of the notebook finds it so.
    """
    notebook, hands = show("local", REST, "assert ending.outcome == 'rolled back'\nassert lost.lost_total == 0")
    hands.drag(40)
    hands.nudge(40)
    hands.apply(40)
    hands.button("Abort").click()
    hands.button("No").click()
    expect(hands.asked).to_have_text("40 %")
    hands.confirm("Abort")
    expect(hands.phase).to_contain_text("rolled back")
    expect(hands.asked).to_have_text("0 %")
    expect(hands.message).to_contain_text("0 requests lost")
    notebook.run_rest()


def test_everyone_can_use_it(show, picture):
    """
    In both themes and on a narrow screen: axe finds nothing, nothing is cut off, and the keyboard alone moves traffic.
    """
    notebook, hands = show("simulated")
    expect(hands.chart).to_be_visible()
    for width, dark in LOOKS:
        notebook.look(width=width, height=1800, dark=dark)  # the whole panel at once
        hands.panel.scroll_into_view_if_needed()
        picture(f"simulated-{width}-{'dark' if dark else 'light'}", hands.panel)
        assert violations(notebook.page, PANEL) == "", f"{width} pixels wide, {'dark' if dark else 'light'}"
        assert hands.panel.evaluate("panel => panel.scrollWidth <= panel.clientWidth"), f"cut off at {width} pixels"
        assert hands.chart.bounding_box()["width"] >= 250, "too small to be read"
        tops = [round(chart.bounding_box()["y"]) for chart in hands.panel.locator("img.canarykit-chart").all()]
        assert len(set(tops)) == (1 if width > 640 else 3), "beside each other where there is room, else one below the other"
    hands.nudge(3)
    notebook.page.keyboard.press("Tab")
    while not hands.button("Apply").evaluate("button => button === document.activeElement"):
        notebook.page.keyboard.press("Tab")
    notebook.page.keyboard.press("Enter")
    expect(hands.asked).to_have_text("3 %")


def test_a_broken_panel_is_noticed(show):
    """
    These tests fail when the gateway serves less than it says, when Apply does nothing, and when it is connected to nothing.
    """
    idle, disconnected = "exp.shift = lambda weight: None", "panel.view.apply._click_handlers.callbacks.clear()"
    notebook, hands = show("simulated:lying-split", idle, disconnected)
    for weight, fault in ((90, None), (80, idle), (70, disconnected)):
        if fault is not None:
            notebook.run(fault)
        hands.nudge(weight)
        with pytest.raises(AssertionError, match=str(weight)):
            hands.apply(weight, within=3)
