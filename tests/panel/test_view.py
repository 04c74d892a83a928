"""Widgets without a browser: set a value, click a button, read what is shown."""

import re
from dataclasses import replace
from importlib.resources import files

import pytest

import canarykit as ck
from canarykit.panel.state import Picture, panel_state
from canarykit.panel.view import PanelView


@pytest.fixture
def view():
    """A view that remembers what was clicked."""
    clicks = []
    made = PanelView(lambda *click: clicks.append(click))
    made.clicks = clicks
    return made


@pytest.fixture
def state(experiment):
    """What there is to show at the beginning."""
    return panel_state(experiment().snapshot())


def test_each_control_hands_its_click_on(view, state):
    """
    With the value that it stands for.
    """
    view.show(state)
    view.slider.value = 12.5
    view.harm.value = 4
    for button in (view.apply, view.promote, view.abort, view.yes, view.no, view.run, view.stop):
        button.click()
    view.rate.value, view.shape.value = 30, "ramp"
    view.send.click()
    view.fault.value = "slow"
    view.inject.click()
    view.fault.value = "nothing"
    view.inject.click()
    plain = [(name, None) for name in ("apply", "promote", "abort", "yes", "no")]
    assert view.clicks == [
        ("slide", 12.5),
        *plain,
        ("run", 4),
        ("stop", None),
        ("send", (30, "ramp")),
        ("inject", "slow"),
        ("inject", None),
    ]


def test_showing_a_weight_is_no_click(view, state):
    """
    The slider follows the experiment without asking for anything.
    """
    view.show(replace(state, wish=40.0))
    assert view.slider.value == 40
    assert view.clicks == []
    assert view.slider.continuous_update is False


def test_only_what_changed_is_set(view, state):
    """
    Nothing flickers: the same state twice sends nothing, another share sends one text.
    """
    view.show(state)
    sent = []
    for widget in (view.head, view.served, view.table, view.message, view.slider, view.question, view.sending, view.charts[0]):
        widget.observe(lambda change: sent.append(change["owner"]))
    view.show(replace(state))
    assert sent == []
    view.show(replace(state, served="24.8 % of 3,011 requests"))
    assert sent == [view.served]
    assert "served <b" in view.served.value


def test_the_fields_show_what_is_being_sent(view, state):
    """
    Whoever began it; and what a person types for the next time stays while that goes on.
    """
    view.show(state)
    view.show(replace(state, rate=200.0, shape="ramp", traffic="sending 200/s, ramp"))
    assert (view.rate.value, view.shape.value) == (200.0, "ramp")
    view.rate.value = 30
    view.show(replace(view._shown, message="something else"))
    assert view.rate.value == 30
    view.show(replace(view._shown, rate=None, shape=""))
    assert view.rate.value == 30


def test_the_evidence_is_explained_where_it_stands(view, state):
    """
    Odds, and what becomes of them, on the column and on each of its cells.
    """
    view.show(state)
    assert view.table.value.count('title="How many times better the counts so far fit a canary that is worse') == 1 + len(
        state.rows
    )
    assert "odds: worse (fails at 20)" in view.table.value


def test_the_question_comes_and_goes(view, state):
    """
    It stands beside Yes and No only while it is asked.
    """
    view.show(state)
    assert view._asked.layout.display == "none"
    view.show(replace(state, question="Abort?"))
    assert view._asked.layout.display == "flex"
    assert "Abort?" in view.question.value


def test_the_picture_is_one_image_whose_bytes_are_replaced(view, state, experiment):
    """
    Its place is kept while the next one loads, and its sentence goes with it.
    """
    view.show(state)
    assert view.figure.layout.display == "none"
    chart = experiment().compare()
    strips = tuple(chart.strips())
    view.show(replace(state, picture=Picture(strips, chart.title, chart.alt)))
    assert all(bytes(part.value).startswith(b"\x89PNG") for part in view.charts)
    sizes = [tuple(map(int, found)) for found in re.findall(r"aspect-ratio: (\d+) / (\d+)", view.style.value)]
    assert sum(width for width, _ in sizes) == pytest.approx(chart.figure.get_figwidth() * chart.DPI, abs=1)
    assert len({height for _, height in sizes}) == 1
    assert "v2, no data so far" in view.names.value
    assert "v2, no data so far" in view.title.value
    first = list(view.charts)
    view.show(replace(state, picture=Picture(strips, "found", "another")))
    assert view.charts == first
    assert "another" in view.names.value


def test_controls_are_enabled_as_the_state_says(view, state):
    """
    Grey is what would do nothing.
    """
    view.show(replace(state, enabled=frozenset({"abort"})))
    assert not view.abort.disabled
    assert view.slider.disabled and view.apply.disabled and view.promote.disabled and view.send.disabled


def test_every_control_says_what_it_is(view):
    """
    A label that stays, a longer word for it, and a class to find it by.
    """
    for name, text in (("apply", "Apply"), ("promote", "Promote"), ("abort", "Abort"), ("yes", "Yes"), ("no", "No")):
        button = getattr(view, name)
        assert button.description == text
        assert len(button.tooltip) > 5
        assert f"canarykit-{name}" in button._dom_classes
    for control in (view.slider, view.rate, view.shape, view.fault):
        assert control.description and control.tooltip
    assert view.slider.description == "canary weight"
    assert "canarykit-panel" in view.widget._dom_classes


def test_a_fault_control_is_there_only_where_it_does_something(view, state):
    """
    A cluster that cannot break a canary shows none.
    """
    view.show(replace(state, faults=()))
    assert view._faults.layout.display == "none"
    view.show(state)
    assert view.fault.options == ("nothing", *state.faults)


def test_text_is_text(view, state):
    """
    Names and messages that look like HTML are shown, not obeyed.
    """
    view.show(replace(state, service="<script>", message="<b>", rows=(("<i>", *state.rows[0][1:]),)))
    assert "<script>" not in view.head.value
    assert "<b>" not in view.message.value
    assert "<i>" not in view.table.value


def _contrast(one, other):
    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_white_labels_are_readable_on_their_buttons():
    """
    At least 4.5 to 1, in either theme: those colours are the panel's own.
    """
    style = (files("canarykit.panel") / "style.css").read_text()
    grounds = re.findall(r"color: #fff; background: (#\w{6})", style)
    assert len(grounds) == 3
    assert all(_contrast("#ffffff", ground) >= 4.5 for ground in grounds)
    assert "#0072B2" in style and "#D55E00" in style


def test_a_real_panel_works_by_its_widgets(experiment, until, panel_of):
    """
    Setting the slider and clicking is all that a browser does, too.
    """
    exp = experiment()
    panel = panel_of(exp, view=None)
    panel.refresh()
    panel.view.slider.value = 25
    panel.view.apply.click()
    until(lambda: "applied 25 %" in panel.view.message.value, panel)
    assert exp.cluster.router.observed() == ck.TrafficSplit(25)
    assert 'canarykit-asked">25 %</b>' in panel.view.served.value


def test_a_drag_counts_while_something_else_is_shown(view, state):
    """
    Polls write from another thread: a drag at that very moment is not taken for one of theirs.
    """
    view.show(state)
    view.head.observe(lambda change: setattr(view.slider, "value", 33), "value")
    view.show(replace(state, phase="25 % by hand, 3 s"))
    assert view.clicks == [("slide", 33)]
