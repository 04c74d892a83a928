"""Experiment: the session object of a notebook. What it does is done by the other modules here."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

from canarykit import metrics
from canarykit.analysis import Judge
from canarykit.clusters import Cluster, connect
from canarykit.clusters.base import Breakable, ReportsProgress, Traffic
from canarykit.errors import PlanError
from canarykit.history import History
from canarykit.interrupts import Terminated, terminable, uninterrupted
from canarykit.journal import Journal
from canarykit.model import Ending, Guardrail, Judgement, Service, TrafficSplit
from canarykit.plan import RolloutPlan, seconds
from canarykit.rollout import Decision, begin
from canarykit.session.control import TrafficControl
from canarykit.session.events import Events
from canarykit.session.journal_writer import JournalWriter, facts
from canarykit.session.lifecycle import Lifecycle
from canarykit.session.loop import RolloutLoop
from canarykit.session.snapshot import Snapshot
from canarykit.session.tracker import Tracker

if TYPE_CHECKING:
    import pandas as pd

    from canarykit.charts import Chart

__all__ = ["Experiment"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _ending_well(method: Callable[Concatenate[Experiment, _P], _R]) -> Callable[Concatenate[Experiment, _P], _R]:
    """Have traffic return to stable when the process is told to end while a method of an experiment is under way."""

    @wraps(method)
    def made(experiment: Experiment, /, *args: _P.args, **options: _P.kwargs) -> _R:
        try:
            with terminable():
                return method(experiment, *args, **options)
        except Terminated as error:
            experiment._loop.terminated(error)
            raise

    return made


class Experiment:
    """A canary deployment, from two versions to one.

    It may be used from several threads at once: a panel, a background rollout, a cell. Whatever changes the weight or
    reads the counts holds one lock. It is not held between looks, nor while a version warms up for more traffic, so that
    `abort` goes through at once. These wait while they hold it:

    - a change of weight, until the gateway serves it: up to half a minute, or `settle=` of the cluster. On a route of a
      cluster an abort, Ctrl-C or SIGTERM ends that wait, and the weight stays written until traffic returns;
    - a return to stable, until stable has the replicas for what it gets, up to a minute, and the gateway serves it;
    - a promotion that has begun to replace stable's replicas, which is finished first;
    - `deploy`, for its last part, when both versions are up.

    Parameters
    ----------
    service : Service
        Both versions.
    cluster : Cluster or str, optional
        Where they run; ``"local"`` by default.
    guardrails : sequence of Guardrail, optional
        Limits that the canary must keep. By default error rate, p95 latency, refused and denied requests; of the last two
        only what the source of counts can tell.
    plan : RolloutPlan, optional
        For `run` and `advance`; 5, 25 and 50 % for a minute each by default.
    alpha : float
        Chance of a false alarm over the whole rollout, however often one looks.
    dispersion : float, optional
        How much more the counts vary from window to window than those of independent requests (φ), from an A/A rollout. By
        default it is estimated for each rate while the rollout goes on.
    split : {"realised", "known"}
        Where the canary's share of a window comes from: its own counts, which needs no trust, or the weight in force.
    journal : path, optional
        Where the record of windows, weights and decisions goes; in memory by default.
    notify : callable, optional
        Takes one line of progress. By default they are printed, and one that changes is shown below or above them. When it
        raises, that is said once, no more lines are shown, and the experiment goes on.

    Raises
    ------
    PlanError
        No guardrail, or two of the same name; no such split, or a dispersion that is none.
    """

    def __init__(
        self,
        service: Service,
        cluster: Cluster | str = "local",
        *,
        guardrails: Sequence[Guardrail] | None = None,
        plan: RolloutPlan | None = None,
        alpha: float = 0.05,
        dispersion: float | None = None,
        split: Literal["realised", "known"] = "realised",
        journal: str | os.PathLike[str] | None = None,
        notify: Callable[[str], object] | None = None,
    ) -> None:
        self.service = service
        self.cluster: Cluster = connect(cluster) if isinstance(cluster, str) else cluster
        if split not in ("realised", "known"):
            raise PlanError(f"split of an experiment must be realised or known, not {split!r}")
        self._how: dict[str, Any] = {"alpha": alpha, "dispersion": dispersion, "split": split}
        chosen = metrics.default() if guardrails is None else tuple(guardrails)
        # Nobody asked for the default ones: those about refusals are left out where the source of counts cannot tell.
        self._optional = frozenset(each.name for each in (metrics.refused(), metrics.denied()) if guardrails is None)
        names = [guardrail.name for guardrail in chosen]
        if not names or len(set(names)) < len(names):
            raise PlanError(f"an experiment needs guardrails of different names, not {names}")
        self.journal = Journal(journal)
        clock, plan = self.cluster.clock, plan or RolloutPlan.of(5, 25, 50)
        self._writer, self._lifecycle = JournalWriter(self.journal), Lifecycle(clock)
        self._events = Events(self._writer, clock, notify)
        state = begin(plan, Judge(chosen, **self._how))
        self._tracker = Tracker(self.cluster, state, self._lifecycle, self._writer, self._events)
        self._control = TrafficControl(service, self.cluster, self._lifecycle, self._tracker, self._events)
        self._loop = RolloutLoop(self._lifecycle, self._tracker, self._control, self._events)
        self._fault: str | None = None
        if isinstance(self.cluster, ReportsProgress):
            self.cluster.report_progress(self._events.say, self._events.waiting)

    @property
    def ending(self) -> Ending | None:
        """How the rollout ended; None while it has not."""
        return self._lifecycle.ending

    @property
    def doubt(self) -> str | None:
        """Why the numbers must not be believed, as of the last look: someone else changed the split, or it is not served."""
        return self._tracker.doubt()

    @property
    def guardrails(self) -> tuple[Guardrail, ...]:
        """What the canary must not do worse; latency in the buckets of its source, once those are known."""
        return self._tracker.state.evidence.guardrails

    @property
    def load(self) -> Traffic | None:
        """The traffic that `send` started; None when none is sent."""
        return self._tracker.traffic.load

    # Life ------------------------------------------------------------------------------------------------------------

    @_ending_well
    def deploy(self) -> None:
        """Bring up both versions; all traffic goes to stable.

        Raises
        ------
        ClusterError
            A version does not come up; says why, with its last log lines. Nothing is left behind.
        """
        start = self.cluster.clock.now()
        known = facts(self.service, self.cluster, plan=self._tracker.state.plan)
        self.journal.begin({**known, **self._how}, self.guardrails)
        with self._events.busy("bringing up both versions"):
            self.cluster.deploy(self.service)
        try:
            with self._lifecycle.lock:
                found = self._begin(start)
            if found.canary:
                self._control.resume(found)
        except BaseException as error:
            with self._lifecycle.lock:
                self._undeploy(error)
            raise

    def send(self, rate: float | str = 100.0, **options: Any) -> Traffic:
        """Start traffic to the service, in a process of its own.

        Parameters
        ----------
        rate : float or str
            Requests per second: ``150`` or ``"150/s"``.
        **options
            See `Load`: ``path``, ``method``, ``payloads``, ``content_type``, ``compression``, ``answer``, ``shape``,
            ``duration``, ``timeout``, ``headers``, ``seed``; on a cluster also ``inside`` and ``url``.
        """
        self._lifecycle.need_deployment()
        return self._tracker.traffic.send(rate, **options)

    def stop_sending(self) -> object:
        """End the traffic that `send` started last; return what became of all of it.

        May be called again, and after the traffic has ended: it returns the same then. None when nothing was sent.
        """
        return self._tracker.stop_traffic()

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
        self._lifecycle.need_deployment()
        known = self._faults()
        if not isinstance(self.cluster, Breakable) or (fault is not None and fault not in known):
            which = f"choose one of {', '.join(known)}" if known else "only models on the kit's own server here have any"
            raise PlanError(f"the canary has no fault {fault!r} to switch on: {which}")
        self.cluster.inject(fault)
        self._fault = fault
        self._events.note("fault", f"the canary is broken on purpose: {fault}" if fault else "the canary is mended")

    def close(self) -> None:
        """End the traffic that `send` started, and let go. May be called again.

        What runs on this machine ends; on a cluster both versions stay, with the weight that they have.
        """
        try:
            if self._lifecycle.deployed:
                self.stop_sending()
        finally:
            self._shut(self.cluster.release)

    def teardown(self) -> None:
        """End the traffic, both versions and the gateway. May be called again."""
        try:
            with self._lifecycle.urgently():
                if self._tracker.running and self.ending is None:
                    self._tracker.end(Ending("inconclusive", "torn down while the plan was carried out"))
            if self._lifecycle.deployed:
                self.stop_sending()
        finally:
            self._shut(self.cluster.teardown)

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, *error: object) -> None:
        self.teardown()

    # Traffic -----------------------------------------------------------------------------------------------------------

    @_ending_well
    def shift(self, weight: float) -> TrafficSplit:
        """Give the canary a share of the traffic.

        No window holds two weights: what was counted since the last look is taken in first, or left out when that look
        is younger than the plan's interval.

        Parameters
        ----------
        weight : float
            Percent.

        Returns
        -------
        TrafficSplit
            The split that the gateway says it serves, once it does.

        Raises
        ------
        PlanError
            Not a weight, a higher one after an alarm, or the plan is being carried out.
        RoutingError
            The gateway does not serve it: where it is more than was in force, that is written again, as far as that goes.
        EditedError
            Someone else has changed the split, and no look had told it when this was called. Nothing was changed; asked for
            again, it is. 0 % goes over whatever is there.
        ClusterError
            The canary does not answer.
        """
        return self._control.shift(TrafficSplit(weight))

    @_ending_well
    def promote(self) -> Ending:
        """Make the canary's version the stable one, with nothing lost, and retire the canary.

        The canary takes all traffic; stable's replicas are replaced behind its back; traffic returns to stable, now
        of the new version; the canary's replicas finish what they have and end.

        Raises
        ------
        PlanError
            A guardrail has alarmed, the experiment has ended otherwise, or the router splits what no promotion reaches.
        RoutingError, EditedError
            The canary cannot be given all traffic, as of `shift`.
        ClusterError
            Stable's new replicas do not come up, and traffic returns to the old ones; or something failed after that. The
            ending says which version is stable, and what was not done.
        UnrestoredError
            As above, but the old replicas' version could not be put back, so that stable may be of either.
        """
        return self._control.promote()

    def abort(self, reason: str = "aborted by hand") -> Ending:
        """Return all traffic to stable: one call, from any state, from any thread, any number of times.

        A rollout or an observation that waits in another thread ends at once.

        Parameters
        ----------
        reason : str
            For the record.
        """
        return self._control.abort(reason)

    # Assessment ----------------------------------------------------------------------------------------------------------

    @_ending_well
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
        self._lifecycle.need_deployment()
        self._loop.watch(seconds(duration))
        return self.history().levels()

    def poll(self) -> Snapshot:
        """Take in what was counted since the last look, read the split back, and say where everything stands.

        It never waits: while something else changes the weight or reads the counts, it says where that stands.
        """
        if self._lifecycle.lock.acquire(blocking=False):
            try:
                self._tracker.poll()
            finally:
                self._lifecycle.lock.release()
        return self.snapshot()

    def snapshot(self) -> Snapshot:
        """Say where everything stands: at once, from any thread, whatever is being done."""
        load, state = self.load, self._tracker.state
        # The source has to count it, too.
        delay = self.cluster.telemetry.delay if self._lifecycle.deployed else 0.0
        return Snapshot(
            service=self.service.name,
            versions=(self.service.stable.name, self.service.canary.name),
            stage=self._lifecycle.stage,
            simulated=self.cluster.simulated,
            now=self.cluster.clock.now(),
            state=state,
            running=self._tracker.running,
            needed=tuple(needed + delay for _, needed in state.evidence.still_needed),
            ending=self.ending,
            traffic=None if load is None else load.asked,
            lost=self._tracker.traffic.lost,
            faults=self._faults(),
            fault=self._fault,
            doing=self._events.doing,
            said=self._events.said,
        )

    def quietly(self) -> AbstractContextManager[None]:
        """Tell no progress from this thread meanwhile; `snapshot` still has the last line."""
        return self._events.quietly()

    def judge(self) -> Judgement:
        """Say what the evidence shows so far."""
        return self._tracker.state.judgement

    def history(self) -> History:
        """Return everything counted so far, as tidy tables."""
        with self._lifecycle.lock:
            return self._writer.history(self._tracker.state.evidence)

    def compare(self) -> Chart:
        """Draw both versions side by side, with effect, evidence and weight."""
        from canarykit.charts import compare

        return compare(self.history())

    # Rollout -----------------------------------------------------------------------------------------------------------

    @_ending_well
    def advance(self) -> Decision:
        """Look once, decide, and do what was decided.

        Returns
        -------
        Decision
            Hold, advance, promote, roll back or stop, with the reason.

        Raises
        ------
        PlanError
            The plan is being carried out already, or the router splits what no promotion reaches.
        RoutingError, ClusterError
            The weight was not changed, as of `shift`; where someone else changed the split, the plan ends instead.
        """
        return self._loop.advance()

    @_ending_well
    def run(self, plan: RolloutPlan | None = None) -> Ending:
        """Carry out a whole rollout, unattended.

        Ctrl-C returns all traffic to stable and ends the rollout as inconclusive; so does any error, as failed, and is raised.
        So do SIGTERM and SIGHUP of a process whose main thread calls this, unless it handles or ignores them itself; then it
        ends, with the exit code 143 or 129.

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
            A plan is being carried out already, or the router splits what no promotion reaches.
        ClusterError
            The experiment was closed meanwhile.
        """
        return self._loop.run(plan)

    # Inside ------------------------------------------------------------------------------------------------------------

    def _begin(self, start: float) -> TrafficSplit:
        """Begin to count, with both versions up since `start`; return the split that was found. Needs the lock."""
        self._lifecycle.stage = "deployed"
        left_out = self._tracker.begin(self._optional)
        took = self.cluster.clock.now() - start
        name = f"{self.service.name} (simulated)" if self.cluster.simulated else self.service.name
        self._events.note("deploy", f"{name}: both versions ready in {took:.1f} s at {self.cluster.url}")
        if left_out:
            self._events.note("guardrails", f"the source of counts does not tell {' and '.join(left_out)}: not compared")
        return self.cluster.router.observed()

    def _undeploy(self, cause: BaseException) -> None:
        """After a deployment that failed with both versions up: leave nothing of it, so that `deploy` may be called again."""
        with uninterrupted():
            self._lifecycle.stage = "new"
            try:
                self.cluster.undeploy()
            except Exception as error:
                cause.add_note(f"and what was deployed could not be taken back: {error}")

    def _shut(self, end: Callable[[], None]) -> None:
        self._control.returning.end_promotion()
        self._tracker.handover.save(self._tracker.state, at_once=True)
        self._tracker.handover.finish()
        with self._lifecycle.urgently():
            self._lifecycle.stage = "closed"
            end()
            self._lifecycle.wake()
            self.journal.close()

    def _faults(self) -> tuple[str, ...]:
        return self.cluster.faults if isinstance(self.cluster, Breakable) else ()
