"""Experiment: the session object of a notebook. It calls the cluster, the judge and the plan in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from canarykit import metrics
from canarykit.clusters import Cluster, connect
from canarykit.clusters.base import Breakable, Narrator, Traffic
from canarykit.conduct.course import Course
from canarykit.conduct.evidence import Evidence
from canarykit.conduct.lifetime import Lifetime, Overtaken
from canarykit.conduct.record import Record, facts
from canarykit.conduct.traffic import OwnTraffic
from canarykit.conduct.voice import Voice
from canarykit.errors import CanaryError, ClusterError, PlanError
from canarykit.history import History, replay
from canarykit.interrupts import uninterrupted
from canarykit.journal import Journal
from canarykit.model import Ending, Guardrail, Judgement, Service, TrafficSplit
from canarykit.plan import RolloutPlan, seconds
from canarykit.rollout import Decision, Rollout, advance, resume
from canarykit.snapshot import Snapshot, Standing

if TYPE_CHECKING:
    import pandas as pd

    from canarykit.charts import Chart

__all__ = ["Experiment"]

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
        self.alpha = alpha
        chosen = (metrics.error_rate(), metrics.latency()) if guardrails is None else tuple(guardrails)
        names = [guardrail.name for guardrail in chosen]
        if not names or len(set(names)) < len(names):
            raise PlanError(f"an experiment needs guardrails of different names, not {names}")
        self.journal = Journal(journal)
        clock, plan = self.cluster.clock, plan or RolloutPlan.of(5, 25, 50)
        self._record, self._life = Record(self.journal), Lifetime(clock)
        self._voice = Voice(self._record, clock, tell)
        self._evidence = Evidence(self.cluster, chosen, alpha, self._record)
        self._traffic = OwnTraffic(self.cluster, self._life, self._evidence, self._record, self._voice)
        self._course = Course(self.cluster, plan, self._life, self._evidence, self._traffic, self._record, self._voice)
        self._running = False
        self._lock, self._now = self._life.lock, clock.now
        self._fault: str | None = None
        if isinstance(self.cluster, Narrator):
            self.cluster.narrate(self._voice.say, self._voice.waiting)

    @property
    def ending(self) -> Ending | None:
        """How the rollout ended; None while it has not."""
        return self._life.ending

    @property
    def guardrails(self) -> tuple[Guardrail, ...]:
        """What the canary must not do worse; latency in the buckets of its source, once those are known."""
        return self._evidence.guardrails

    @property
    def load(self) -> Traffic | None:
        """The traffic that `send` started; None when none is sent."""
        return self._traffic.load

    # Life ------------------------------------------------------------------------------------------------------------

    def deploy(self) -> None:
        """Bring up both versions; all traffic goes to stable.

        Raises
        ------
        ClusterError
            A version does not come up; says why, with its last log lines. Nothing is left behind.
        """
        start = self._now()
        self._record.begin(facts(self.service, self.cluster, alpha=self.alpha, plan=self._course.rollout.plan), self.guardrails)
        with self._voice.busy("bringing up both versions"):
            self.cluster.deploy(self.service)
        with self._lock:
            self._life.word = "deployed"
            self._record.begin({"sources": dict(self.cluster.telemetry.sources)}, self.guardrails)
            self._course.begin()
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
        return self._traffic.send(rate, self._course.look, **options)

    def stop_sending(self) -> object:
        """End the traffic that `send` started; return what became of all of it. May be called again."""
        return self._traffic.stop(self._course.look)

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
                    self._course.end(Ending("inconclusive", "torn down while the plan was carried out"))
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
                self._course.look()
                alarm = self.judge().alarm
                if alarm is not None and split.canary > self._course.split.canary:
                    raise PlanError(
                        f"{alarm.guardrail} has alarmed, so the canary's weight does not rise from "
                        f"{self._course.split} to {split}: abort(), or begin a new experiment"
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
                    stable = self.service.stable.name
                    self._course.end(Ending("failed", f"promotion failed, traffic is back on {stable}: {error}"))
                    raise
                self._course.look()
                self._course.in_force(TrafficSplit(0), self.cluster.router.apply(TrafficSplit(0)))
                self.cluster.retire_canary()
                self._course.end(Ending("promoted", f"{self.service.canary.name} is stable now: {judgement.sentence}"))
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
                self._course.end(Ending("rolled back", f"{reason}; all traffic was back on stable after {1000 * took:.0f} ms"))
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
            self._course.look()
        with self._voice.shown("watching"):
            while (left := start + whole - self._now()) > 0 and self._life.goes_on(ending):
                self._life.wait(min(self._course.rollout.plan.interval, left), ending)
                with self._lock:
                    if self._life.deployed:
                        self._course.look()
                self._course.tell(f"{self._now() - start:.0f} of {whole:.0f} s")
        return self.history().levels()

    def look(self) -> Snapshot:
        """Take in what was counted since the last look, and say where everything stands.

        It never waits: while something else changes the weight or reads the counts, it says where that stands.
        """
        if self._lock.acquire(blocking=False):
            try:
                if self._life.deployed:
                    self._course.look()
            finally:
                self._lock.release()
        return self.snapshot()

    def snapshot(self) -> Snapshot:
        """Say where everything stands: at once, from any thread, whatever is being done."""
        load = self.load
        return Snapshot(
            service=self.service.name,
            versions=(self.service.stable.name, self.service.canary.name),
            life=self._life.word,
            simulated=self.cluster.simulated,
            now=self._now(),
            standing=self._course.standing,
            rollout=self._course.rollout,
            running=self._running,
            judgement=self._evidence.judgement,
            needed=self._evidence.needed,
            ending=self.ending,
            traffic=None if load is None else load.asked,
            lost=self._traffic.lost,
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
        return self._evidence.judgement

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
            self._course.look()
            decision = self._course.decide()
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
                self._course.rollout = Rollout(plan)
            self._running = True
        try:
            with self._voice.busy("carrying out the plan"):
                self._carry_out()
        except KeyboardInterrupt:
            self._give_up(Ending("inconclusive", f"interrupted after {sum(self._evidence.requests):,} requests"))
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

    def _carry_out(self) -> None:
        while self._life.goes_on(None):
            if self.advance().action == "hold":
                step = self._course.rollout.step + 1
                self._course.tell(f"step {step} of {len(self._course.rollout.plan.steps)}" if step else "before the first step")
                self._life.wait(self._course.rollout.plan.interval, None)

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
                keep = self._course.rollout.plan.on_inconclusive == "hold" and self._course.doubt() is None
                if not keep:
                    self._return_to_stable()
                self._course.end(Ending(decision.outcome, decision.reason))
            self._see_out()

    def _resume(self, found: TrafficSplit) -> None:
        """Go on with a rollout that was found under way: at its weight, with evidence of its own."""
        now = self._now()
        resumed = resume(self._course.rollout, found.canary, now=now)
        self._course.standing = Standing(found, since=now)
        if resumed is None:
            self._voice.note("resume", f"found {found} on the canary, which is no step of this plan: back to stable first")
            self._return_to_stable()
            return
        self._course.rollout = resumed
        self._course.in_force(found, 0.0)
        self._voice.note("resume", f"found {found} on the canary: goes on from there, and the evidence begins anew")

    def _see_out(self) -> None:
        """Watch the last split being served for a moment, then end the traffic."""
        if self.load is not None:
            self._life.wait(_SEE_OUT, self.ending)
            with self._lock:
                if self._life.deployed:
                    self._course.look()
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
            self._course.end(Ending(ending.outcome, f"{ending.sentence}; {where}"))
        self.stop_sending()

    def _apply(self, split: TrafficSplit, ending: Ending | None, step: Decision | None = None) -> TrafficSplit:
        """Change the weight; what was not looked at before is left out, so that no window holds two weights."""
        # Without the lock: a canary that does not answer must not keep an abort waiting.
        if split.canary:
            self.cluster.warm("canary")
        if split.stable and not self._course.split.stable:
            self.cluster.warm("stable")
        with self._lock, uninterrupted():
            self._life.need_no_end_since(ending)
            took = self.cluster.router.apply(split)
            self._course.in_force(split, took)
            if step is not None:
                self._course.rollout = advance(self._course.rollout, step, now=self._now())
            self._voice.say(f"{split} to the canary, in force after {1000 * took:.0f} ms")
            return self.cluster.router.observed()

    def _return_to_stable(self) -> float:
        """All traffic to stable; return the seconds it took."""
        start = self._now()
        try:
            self.cluster.warm("stable")
        except ClusterError as error:
            self._voice.note("problem", f"returning traffic to stable although it is in trouble: {error}")
        took = self.cluster.router.apply(TrafficSplit(0))
        self._course.in_force(TrafficSplit(0), took)
        return self._now() - start
