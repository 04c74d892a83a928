"""Experiment: the session object of a notebook. It calls the cluster, the judge and the plan in order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from canarykit import metrics
from canarykit.analysis import Judge
from canarykit.analysis.checks import SplitCheck
from canarykit.clusters import Cluster, connect
from canarykit.clusters.base import Breakable, Narrator, Traffic
from canarykit.conduct.lifetime import Lifetime, Overtaken
from canarykit.conduct.record import Record, facts
from canarykit.conduct.voice import Voice
from canarykit.errors import CanaryError, ClusterError, PlanError
from canarykit.history import History, replay
from canarykit.interrupts import uninterrupted
from canarykit.journal import Journal
from canarykit.model import SYMBOLS, Ending, Guardrail, Judgement, Service, TrafficSplit, Window
from canarykit.plan import RolloutPlan, seconds
from canarykit.rollout import Decision, Rollout, advance, decide, observe, resume
from canarykit.snapshot import Snapshot, Standing

if TYPE_CHECKING:
    import pandas as pd

    from canarykit.charts import Chart

__all__ = ["Experiment"]

_EPSILON = 1e-6
_SEE_OUT = 2.0


class Experiment:
    """A canary deployment, from two versions to one.

    It may be used from several threads at once: a panel, a background rollout, a cell. Whatever changes the weight or
    reads the counts holds one lock, and nothing waits or warms up while it holds it, so that `abort` goes through at once;
    only a promotion that has begun is finished first.

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
        Takes one line of progress. By default they are printed, and one that changes is shown below or above them.

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
        tell: Callable[[str], object] | None = None,
    ) -> None:
        self.service = service
        self.cluster: Cluster = connect(cluster) if isinstance(cluster, str) else cluster
        self.guardrails = tuple(guardrails) if guardrails is not None else (metrics.error_rate(), metrics.latency())
        names = [guardrail.name for guardrail in self.guardrails]
        if not names or len(set(names)) < len(names):
            raise PlanError(f"an experiment needs guardrails of different names, not {names}")
        self.alpha = alpha
        self.journal = Journal(journal)
        self._life = Lifetime(self.cluster.clock)
        self._record = Record(self.journal)
        self._voice = Voice(self._record, self.cluster.clock, tell)
        self.load: Traffic | None = None
        self._loads = self._lost_before = 0
        self._judge = Judge(self.guardrails, alpha=alpha)
        self._judgement, self._needed = self._judge.judgement, (float("nan"),) * len(self.guardrails)
        self._split_check = SplitCheck(alpha=alpha)
        self._rollout = Rollout(plan or RolloutPlan.of(5, 25, 50))
        self._standing = Standing()
        self._running = False
        self._lock = self._life.lock
        self._sending = threading.RLock()  # the kit's own traffic; taken before the other one
        self._classes: tuple[Any, ...] = ()
        self._fault: str | None = None
        self._now = self.cluster.clock.now
        if isinstance(self.cluster, Narrator):
            self.cluster.narrate(self._voice.say, self._voice.waiting)

    @property
    def ending(self) -> Ending | None:
        """How the rollout ended; None while it has not."""
        return self._life.ending

    # Life ------------------------------------------------------------------------------------------------------------

    def deploy(self) -> None:
        """Bring up both versions; all traffic goes to stable.

        Raises
        ------
        ClusterError
            A version does not come up; says why, with its last log lines. Nothing is left behind.
        """
        start = self._now()
        self._record.begin(facts(self.service, self.cluster, alpha=self.alpha, plan=self._rollout.plan), self.guardrails)
        with self._voice.busy("bringing up both versions"):
            self.cluster.deploy(self.service)
        with self._lock:
            self._life.word = "deployed"
            self._record.begin({"sources": dict(self.cluster.telemetry.sources)}, self.guardrails)
            self._standing = Standing(since=self._now())
            self.cluster.telemetry.begin(self._standing.split, self._standing.since)
            self._use_buckets()
            took = self._now() - start
            name = f"{self.service.name} (simulated)" if self.cluster.simulated else self.service.name
            self._voice.note("deploy", f"{name}: both versions ready in {took:.1f} s at {self.cluster.url}")
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
        self._life.need_deployment()
        with self._sending:
            self.stop_sending()
            load = self.cluster.send(rate, **options)
            with self._lock:
                self.load = load
                self._loads += 1
                if not self._classes and load.classes:
                    self._classes = tuple(load.classes)
                    self._record.begin({"classes": list(self._classes)}, self.guardrails)
        self._voice.note("traffic", f"sending {rate if isinstance(rate, str) else f'{rate:g}/s'}")
        return load

    def stop_sending(self) -> object:
        """End the traffic that `send` started; return what became of all of it. May be called again."""
        with self._sending:
            load = self.load
            if load is None:
                return None
            with self._voice.busy("waiting for the last answers"):
                summary = load.stop()
                self.cluster.clock.sleep(self.cluster.telemetry.delay)
            with self._lock:
                self._look()
                self.load = None
                self._lost_before += int(load.record()["lost_total"])
            return summary

    def inject(self, fault: str | None) -> None:
        """Break the canary on purpose, to see it caught; or mend it again.

        Parameters
        ----------
        fault : str or None
            One of ``cluster.faults``; None mends it.

        Raises
        ------
        PlanError
            The cluster or the version has no such fault.
        """
        self._life.need_deployment()
        known = self._faults()
        if not isinstance(self.cluster, Breakable) or (fault is not None and fault not in known):
            which = f"choose one of {', '.join(known)}" if known else "only models on the kit's own server here have any"
            raise PlanError(f"the canary has no fault {fault!r} to switch on: {which}")
        self.cluster.inject(fault)
        self._fault = fault
        self._voice.note("fault", f"the canary is broken on purpose: {fault}" if fault else "the canary is mended")

    def close(self) -> None:
        """End the traffic that `send` started, and let go. May be called again.

        What runs on this machine ends; on a cluster both versions stay, with the weight that they have.
        """
        try:
            if self._life.deployed:
                self.stop_sending()
        finally:
            self._shut(self.cluster.release)

    def teardown(self) -> None:
        """End the traffic, both versions and the gateway. May be called again."""
        try:
            with self._lock:
                if self._running and self.ending is None:
                    self._end(Ending("inconclusive", "torn down while the plan was carried out"))
            if self._life.deployed:
                self.stop_sending()
        finally:
            self._shut(self.cluster.teardown)

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
        with self._voice.busy(f"giving {split} to the canary"):
            with self._lock:
                self._life.need_deployment()
                ending = self.ending
                self._look()
                alarm = self.judge().alarm
                if alarm is not None and split.canary > self._split.canary:
                    raise PlanError(
                        f"{alarm.guardrail} has alarmed, so the canary's weight does not rise from {self._split} to {split}: "
                        "abort(), or begin a new experiment"
                    )
            return self._apply(split, ending)

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
        self._life.need_deployment()
        if self.ending is not None:
            if self.ending.outcome == "promoted":
                return self.ending
            raise PlanError(f"nothing to promote: the rollout has ended, {self.ending}")
        judgement = self.judge()
        if judgement.alarm is not None:
            raise PlanError(f"nothing to promote: {judgement.sentence}")
        with self._voice.busy(f"promoting {self.service.canary.name}"):
            self._apply(TrafficSplit(100), None)
            with self._lock, uninterrupted():
                self._life.need_no_end_since(None)
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
        """Return all traffic to stable: one call, from any state, from any thread, any number of times.

        A rollout or an observation that waits in another thread ends at once.

        Parameters
        ----------
        reason : str
            For the record.
        """
        with self._lock, uninterrupted():
            if self.ending is None:
                self._life.need_deployment()
                took = self._return_to_stable()
                self._end(Ending("rolled back", f"{reason}; all traffic was back on stable after {1000 * took:.0f} ms"))
            elif self._life.deployed and self.cluster.router.observed().canary:
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
        self._life.need_deployment()
        start, ending, whole = self._now(), self.ending, seconds(duration)
        with self._lock:
            self._look()
        with self._voice.shown("watching"):
            while (left := start + whole - self._now()) > 0 and self._life.goes_on(ending):
                self._life.wait(min(self._rollout.plan.interval, left), ending)
                with self._lock:
                    if self._life.deployed:
                        self._look()
                self._tell_progress(f"{self._now() - start:.0f} of {whole:.0f} s")
        return self.history().levels()

    def look(self) -> Snapshot:
        """Take in what was counted since the last look, and say where everything stands.

        It never waits: while something else changes the weight or reads the counts, it says where that stands.
        """
        if self._lock.acquire(blocking=False):
            try:
                if self._life.deployed:
                    self._look()
            finally:
                self._lock.release()
        return self.snapshot()

    def snapshot(self) -> Snapshot:
        """Say where everything stands: at once, from any thread, whatever is being done."""
        load = self.load
        lost = self._lost_before + (int(load.record()["lost_total"]) if load is not None else 0)
        return Snapshot(
            service=self.service.name,
            versions=(self.service.stable.name, self.service.canary.name),
            life=self._life.word,
            simulated=self.cluster.simulated,
            now=self._now(),
            standing=self._standing,
            rollout=self._rollout,
            running=self._running,
            judgement=self._judgement,
            needed=self._needed,
            ending=self.ending,
            traffic=None if load is None else load.asked,
            lost=lost if self._loads else None,
            faults=self._faults(),
            fault=self._fault,
            doing=self._voice.doing,
            said=self._voice.said,
        )

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Tell no progress from this thread meanwhile; `snapshot` still has the last line."""
        with self._voice.quietly():
            yield

    def judge(self) -> Judgement:
        """Say what the evidence shows so far."""
        return self._judgement

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
        with self._lock:
            self._life.need_deployment()
            if self.ending is not None:
                return Decision("hold", str(self.ending))
            self._look()
            decision = decide(
                self._rollout,
                self._judgement,
                now=self._now(),
                canary_trouble=self.cluster.trouble("canary") if self._split.canary else None,
                doubt=self._doubt(),
            )
        try:
            self._act(decision)
        except Overtaken:
            return Decision("hold", str(self.ending))
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

        Raises
        ------
        PlanError
            A plan is being carried out already.
        ClusterError
            The experiment was closed meanwhile.
        """
        with self._lock:
            self._life.need_deployment()
            if self._running:
                raise PlanError("the plan is being carried out already: wait for it, or abort()")
            if plan is not None:
                self._rollout = Rollout(plan)
            self._running = True
        try:
            with self._voice.busy("carrying out the plan"):
                self._carry_out()
        except KeyboardInterrupt:
            self._give_up(Ending("inconclusive", f"interrupted after {sum(self._requests()):,} requests"))
        except CanaryError as error:
            if self._life.deployed:
                self._give_up(Ending("failed", f"{type(error).__name__}: {error}"))
            raise
        finally:
            self._running = False
        if self.ending is None:
            raise ClusterError("the experiment was closed while the plan was carried out: both versions stay as they are")
        self._voice.say(str(self.ending))
        return self.ending

    # Inside ------------------------------------------------------------------------------------------------------------

    @property
    def _split(self) -> TrafficSplit:
        return self._standing.split

    def _carry_out(self) -> None:
        while self._life.goes_on(None):
            if self.advance().action == "hold":
                step = self._rollout.step + 1
                self._tell_progress(f"step {step} of {len(self._rollout.plan.steps)}" if step else "before the first step")
                self._life.wait(self._rollout.plan.interval, None)

    def _shut(self, end: Callable[[], None]) -> None:
        with self._lock:
            self._life.shut(end)
            self.journal.close()

    def _faults(self) -> tuple[str, ...]:
        return self.cluster.faults if isinstance(self.cluster, Breakable) else ()

    def _act(self, decision: Decision) -> None:
        if decision.action != "hold":
            self._voice.note(decision.action, decision.reason)
        if decision.action == "advance":
            assert decision.weight is not None
            self._apply(TrafficSplit(decision.weight), None, decision)
        elif decision.action == "promote":
            self.promote()
            self._see_out()
        elif decision.action == "roll back":
            self.abort(decision.reason)
            self._see_out()
        elif decision.action == "stop":
            assert decision.outcome is not None
            with self._lock:
                self._life.need_no_end_since(None)
                keep = self._rollout.plan.on_inconclusive == "hold" and self._doubt() is None
                if not keep:
                    self._return_to_stable()
                self._end(Ending(decision.outcome, decision.reason))
            self._see_out()

    def _resume(self, found: TrafficSplit) -> None:
        """Go on with a rollout that was found under way: at its weight, with evidence of its own."""
        now = self._now()
        resumed = resume(self._rollout, found.canary, now=now)
        self._standing = Standing(found, since=now)
        if resumed is None:
            self._voice.note("resume", f"found {found} on the canary, which is no step of this plan: back to stable first")
            self._return_to_stable()
            return
        self._rollout = resumed
        self._in_force(found, 0.0)
        self._voice.note("resume", f"found {found} on the canary: goes on from there, and the evidence begins anew")

    def _see_out(self) -> None:
        """Watch the last split being served for a moment, then end the traffic."""
        if self.load is not None:
            self._life.wait(_SEE_OUT, self.ending)
            with self._lock:
                if self._life.deployed:
                    self._look()
        self.stop_sending()

    def _give_up(self, ending: Ending) -> None:
        """After an interruption or an error: traffic to stable first, then the record."""
        with self._lock:
            if self.ending is not None:
                return
            self._record.giving_up = True
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
        self._judgement = self._judge.judgement
        self._record.begin({}, self.guardrails)

    def _look(self) -> Window:
        """Take in everything since the last look. Needs the lock."""
        load = self.load
        said = []
        if load is not None:
            said = [answer for answer in load.answers() if answer.right is not None]
            self.cluster.telemetry.label(said)
        # After the end the roles may have changed hands: such a window is kept, and says nothing about the canary.
        window = replace(self.cluster.telemetry.read(self._now()), judged=self.ending is None)
        if load is not None and said and self._classes == tuple(load.classes):
            # Answers to requests of an earlier weight are left out here, too.
            labelled = ((answer.role, answer.label, answer.said) for answer in said if answer.sent >= self._standing.since)
            cells = metrics.confusion_cells(labelled, self._classes)
            window = replace(window, counts={**window.counts, metrics.CONFUSION: cells})
        self._use_buckets()
        stable, canary = window.requests
        served = (self._standing.served[0] + stable, self._standing.served[1] + canary)
        self._standing = replace(self._standing, served=served)
        if window.judged:
            self._judge.update(window)
            self._split_check.update(window)
            self._judgement = self._judge.judgement
            self._needed = tuple(seconds for _, seconds in self._judge.still_needed)
            self._rollout = observe(self._rollout, self._judgement, canary_requests=canary, now=window.end)
        self._record.window(window)
        if load is not None:
            self._record.load(self._loads, load)
        return window

    def _apply(self, split: TrafficSplit, ending: Ending | None, step: Decision | None = None) -> TrafficSplit:
        """Change the weight; what was not looked at before is left out, so that no window holds two weights."""
        # Without the lock: a canary that does not answer must not keep an abort waiting.
        if split.canary:
            self.cluster.warm("canary")
        if split.stable and not self._split.stable:
            self.cluster.warm("stable")
        with self._lock, uninterrupted():
            self._life.need_no_end_since(ending)
            took = self.cluster.router.apply(split)
            self._in_force(split, took)
            if step is not None:
                self._rollout = advance(self._rollout, step, now=self._now())
            self._voice.say(f"{split} to the canary, in force after {1000 * took:.0f} ms")
            return self.cluster.router.observed()

    def _in_force(self, split: TrafficSplit, took: float) -> None:
        now, before = self._now(), self._split.canary
        self.cluster.telemetry.begin(split, now)
        self._standing = Standing(split, since=now, took=took)
        self._record.weight(now, split.canary, took, before)
        self.cluster.remember(phase=self._rollout.phase, weight=split.canary)

    def _return_to_stable(self) -> float:
        """All traffic to stable; return the seconds it took."""
        start = self._now()
        try:
            self.cluster.warm("stable")
        except ClusterError as error:
            self._voice.note("problem", f"returning traffic to stable although it is in trouble: {error}")
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
        self._life.ending = ending
        self._rollout = advance(self._rollout, Decision("stop", ending.sentence, outcome=ending.outcome), now=self._now())
        self._record.end(ending, self._now())
        self._life.wake()
        self.cluster.remember(phase=ending.outcome, weight=self._split.canary)

    def _requests(self) -> tuple[int, int]:
        verdicts = self._judgement.verdicts
        return verdicts[0].comparison.requests if verdicts else (0, 0)

    def _tell_progress(self, where: str) -> None:
        stable, canary = self._standing.served
        served = f", {100 * canary / (stable + canary):.1f} % served" if stable + canary else ""
        load = self.load
        lost = f", {load.record()['lost_total']} lost" if load is not None else ""
        words = ", ".join(f"{verdict.guardrail} {SYMBOLS[verdict.word]}" for verdict in self.judge().verdicts)
        self._voice.progress(f"{where}: {self._split} asked{served}; {words}; {stable + canary:,} requests{lost}")
