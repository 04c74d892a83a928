"""PanelView: widgets that show a `PanelState`, and hand clicks on."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from importlib.resources import files
from typing import Any

import ipywidgets as widgets

from canarykit.load.shapes import SHAPES
from canarykit.panel.state import PanelState, Picture
from canarykit.panel.summary import table

__all__ = ["PanelView"]

_SOUND = "nothing"
_RATE = 120.0
_NARROW = {"description_width": "initial"}
_STRIPS = 3
"""Parts of the chart: levels, effects and evidence."""


class PanelView:
    """Shows a state: widgets send what changed to the browser, and nothing else.

    Parameters
    ----------
    clicked : callable
        Takes what was clicked, and a value.
    """

    def __init__(self, clicked: Callable[..., None]) -> None:
        self._clicked = clicked
        self._shown: PanelState | None = None
        self._make_weight()
        self._make_question()
        self._make_traffic()
        self.head, self.table = _html("head"), _html("guardrails")
        self.message = _html("status")
        self.title = _html("title")
        self.charts = [widgets.Image(format="png").add_class("canarykit-chart") for _ in range(_STRIPS)]
        self.figure = widgets.Box(self.charts, layout=widgets.Layout(display="none")).add_class("canarykit-figure")
        hidden = widgets.Layout(display="none")
        self.style = widgets.HTML(f"<style>{_read('style.css')}</style>", layout=hidden)
        self.names = widgets.HTML(_names("the chart is being drawn"), layout=hidden)
        rows = [self.head, self._weight, self._asked, self.message, self._traffic, self.table, self.title, self.figure]
        self.widget = widgets.VBox([*rows, self.style, self.names]).add_class("canarykit-panel")

    def show(self, state: PanelState) -> None:
        """Show a state.

        Parameters
        ----------
        state : PanelState
            Only what differs from the last one is sent to the browser.
        """
        before, self._shown = self._shown, state
        self.head.value = _head(state)
        self.served.value = (
            f'in force <b class="canarykit-asked">{escape(state.asked)}</b>, '
            f'served <b class="canarykit-share">{escape(state.served)}</b>'
        )
        self.table.value = table(state)
        name, sign = ("canarykit-message canarykit-problem", "! ") if state.problem else ("canarykit-message", "")
        self.message.value = f'<div class="{name}" role="status">{sign}{escape(state.message)}</div>'
        self.question.value = f'<span role="alert">{escape(state.question)}</span>' if state.question else ""
        self._asked.layout.display = "flex" if state.question else "none"
        self.sending.value = escape(state.traffic)
        self.slider.disabled = "slide" not in state.enabled
        self.harm.disabled = "run" not in state.enabled
        for name in ("apply", "promote", "abort", "run", "send", "stop", "inject"):
            getattr(self, name).disabled = name not in state.enabled
        self._show_picture(state.picture)
        self._show_fields(before, state)

    def _show_fields(self, before: PanelState | None, state: PanelState) -> None:
        """Show what is in force in what a person may set; what was set since stays until something else is in force."""

        def changed(*names: str) -> bool:
            return before is None or any(getattr(before, name) != getattr(state, name) for name in names)

        if changed("wish"):
            self.slider.value = state.wish
        if changed("harm"):
            self.harm.value = state.harm
        if changed("rate", "shape") and state.rate is not None:
            self.rate.value = min(max(state.rate, self.rate.min), self.rate.max)
            if state.shape in self.shape.options:
                self.shape.value = state.shape
        if changed("faults", "fault"):
            self._faults.layout.display = "flex" if state.faults else "none"
            self.fault.options = [_SOUND, *state.faults]
            self.fault.value = state.fault if state.fault in state.faults else _SOUND

    def _show_picture(self, picture: Picture | None) -> None:
        if picture is None:
            return
        if self.figure.layout.display == "none":
            self.style.value = f"<style>{_read('style.css')}{_shapes(picture)}</style>"
            self.figure.layout.display = "flex"
        for chart, strip in zip(self.charts, picture.strips, strict=True):
            chart.value = strip
        self.title.value = f"<b>{escape(picture.title)}</b>"
        self.names.value = _names(picture.alt)

    # Making ------------------------------------------------------------------------------------------------------------

    def _make_weight(self) -> None:
        self.slider = widgets.FloatSlider(
            min=0, max=100, step=1, readout_format=".4", description="canary weight", continuous_update=False,
            tooltip="Percent of the traffic that the canary shall have; nothing moves before Apply",
            style=_NARROW, layout=widgets.Layout(flex="1 1 300px", min_width="240px"),
        ).add_class("canarykit-slider")  # fmt: skip
        self.slider.observe(self._slid, "value")
        self.served = _html("served")
        self.apply = self._button("Apply", "apply", "Give the canary this share of the traffic")
        self.promote = self._button("Promote", "promote", "Make the canary the stable version; asks once")
        self.abort = self._button("Abort", "abort", "Return all traffic to stable; asks once")
        self.run = self._button("Run the plan", "run", "Carry out the whole rollout; Abort ends it", lambda: self.harm.value)
        self.harm = widgets.BoundedFloatText(
            0, min=0, max=1e6, description="harm budget of the plan",
            tooltip="Requests that a bad version may hurt until something can be done; 0: the steps of the plan",
            style=_NARROW, layout=widgets.Layout(width="230px"),
        ).add_class("canarykit-harm")  # fmt: skip
        self._weight = _row(self.slider, self.apply, self.served, self.run, self.promote, self.abort, self.harm)

    def _make_question(self) -> None:
        self.question = _html("question-text")
        self.yes = self._button("Yes", "yes", "Yes, do it")
        self.no = self._button("No", "no", "No, leave everything as it is")
        self._asked = _row(self.question, self.yes, self.no).add_class("canarykit-question")

    def _make_traffic(self) -> None:
        self.rate = widgets.BoundedFloatText(
            _RATE, min=0.1, max=1e5, description="requests/s", tooltip="Requests per second", style=_NARROW,
            layout=widgets.Layout(width="170px"),
        )  # fmt: skip
        self.shape = widgets.Dropdown(
            options=list(SHAPES), description="shape", tooltip="How the rate goes over time", style=_NARROW,
            layout=widgets.Layout(width="150px"),
        )  # fmt: skip
        self.send = self._button("Send traffic", "send", "Send requests with known answers to the gateway", self._sends)
        self.stop = self._button("Stop traffic", "stop", "Send no more requests")
        self.sending = _html("traffic")
        self.fault = widgets.Dropdown(
            options=[_SOUND], description="break in the canary", tooltip="Break the canary on purpose, to see it caught",
            style=_NARROW, layout=widgets.Layout(width="230px"),
        )  # fmt: skip
        self.inject = self._button("Inject", "inject", "Break this in the canary; “nothing” mends it", self._broken)
        self._faults = _row(self.fault, self.inject)
        self._traffic = _row(self.rate, self.shape, self.send, self.stop, self.sending, self._faults)

    def _button(self, text: str, action: str, tooltip: str, value: Callable[[], Any] = lambda: None) -> Any:
        button = widgets.Button(description=text, tooltip=tooltip).add_class(f"canarykit-{action}")
        button.on_click(lambda _: self._clicked(action, value()))
        return button

    def _sends(self) -> tuple[float, str]:
        return self.rate.value, self.shape.value

    def _broken(self) -> str | None:
        return None if self.fault.value == _SOUND else self.fault.value

    def _slid(self, change: Any) -> None:
        # Set by `show` it is what is shown; a person may drag it just then, in another thread.
        if self._shown is None or change["new"] != self._shown.wish:
            self._clicked("slide", change["new"])


def _head(state: PanelState) -> str:
    simulated = " <em>simulated</em>" if state.simulated else ""
    roles = f"{_swatch('stable')}{escape(state.stable)} stable → {_swatch('canary')}{escape(state.canary)} canary"
    return (
        f'<div class="canarykit-head"><span><b>{escape(state.service)}</b>{simulated} &nbsp; {roles}</span>'
        f'<span class="canarykit-phase">{escape(state.phase)}</span></div>'
        f'<div class="canarykit-verdict"><b>{escape(state.verdict)}</b></div>'
    )


def _html(name: str) -> Any:
    return widgets.HTML().add_class(f"canarykit-{name}")


def _row(*children: Any) -> Any:
    layout = widgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="4px 8px", overflow="visible")
    return widgets.HBox(children, layout=layout)


def _swatch(role: str) -> str:
    return f'<span class="canarykit-swatch canarykit-{role}-swatch" aria-hidden="true"></span>'


def _read(name: str) -> str:
    return (files("canarykit.panel") / name).read_text()


def _names(alt: str) -> str:
    """Have the browser name what widgets leave without a name, each time that this is written."""
    pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
    return f'<img src="{pixel}" alt="" title="{escape(alt)}" onload="{escape(_read("names.js"))}">'


def _shapes(picture: Picture) -> str:
    """Keep the places of a picture's parts while the next one loads: PNG says its size in bytes 16 to 24."""
    sizes = [tuple(int.from_bytes(strip[at : at + 4]) for at in (16, 20)) for strip in picture.strips]
    whole = sum(width for width, _ in sizes)
    return "".join(
        f".canarykit-chart:nth-child({number}) {{ aspect-ratio: {width} / {height}; --share: {100 * width / whole:.3f}%; }}"
        for number, (width, height) in enumerate(sizes, start=1)
    )
