"""RolloutLoop: what takes long. It watches for a while, or carries out the plan to its end."""

from __future__ import annotations

from collections.abc import Callable

from canarykit.errors import ClusterError, EditedError, PlanError
from canarykit.interrupts import Terminated, uninterrupted
from canarykit.model import SYMBOLS, Ending, Outcome, TrafficSplit
from canarykit.plan import RolloutPlan
from canarykit.rollout import Decision
from canarykit.session.control import TrafficControl
from canarykit.session.events import Events
from canarykit.session.journal_writer import thoroughly
from canarykit.session.lifecycle import Lifecycle, Overtaken
from canarykit.session.tracker import Tracker

__all__ = ["RolloutLoop"]

_SEE_OUT = 2.0
_RETURNS = 0.05
"""Seconds between questions whether traffic has returned to stable, which somebody else does."""


class RolloutLoop:
    """Looks, decides, has it done, and waits.

    It waits without the experiment's lock, and ends when the rollout does, whoever ends it.

    Parameters
    ----------
    lifecycle : Lifecycle
        Says whether it goes on, and has the lock and the cluster's clock.
    tracker : Tracker
        Says what the plan wants.
    control : TrafficControl
        Does it.
    events : Events
        Told what happens.
    """

    def __init__(self, lifecycle: Lifecycle, tracker: Tracker, control: TrafficControl, events: Events) -> None:
        self._lifecycle, self._tracker, self._control, self._events = lifecycle, tracker, control, events
        self._suspects: tuple[str, ...] = ()
        """Guardrails past their own line, as they were told last."""

    def watch(self, duration: float) -> None:
        """Look again and again for so many seconds."""
        clock, ending = self._lifecycle.clock, self._lifecycle.ending
        start = clock.now()
        self._tracker.poll()
        with self._events.shown("watching"):
            while (left := start + duration - clock.now()) > 0 and self._lifecycle.goes_on(ending):
                self._lifecycle.wait(min(self._tracker.state.plan.interval, left), ending)
                self._tracker.poll()
                self._notify(f"{clock.now() - start:.0f} of {duration:.0f} s")

    def advance(self) -> Decision:
        """Look once, decide, and do what was decided."""
        self._need_ready(self._tracker.state.plan)
        self._tracker.carry_out()
        return self._advance()

    def run(self, plan: RolloutPlan | None = None) -> Ending:
        """Carry out the plan, or another one; whatever goes wrong, traffic returns to stable first."""
        with self._lifecycle.lock:
            self._need_ready(plan or self._tracker.state.plan)
            if plan is not None:
                self._tracker.follow(plan)
            self._tracker.running = True
        try:
            with self._events.busy("carrying out the plan"):
                self._tracker.carry_out()
                self._carry_out()
        except KeyboardInterrupt:
            self._give_up("inconclusive", f"interrupted after {self._so_far()}")
        except Terminated as error:
            self.terminated(error)
            raise
        except BaseException as error:
            self._give_up("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            with self._lifecycle.lock:
                self._tracker.running = False
        if self._lifecycle.ending is None:
            raise ClusterError("the experiment was closed while the plan was carried out: both versions stay as they are")
        self._events.say(str(self._lifecycle.ending))
        return self._lifecycle.ending

    def terminated(self, error: Terminated) -> None:
        """End the rollout with the process, which was told to: nobody else would return traffic to stable at once."""
        self._give_up("inconclusive", f"ended by {error.signal.name} after {self._so_far()}")

    def _so_far(self) -> str:
        return f"{sum(self._tracker.state.judgement.requests):,} requests"

    def _carry_out(self) -> None:
        while self._lifecycle.goes_on(None):
            decision = self._advance()
            if decision.action == "hold":
                self._tell_hold(decision)
                state = self._tracker.state
                step = "paced" if state.plan.pace is not None else f"step {state.step + 1} of {len(state.plan.steps)}"
                self._notify("before the first step" if state.step < 0 else step)
                self._lifecycle.wait(state.plan.interval, None)

    def _notify(self, where: str) -> None:
        """Say where it stands, in a line that the next one replaces. Needs no lock."""
        state, load = self._tracker.state, self._tracker.traffic.load
        stable, canary = state.served
        served = f", {100 * canary / (stable + canary):.1f} % served" if stable + canary else ""
        lost = f", {load.record()['lost_total']} lost" if load is not None else ""
        words = ", ".join(f"{verdict.guardrail} {SYMBOLS[verdict.status]}" for verdict in state.judgement.verdicts)
        self._events.progress(f"{where}: {state.split} asked{served}; {words}; {stable + canary:,} requests{lost}")

    def _tell_hold(self, decision: Decision) -> None:
        """Say once why the weight is held beside a guardrail that is past its own line."""
        suspects = tuple(verdict.guardrail for verdict in self._tracker.state.judgement.suspects)
        if suspects and suspects != self._suspects:
            self._events.note("hold", decision.reason)
        self._suspects = suspects

    def _need_ready(self, plan: RolloutPlan) -> None:
        """Check that a plan can be carried out, and that none is."""
        self._control.need_promotable()
        if self._tracker.running:
            raise PlanError("the plan is being carried out already: wait for it, or abort()")
        self._control.need_served(plan)

    def _advance(self) -> Decision:
        while True:
            self._lifecycle.give_way()
            with self._lifecycle.lock:
                self._lifecycle.need_deployment()
                if self._lifecycle.ending is not None:
                    return Decision("hold", str(self._lifecycle.ending))
                self._tracker.poll()
                decision = self._tracker.decide()
            try:
                self._act(decision)
            except (EditedError, Overtaken):  # something, or someone, came in between: decide anew
                if self._tracker.gateway.pending is not None:
                    self._lifecycle.wait(_RETURNS, None)
                continue
            return decision

    def _act(self, decision: Decision) -> None:
        """Do what was decided. What takes traffic from the canary is written down when it is done, all else before."""
        if decision.action == "hold":
            return
        if decision.action in ("advance", "pace"):
            assert decision.weight is not None
            self._events.note(decision.action, decision.reason)
            self._control.apply(TrafficSplit(decision.weight), None, step=decision)
            return
        if decision.action == "promote":
            self._events.note(decision.action, decision.reason)
            self._control.promote(decision)
        elif decision.action == "restore":
            self._control.returning.restore_stable(decision.reason)
        else:
            with uninterrupted():
                thoroughly(lambda: self._end(decision), lambda: self._events.note(decision.action, decision.reason))
        self._see_out()

    def _end(self, decision: Decision) -> None:
        """End it; undecided, the canary keeps its share when the plan says so and the numbers may be believed."""
        assert decision.outcome is not None
        keep = decision.action == "stop" and self._tracker.state.plan.on_inconclusive == "hold"
        if keep and self._tracker.doubt() is None:
            with self._lifecycle.lock:
                self._lifecycle.need_no_end_since(None)
                self._tracker.end(Ending(decision.outcome, decision.reason))
        else:
            self._control.returning.to_stable(decision.outcome, decision.reason)

    def _see_out(self) -> None:
        """Watch the last split being served for a moment, then end the traffic."""
        self._lifecycle.wait(_SEE_OUT, self._lifecycle.ending)
        self._tracker.poll()
        self._tracker.stop_traffic()

    def _give_up(self, outcome: Outcome, why: str) -> None:
        """After an interruption or an error: traffic to stable first, then the record. Raises no other error."""
        try:
            with uninterrupted():
                self._tracker.writer.giving_up = True
                if self._lifecycle.deployed and self._lifecycle.ending is None:
                    self._attempt(lambda: self._end_on_stable(outcome, why))
        finally:
            if self._lifecycle.deployed:
                self._attempt(self._tracker.stop_traffic)

    def _end_on_stable(self, outcome: Outcome, why: str) -> None:
        try:
            self._control.returning.to_stable(outcome, why)
        except Overtaken:
            return  # it has ended meanwhile
        except Exception as error:
            with self._lifecycle.lock:
                if self._lifecycle.ending is not None:
                    raise
                self._tracker.end(Ending(outcome, f"{why}; traffic could not be returned to stable: {error}"))

    def _attempt(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:
            self._events.say(f"while giving up: {type(error).__name__}: {error}")
