"""A deployment that fails with both versions up leaves nothing, and a reconnect knows the plan that was carried out."""

import pytest
from holdings import MemoryHolding

import canarykit as ck
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.errors import ClusterError, TelemetryError
from canarykit.routers.base import apply


class Remembering(SimulatedCluster):
    """A cluster where a rollout was found under way, of which something was written down."""

    def __init__(self, weight=0.0, **written):
        super().__init__()
        self.weight, self.holding, self.undone = weight, MemoryHolding(**written), 0

    def deploy(self, service):
        """Find the canary with its share."""
        super().deploy(service)
        apply(self.router, ck.TrafficSplit(self.weight))

    def undeploy(self):
        """Take back what was deployed."""
        self.undone += 1
        super().undeploy()


def failing(error):
    """A function that only raises."""

    def fail(*values, **options):
        raise error

    return fail


@pytest.mark.parametrize(
    "place", ["telemetry.begin", "router.observed", "journal.add_event", "telemetry.sources"], ids=lambda place: place
)
@pytest.mark.parametrize("error", [TelemetryError("no counts"), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_a_deployment_that_fails_late_is_taken_back(simulated, monkeypatch, place, error):
    """
    Whatever fails, and whoever presses Ctrl-C: nothing runs, and the next try works.
    """
    exp = simulated(cluster=Remembering(), deploy=False)
    room, name = place.split(".")
    owner = exp.journal if room == "journal" else getattr(exp.cluster, room)
    with monkeypatch.context() as broken:
        if name == "sources":
            broken.setattr(type(owner), name, property(failing(error)))
        else:
            broken.setattr(owner, name, failing(error))
        with pytest.raises(type(error)):
            exp.deploy()
    assert exp.cluster.undone == 1
    with pytest.raises(ClusterError, match="nothing is deployed"):
        exp.shift(5)
    assert exp.snapshot().stage == "new"
    exp.deploy()
    assert exp.shift(5) == ck.TrafficSplit(5)


def test_what_cannot_be_taken_back_is_said_beside_the_cause(simulated, monkeypatch):
    """
    The cause is what is raised.
    """
    exp = simulated(cluster=Remembering(), deploy=False)
    monkeypatch.setattr(exp.cluster.telemetry, "begin", failing(TelemetryError("no counts")))
    monkeypatch.setattr(exp.cluster, "undeploy", failing(ClusterError("the API server is away")))
    with pytest.raises(TelemetryError, match="no counts") as failed:
        exp.deploy()
    assert failed.value.__notes__ == ["and what was deployed could not be taken back: the API server is away"]


def test_a_second_deployment_takes_back_nothing(simulated):
    """
    It is refused, and the first one goes on.
    """
    exp = simulated(cluster=Remembering())
    with pytest.raises(ClusterError, match="runs a service already"):
        exp.deploy()
    assert exp.cluster.undone == 0
    assert exp.shift(5) == ck.TrafficSplit(5)


# The plan of a rollout that is gone on with -----------------------------------------------------------------------------

CARRIED_OUT = ck.RolloutPlan.of(30, 60, hold="90s", budget="10min")


def dump(plan):
    """A plan as it is written down."""
    return plan.model_dump(mode="json")


def test_a_plan_that_is_carried_out_is_written_down(simulated):
    """
    The one passed to `run`, before the first weight, until it has ended.
    """
    exp = simulated(cluster=Remembering())
    seen = []
    remember = exp.cluster.holding.save_state

    def remembered(**facts):
        remember(**facts)
        seen.append((facts.get("weight"), exp.cluster.holding.facts["plan"]))

    exp.cluster.holding.save_state = remembered
    exp.run(CARRIED_OUT)
    assert seen[:2] == [(None, dump(CARRIED_OUT)), (30.0, dump(CARRIED_OUT))]
    assert seen[-1] == (None, None)


def test_weights_by_hand_are_no_plan(simulated):
    """
    Whoever goes on uses a plan of their own.
    """
    exp = simulated(cluster=Remembering())
    exp.shift(25)
    assert exp.cluster.holding.facts["plan"] is None
    exp.advance()
    assert exp.cluster.holding.facts["plan"] == dump(exp.snapshot().state.plan)


def test_a_reconnect_goes_on_with_the_plan_that_was_carried_out(simulated):
    """
    Its weight is a step of that plan, not of the next experiment's own.
    """
    told = []
    cluster = Remembering(30.0, plan=dump(CARRIED_OUT))
    exp = simulated(cluster=cluster, plan=ck.RolloutPlan.of(5, 50), notify=told.append)
    assert cluster.router.observed() == ck.TrafficSplit(30)
    assert exp.snapshot().state.plan == CARRIED_OUT
    assert any("goes on with the plan that was being carried out: 30, 60 %" in line for line in told)
    assert exp.run().outcome == "promoted"
    assert [change["asked"] for change in exp.journal.weights()] == [30, 60, 100, 0]


def test_a_plan_passed_to_run_goes_before_one_that_was_written_down(simulated):
    """
    It says what is to be done now.
    """
    exp = simulated(cluster=Remembering(30.0, plan=dump(CARRIED_OUT)))
    exp.run(ck.RolloutPlan.of(30, 40, hold="20s", budget="10min"))
    assert 40 in [change["asked"] for change in exp.journal.weights()]


@pytest.mark.parametrize(
    "written", [{"steps": []}, "text", {"steps": [{"weight": 30}], "new": 1}], ids=["none", "text", "newer"]
)
def test_a_plan_that_cannot_be_read_is_told_and_left(simulated, written):
    """
    Somebody has edited it, or another release has written it: the experiment's own is used.
    """
    told = []
    exp = simulated(cluster=Remembering(5.0, plan=written), plan=ck.RolloutPlan.of(5, 50), notify=told.append)
    assert exp.cluster.router.observed() == ck.TrafficSplit(5)
    assert any("the plan that was written down cannot be done" in line for line in told)


def test_a_plan_is_forgotten_where_no_rollout_is_found(simulated):
    """
    All traffic is on stable: the next experiment begins with its own.
    """
    exp = simulated(cluster=Remembering(0.0, plan=dump(CARRIED_OUT)), plan=ck.RolloutPlan.of(5, 50))
    assert [step.weight for step in exp.snapshot().state.plan.steps] == [5, 50]
