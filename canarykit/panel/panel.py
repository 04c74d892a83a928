"""Panel: clicks become commands, and what they come to is shown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from canarykit.errors import CanaryError, ClusterError, RoutingError
from canarykit.extras import extra
from canarykit.model import ROLES
from canarykit.panel.apart import apart
from canarykit.panel.state import Note, PanelState, Picture, panel_state
from canarykit.panel.summary import operated, summary
from canarykit.polling import poll
from canarykit.session.experiment import Experiment
from canarykit.session.snapshot import Snapshot

__all__ = ["Panel"]

_LOG = logging.getLogger(__name__)
_DRAWING_SHARE = 2.0
"""A chart that took a second to draw is drawn again after this many seconds at the soonest."""
_SEE, _SEE_EVERY, _SEE_WITHIN = 20, 0.1, 0.6
"""After a change: this many requests are awaited, looking this often, this many seconds at most."""
_SETTLE = 0.15
"""Seconds from the click until the slider is read: the browser holds a slide back until the kernel has dealt with the one
before it, but not the click that follows."""
_SIMULATED = 10.0
"""Times that simulated time goes faster than ours, where it passes only when someone waits."""


class Panel:
    """An experiment under one's hands: a slider, Apply, Promote, Abort, and both versions' metrics live.

    Show it as the last line of a cell. It follows the experiment whoever moves it: this panel, another one, a cell, or a
    rollout. All that it knows is the experiment's, so that several panels agree. Where nobody can operate it (papermill,
    nbconvert) it shows a table instead, and no widget.

    Parameters
    ----------
    experiment : Experiment
        Experiment that the panel shows and moves.
    every : float
        Seconds between two looks, 2 at least: what it polls costs the kernel time.

    Notes
    -----
    A click only hands a command to a thread of the panel, one command at a time. Abort, and a plan that is carried out, have
    threads of their own.
    """

    def __init__(self, experiment: Experiment, *, every: float = 2.0) -> None:
        self.experiment = experiment
        self.frames = self.dropped = 0
        self._every = max(every, 2.0)
        self._view: Any = None
        self._poller: threading.Thread | None = None
        self._stopped = threading.Event()
        self._showing = threading.RLock()
        self._drawing = threading.Lock()
        self._draw_after = 0.0
        self._drawn: tuple[object, ...] = ()
        self._wish: float | None = None
        self._followed = experiment.snapshot().state.split
        self._note: Note | None = None
        self._problem: Note | None = None
        self._asking = self._working = ""
        self._picture: Picture | None = None

    # Life --------------------------------------------------------------------------------------------------------------

    @property
    def view(self) -> Any:
        """Widgets that show it."""
        with self._showing:
            if self._view is None:
                with extra("notebook"):
                    from canarykit.panel.view import PanelView
                self._view = apart(PanelView, self.do)
            return self._view

    @property
    def state(self) -> PanelState:
        """What it shows now."""
        snapshot = self.experiment.snapshot()
        if snapshot.state.split != self._followed:  # someone moved the weight: the slider follows
            self._wish = None
        self._followed = snapshot.state.split
        # What a click came to must not hide what went wrong since; what went wrong with the click comes first.
        failed = self._note is not None and self._note.problem
        return panel_state(
            snapshot,
            wish=self._wish,
            note=self._note if failed else self._problem or self._note,
            asking=self._asking,
            working=self._working,
            picture=self._picture,
        )

    def start(self) -> Panel:
        """Follow the experiment until it is closed, or until `stop`; return itself. May be called again."""
        if self._poller is None or not self._poller.is_alive():
            self._stopped.clear()
            self._poller = threading.Thread(target=self._poll, name="canarykit-panel", daemon=True)
            self._poller.start()
        return self

    def stop(self) -> None:
        """Follow no more; what is being done is finished. May be called again."""
        self._stopped.set()
        if self._poller is not None and self._poller is not threading.current_thread():
            self._poller.join()
        self._poller = None

    def __repr__(self) -> str:
        return summary(self.state)["text/plain"]

    def _repr_mimebundle_(self, **_: Any) -> Mapping[str, Any]:
        if not operated():
            self.experiment.poll()
            return summary(self.state)
        self.refresh()
        self.start()
        bundle: Mapping[str, Any] = self.view.widget._repr_mimebundle_()
        return bundle

    # Clicks ------------------------------------------------------------------------------------------------------------

    def do(self, action: str, value: Any = None) -> None:
        """Take a click, and return at once.

        Parameters
        ----------
        action : str
            ``slide``, ``apply``, ``promote``, ``abort``, ``yes``, ``no``, ``run``, ``send``, ``stop`` or ``inject``.
        value : optional
            Argument of the action. ``slide``: percent; ``run``: the budget of harm, or 0 for the plan's own steps; ``send``:
            rate and shape; ``inject``: a fault, or None.
        """
        exp = self.experiment
        commands: dict[str, tuple[str, Callable[[], str | None]]] = {
            "apply": ("applying", self._apply),
            "promote": ("promoting", lambda: str(exp.promote())),
            "abort": ("returning all traffic to stable", lambda: str(exp.abort("aborted in the panel"))),
            "run": ("carrying out the plan", lambda: str(exp.run(exp.snapshot().state.plan.with_harm(float(value or 0))))),
            "send": ("starting traffic", lambda: f"sending {exp.send(value[0], shape=value[1]).asked['rate']:g} requests/s"),
            "stop": ("ending traffic", lambda: f"{exp.stop_sending() or 'nothing was sent'}"),
            "inject": ("changing the canary", lambda: exp.inject(value)),
        }
        if action == "slide":
            self._wish = float(value)
        elif action in ("promote", "abort"):
            self._asking = action
        elif action in ("yes", "no"):
            asked, self._asking = self._asking, ""
            if asked and action == "yes":
                self._begin(*commands[asked], beside=asked == "abort")
        elif action in commands:
            self._begin(*commands[action], beside=action == "run")
        else:
            raise ValueError(f"a panel has no control {action!r}")
        self.refresh()

    def refresh(self) -> None:
        """Show where everything stands."""
        with self._showing:
            apart(self.view.show, self.state)

    def _begin(self, doing: str, command: Callable[[], str | None], *, beside: bool = False) -> None:
        """Hand a command to a thread: one at a time, but for those that go beside the others."""
        with self._showing:
            self._note = None
            if not beside:
                if self._working:
                    return  # its button is grey already; this click came on the way
                self._working = doing
        threading.Thread(target=self._carry_out, args=(command, beside), name="canarykit-command", daemon=True).start()

    def _carry_out(self, command: Callable[[], str | None], beside: bool) -> None:
        with self.experiment.quietly():
            note = self._caught(command)
        with self._showing:
            if not beside:
                self._working = ""
            self._note = note
        self.refresh()

    def _caught(self, command: Callable[[], str | None]) -> Note | None:
        """The one place where errors become sentences; the log has where they came from."""
        problem = True
        try:
            text, problem = command() or "", False
        except CanaryError as error:
            _LOG.info("a command of the panel failed", exc_info=True)
            text = str(error)
        except Exception as error:
            _LOG.exception("a command of the panel failed")
            text = f"{type(error).__name__}: {error}; the log has the details"
        return Note(text, problem, self.experiment.snapshot().said) if text else None

    # Commands ----------------------------------------------------------------------------------------------------------

    def _apply(self) -> str:
        exp = self.experiment
        time.sleep(_SETTLE)
        weight = self.state.wish
        exp.shift(weight)
        self._wish = None
        state = exp.snapshot().state
        self._see_served()
        return f"applied {state.split} in {1000 * state.took:.0f} ms"

    def _see_served(self) -> None:
        """Look until the new share shows in requests, for a moment: nobody should wait for the next poll."""

        def seen() -> bool:
            return sum(self._poll_experiment(_SEE_EVERY).state.served) >= _SEE

        poll(seen, within=_SEE_WITHIN, every=_SEE_EVERY, cancelled=self._stopped.is_set)

    # Following ---------------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        with self.experiment.quietly():
            while True:
                start = time.monotonic()
                closed = self._tick()
                if closed or self._stopped.wait(max(self._every - (time.monotonic() - start), 0.05)):
                    return

    def _tick(self) -> bool:
        """Poll, show, and have a chart drawn unless one is; return whether the experiment has been closed."""
        self._problem = self._caught(self._poll_all)
        snapshot = self.experiment.snapshot()
        self.refresh()
        if snapshot.stage != "closed":
            self._draw(snapshot)
            return False
        if self._picture is not None:
            with self._drawing:  # the last picture shows how it ended
                self._note = self._caught(self._paint_once) or self._note
            self.refresh()
        return True

    def _poll_all(self) -> str | None:
        if self._poll_experiment(self._every).stage == "deployed":
            for role in ROLES:
                problem = self.experiment.cluster.health(role).lasting
                if problem and self.experiment.ending is None:
                    raise ClusterError(f"{role}: {problem}")
            if self.experiment.ending is None and (doubt := self.experiment.doubt) is not None:
                raise RoutingError(doubt)
        return None

    def _poll_experiment(self, seconds: float) -> Snapshot:
        snapshot = self.experiment.snapshot()
        if snapshot.simulated and snapshot.stage == "deployed" and not snapshot.doing:
            self.experiment.cluster.clock.sleep(_SIMULATED * seconds)
        return self.experiment.poll()

    def _draw(self, snapshot: Snapshot) -> None:
        """Draw in a thread of its own, so that a slow picture keeps no number waiting. Frames are dropped, never queued."""
        state = snapshot.state
        shows = (state.split, state.since, state.served, state.judgement.status, snapshot.ending)
        if snapshot.stage == "new" or shows == self._drawn:
            return
        if time.monotonic() < self._draw_after or not self._drawing.acquire(blocking=False):
            self.dropped += 1
            return
        self._drawn = shows
        threading.Thread(target=self._paint, name="canarykit-drawing", daemon=True).start()

    def _paint(self) -> None:
        start = time.monotonic()
        try:
            self._note = self._caught(self._paint_once) or self._note
            self._draw_after = time.monotonic() + _DRAWING_SHARE * (time.monotonic() - start)
        finally:
            self._drawing.release()
        self.refresh()

    def _paint_once(self) -> None:
        chart = self.experiment.compare()
        self._picture = Picture(tuple(chart.strips()), chart.title, chart.alt)
        self.frames += 1
