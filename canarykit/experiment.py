"""Experiment: the session object of a notebook. It calls the cluster, the judge and the plan in order."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from canarykit import metrics
from canarykit.analysis import Judge
from canarykit.analysis.checks import SplitCheck
from canarykit.clusters import Cluster, connect
from canarykit.clusters.base import Traffic
from canarykit.errors import CanaryError, ClusterError, JournalError, PlanError
from canarykit.history import History, replay
from canarykit.interrupts import uninterrupted
from canarykit.journal import Journal
from canarykit.model import SYMBOLS, Ending, Guardrail, Judgement, Service, TrafficSplit, Window
from canarykit.plan import RolloutPlan, seconds
from canarykit.rollout import Decision, Rollout, advance, decide, observe, resume

if TYPE_CHECKING:
    import pandas as pd

    from canarykit.charts import Chart

__all__ = ["Experiment"]

_TELL_EVERY = 5.0
_EPSILON = 1e-6
_SEE_OUT = 2.0


class Experiment:
    """A canary deployment, from two versions to one.

    Parameters
    ----------
    service : Service
        Both versions.
    cluster : Cluster or str, optional
        Where they run; ``"local"`` by default.
    guardrails : sequence of Guardrail, optional
        What the canary must not do worse; error rate and p95 latency by default.
    plan : RolloutPlan, optional
        For `run` and `advance`; 5, 25 and 50 % for a minute each by default.
    alpha : float
        Chance of a false alarm over the whole rollout, however often one looks.
    journal : path, optional
        Where the record of windows, weights and decisions goes; in memory by default.
    tell : callable, optional
        Takes one line of progress; prints it by default.

    Raises
    ------
    PlanError
        No guardrail, or two of the same name.
    """

    def __init__(
        self,
        service: Service,
        cluster: Cluster | str = "local",
        *,
        guardrails: Sequence[Guardrail] | None = None,
        plan: RolloutPlan | None = None,
        alpha: float = 0.05,
        journal: str | os.PathLike[str] | None = None,
        tell: Callable[[str], object] = print,
    ) -> None:
        self.service = service
        self.cluster: Cluster = connect(cluster) if isinstance(cluster, str) else cluster
        self.guardrails = tuple(guardrails) if guardrails is not None else (metrics.error_rate(), metrics.latency())
        names = [guardrail.name for guardrail in self.guardrails]
        if not names or len(set(names)) < len(names):
            raise PlanError(f"an experiment needs guardrails of different names, not {names}")
        self.alpha = alpha
        self.journal = Journal(journal)
        self.ending: Ending | None = None
        self.load: Traffic | None = None
        self._loads = 0
        self._judge = Judge(self.guardrails, alpha=alpha)
        self._split_check = SplitCheck(alpha=alpha)
        self._rollout = Rollout(plan or RolloutPlan.of(5, 25, 50))
        self._split = TrafficSplit(0)
        self._served = (0, 0)
        self._deployed = self._giving_up = False
        self._classes: tuple[Any, ...] = ()
        self._weight_since = 0.0
        self._now, self._sleep = self.cluster.clock.now, self.cluster.clock.sleep
        self._tell, self._told, self._began = tell, 0.0, self._now()

    # Life ------------------------------------------------------------------------------------------------------------

    def deploy(self) -> None:
        """Bring up both versions; all traffic goes to stable.

        Raises
        ------
        ClusterError
            A version does not come up; says why, with its last log lines. Nothing is left behind.
        """
        start = self._now()
        self.journal.begin(self._facts(), self.guardrails)
        self.cluster.deploy(self.service)
        self._deployed = True
        self.journal.begin({"sources": dict(self.cluster.telemetry.sources)}, self.guardrails)
        self.cluster.telemetry.begin(self._split, self._now())
        self._use_buckets()
        took = self._now() - start
        self._note("deploy", f"{self.service.name}: both versions ready in {took:.1f} s at {self.cluster.url}")
        found = self.cluster.router.observed()
        if found.canary:
            self._resume(found)

    def send(self, rate: float | str = 100.0, **options: Any) -> Traffic:
        """Start traffic to the service, in a process of its own.

        Parameters
        ----------
        rate : float or str
            Requests per second: ``150`` or ``"150/s"``.
        **options
            As in `Load`: ``payloads``, ``shape``, ``duration``, ``seed``.
        """
        self._need_deployment()
        self.stop_sending()
        self.load = self.cluster.send(rate, **options)
        self._loads += 1
        if not self._classes and self.load.classes:
            self._classes = tuple(self.load.classes)
            self.journal.begin({"classes": list(self._classes)}, self.guardrails)
        self._note("traffic", f"sending {rate if isinstance(rate, str) else f'{rate:g}/s'}")
        return self.load

    def stop_sending(self) -> object:
        """End the traffic that `send` started; return what became of all of it. May be called again."""
        if self.load is None:
            return None
        summary = self.load.stop()
        self._sleep(self.cluster.telemetry.delay)
        self._look()
        self.load = None
        return summary

    def close(self) -> None:
        """End the traffic that `send` started, and let go. May be called again.

        What runs on this machine ends; on a cluster both versions stay, with the weight that they have.
        """
        try:
            if self._deployed:
                self.stop_sending()
        finally:
            self._deployed = False
            self.cluster.release()
            self.journal.close()

    def teardown(self) -> None:
        """End the traffic, both versions and the gateway. May be called again."""
        try:
            if self._deployed:
                self.stop_sending()
        finally:
            self._deployed = False
            self.cluster.teardown()
            self.journal.close()

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, *error: object) -> None:
        self.teardown()

    # Traffic -----------------------------------------------------------------------------------------------------------

    def shift(self, weight: float) -> TrafficSplit:
        """Give the canary a share of the traffic.

        Parameters
        ----------
        weight : float
            Percent.

        Returns
        -------
        TrafficSplit
            What the gateway says it serves, when it does.

        Raises
        ------
        PlanError
            Not a weight, or a higher one after an alarm.
        RoutingError
            The gateway does not serve it, or someone else changed the split.
        ClusterError
            The canary does not answer.
        """
        split = TrafficSplit(weight)
        self._need_deployment()
        self._look()
        alarm = self.judge().alarm
        if alarm is not None and split.canary > self._split.canary:
            raise PlanError(
                f"{alarm.guardrail} has alarmed, so the canary's weight does not rise from {self._split} to {split}: "
                "abort(), or begin a new experiment"
            )
        return self._apply(split)

    def promote(self) -> Ending:
        """Make the canary's version the stable one, with nothing lost, and retire the canary.

        The canary takes all traffic; stable's replicas are replaced behind its back; traffic returns to stable, now
        of the new version; the canary's replicas finish what they have and end.

        Raises
        ------
        PlanError
            A guardrail has alarmed, or the experiment has ended otherwise.
        ClusterError
            Stable's new replicas do not come up; traffic returns to the old ones.
        """
        self._need_deployment()
        if self.ending is not None:
            if self.ending.outcome == "promoted":
                return self.ending
            raise PlanError(f"nothing to promote: the rollout has ended, {self.ending}")
        judgement = self.judge()
        if judgement.alarm is not None:
            raise PlanError(f"nothing to promote: {judgement.sentence}")
        self._apply(TrafficSplit(100))
        with uninterrupted():
            try:
                self.cluster.promote()
            except ClusterError as error:
                self._return_to_stable()
                self._end(Ending("failed", f"promotion failed, traffic is back on {self.service.stable.name}: {error}"))
                raise
            self._look()
            self._in_force(TrafficSplit(0), self.cluster.router.apply(TrafficSplit(0)))
            self.cluster.retire_canary()
            self._end(Ending("promoted", f"{self.service.canary.name} is stable now: {judgement.sentence}"))
        assert self.ending is not None
        return self.ending

    def abort(self, reason: str = "aborted by hand") -> Ending:
        """Return all traffic to stable: one call, from any state, any number of times.

        Parameters
        ----------
        reason : str
            For the record.
        """
        if self.ending is None:
            self._need_deployment()
            with uninterrupted():
                took = self._return_to_stable()
                self._end(Ending("rolled back", f"{reason}; all traffic was back on stable after {1000 * took:.0f} ms"))
        elif self._deployed and self.cluster.router.observed().canary:
            self._return_to_stable()
        assert self.ending is not None
        return self.ending

    # Evidence ----------------------------------------------------------------------------------------------------------

    def observe(self, duration: float | str = 0.0) -> pd.DataFrame:
        """Watch for a while, and return the windows so far.

        Parameters
        ----------
        duration : float or str
            Seconds, or ``"2min"``.

        Returns
        -------
        DataFrame
            Tidy: one row per interval, guardrail and version.
        """
        self._need_deployment()
        end = self._now() + seconds(duration)
        self._look()
        while (left := end - self._now()) > 0:
            self._sleep(min(self._rollout.plan.interval, left))
            self._look()
            self._tell_progress()
        return self.history().levels()

    def judge(self) -> Judgement:
        """Say what the evidence shows so far."""
        return self._judge.judgement

    def history(self) -> History:
        """Return everything counted so far, as tidy tables."""
        return replay(self.journal)

    def compare(self) -> Chart:
        """Draw both versions side by side, with effect, evidence and weight."""
        from canarykit.charts import compare

        return compare(self.history())

    # Rollout -----------------------------------------------------------------------------------------------------------

    def advance(self) -> Decision:
        """Look once, decide, and do what was decided.

        Returns
        -------
        Decision
            Hold, advance, promote, roll back or stop, with the reason.
        """
        self._need_deployment()
        if self.ending is not None:
            return Decision("hold", str(self.ending))
        self._look()
        decision = decide(
            self._rollout,
            self._judge.judgement,
            now=self._now(),
            canary_trouble=self.cluster.trouble("canary") if self._split.canary else None,
            doubt=self._doubt(),
        )
        self._act(decision)
        return decision

    def run(self, plan: RolloutPlan | None = None) -> Ending:
        """Carry out a whole rollout, unattended.

        Ctrl-C returns all traffic to stable and ends the rollout as inconclusive; so does an error, which is raised.

        Parameters
        ----------
        plan : RolloutPlan, optional
            Steps and gates; the experiment's own by default.

        Returns
        -------
        Ending
            The outcome, with its sentence.
        """
        if plan is not None:
            self._rollout = Rollout(plan)
        self._need_deployment()
        try:
            while self.ending is None:
                if self.advance().action == "hold":
                    self._tell_progress()
                    self._sleep(self._rollout.plan.interval)
        except KeyboardInterrupt:
            self._give_up(Ending("inconclusive", f"interrupted after {sum(self._requests()):,} requests"))
        except CanaryError as error:
            self._give_up(Ending("failed", f"{type(error).__name__}: {error}"))
            raise
        assert self.ending is not None
        self._say(str(self.ending))
        return self.ending

    # Inside ------------------------------------------------------------------------------------------------------------

    def _act(self, decision: Decision) -> None:
        if decision.action != "hold":
            self._note(decision.action, decision.reason)
        if decision.action == "advance":
            assert decision.weight is not None
            self._apply(TrafficSplit(decision.weight))
            self._rollout = advance(self._rollout, decision, now=self._now())
        elif decision.action == "promote":
            self.promote()
            self._see_out()
        elif decision.action == "roll back":
            self.abort(decision.reason)
            self._see_out()
        elif decision.action == "stop":
            assert decision.outcome is not None
            keep = self._rollout.plan.on_inconclusive == "hold" and self._doubt() is None
            if not keep:
                self._return_to_stable()
            self._end(Ending(decision.outcome, decision.reason))
            self._see_out()

    def _resume(self, found: TrafficSplit) -> None:
        """Go on with a rollout that was found under way: at its weight, with evidence of its own."""
        now = self._now()
        resumed = resume(self._rollout, found.canary, now=now)
        self._split = found
        if resumed is None:
            self._note("resume", f"found {found} on the canary, which is no step of this plan: back to stable first")
            self._return_to_stable()
            return
        self._rollout = resumed
        self._in_force(found, 0.0)
        self._note("resume", f"found {found} on the canary: goes on from there, and the evidence begins anew")

    def _see_out(self) -> None:
        """Watch the last split being served for a moment, then end the traffic."""
        if self.load is not None:
            self._sleep(_SEE_OUT)
            self._look()
        self.stop_sending()

    def _give_up(self, ending: Ending) -> None:
        """After an interruption or an error: traffic to stable first, then the record."""
        if self.ending is not None:
            return
        self._giving_up = True
        try:
            with uninterrupted():
                took = self._return_to_stable()
            where = f"all traffic was back on stable after {1000 * took:.0f} ms"
        except CanaryError as error:
            where = f"traffic could not be returned to stable: {error}"
        self._end(Ending(ending.outcome, f"{ending.sentence}; {where}"))
        self.stop_sending()

    def _use_buckets(self) -> None:
        """Judge latency in the buckets that its source has, as soon as it is known which. They do not change after."""
        edges = self.cluster.telemetry.latency_edges
        if edges is None or all(g.metric.table != "latency" or g.metric.cells == edges for g in self.guardrails):
            return
        self.guardrails = tuple(
            replace(g, metric=replace(g.metric, cells=edges)) if g.metric.table == "latency" else g for g in self.guardrails
        )
        self._judge = Judge(self.guardrails, alpha=self.alpha)
        self.journal.begin({}, self.guardrails)

    def _look(self) -> Window:
        """Take in everything since the last look."""
        load = self.load
        said = []
        if load is not None:
            said = [answer for answer in load.answers() if answer.right is not None]
            self.cluster.telemetry.label(said)
        # After the end the roles may have changed hands: such a window is kept, and says nothing about the canary.
        window = replace(self.cluster.telemetry.read(self._now()), judged=self.ending is None)
        if load is not None and said and self._classes == tuple(load.classes):
            # Answers to requests of an earlier weight are left out here, too.
            labelled = ((answer.role, answer.label, answer.said) for answer in said if answer.sent >= self._weight_since)
            cells = metrics.confusion_cells(labelled, self._classes)
            window = replace(window, counts={**window.counts, metrics.CONFUSION: cells})
        self._use_buckets()
        stable, canary = window.requests
        self._served = (self._served[0] + stable, self._served[1] + canary)
        if window.judged:
            self._judge.update(window)
            self._split_check.update(window)
            self._rollout = observe(self._rollout, self.judge(), canary_requests=canary, now=window.end)
        self._record(lambda: self.journal.add_window(window))
        if load is not None:
            self._record(lambda: self.journal.set_load(self._loads, {**load.record(), "asked": load.asked}))
        return window

    def _record(self, write: Callable[[], None]) -> None:
        """Write to the journal; once we are giving up, a journal that fails no longer stops us."""
        try:
            write()
        except JournalError:
            if not self._giving_up:
                raise

    def _apply(self, split: TrafficSplit) -> TrafficSplit:
        """Change the weight; what was not looked at before is left out, so that no window holds two weights."""
        if split.canary:
            self.cluster.warm("canary")
        if split.stable and not self._split.stable:
            self.cluster.warm("stable")
        with uninterrupted():
            took = self.cluster.router.apply(split)
            self._in_force(split, took)
        self._say(f"{split} to the canary, in force after {1000 * took:.0f} ms")
        return self.cluster.router.observed()

    def _in_force(self, split: TrafficSplit, took: float) -> None:
        now, before = self._now(), self._split.canary
        self.cluster.telemetry.begin(split, now)
        self._split, self._served, self._weight_since = split, (0, 0), now
        self._record(lambda: self.journal.add_weight(now, split.canary, took, before))
        self.cluster.remember(phase=self._rollout.phase, weight=split.canary)

    def _return_to_stable(self) -> float:
        """All traffic to stable; return the seconds it took."""
        start = self._now()
        try:
            self.cluster.warm("stable")
        except ClusterError as error:
            self._note("problem", f"returning traffic to stable although it is in trouble: {error}")
        took = self.cluster.router.apply(TrafficSplit(0))
        self._in_force(TrafficSplit(0), took)
        return self._now() - start

    def _doubt(self) -> str | None:
        """Say why the numbers must not be believed; None when nothing speaks against them."""
        seen = self.cluster.router.observed()
        if abs(seen.canary - self._split.canary) > _EPSILON:
            return (
                f"the gateway serves {seen} to the canary, not the {self._split} it was told: "
                "someone else changed it, or it was restarted"
            )
        return self._split_check.alarm

    def _end(self, ending: Ending) -> None:
        self.ending = ending
        self._rollout = advance(self._rollout, Decision("stop", ending.sentence, outcome=ending.outcome), now=self._now())
        self._record(lambda: self.journal.end(ending, self._now()))
        self.cluster.remember(phase=ending.outcome, weight=self._split.canary)

    def _requests(self) -> tuple[int, int]:
        verdicts = self._judge.judgement.verdicts
        return verdicts[0].comparison.requests if verdicts else (0, 0)

    def _facts(self) -> Mapping[str, Any]:
        return {
            "service": self.service.name,
            "versions": {"stable": self.service.stable.name, "canary": self.service.canary.name},
            "replicas": self.service.replicas,
            "alpha": self.alpha,
            "plan": self._rollout.plan.model_dump(),
            "where": type(self.cluster).__name__,
            "simulated": self.cluster.simulated,
            "software": {
                "canarykit": version("canarykit"),
                "python": platform.python_version(),
                "system": platform.platform(),
            },
        }

    def _need_deployment(self) -> None:
        if not self._deployed:
            raise ClusterError("nothing is deployed: call deploy() first")

    def _note(self, kind: str, text: str) -> None:
        now = self._now()
        self._record(lambda: self.journal.add_event(now, kind, text))
        self._say(text)

    def _say(self, text: str) -> None:
        self._told = self._now()
        self._tell(f"{self._told - self._began:6.1f} s  {text}")

    def _tell_progress(self) -> None:
        if self._now() - self._told < _TELL_EVERY:
            return
        stable, canary = self._served
        served = f"{100 * canary / (stable + canary):.1f} % served, " if stable + canary else ""
        lost = f", {self.load.record()['lost_total']} lost" if self.load is not None else ""
        words = ", ".join(f"{verdict.guardrail} {SYMBOLS[verdict.word]}" for verdict in self.judge().verdicts)
        self._say(f"{self._split} asked, {served}{stable + canary:,} requests{lost}; {words}")
