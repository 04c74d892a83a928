"""The panel's controller with a fake view, on the simulated cluster: clicks, threads, errors."""

import threading
import time

import pytest

import canarykit as ck
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.errors import ClusterError, RoutingError, TelemetryError


def test_a_drag_moves_nothing_and_apply_does(experiment, panel_of, until):
    """
    The slider is a wish; Apply makes it so, and says what it took.
    """
    exp = experiment()
    panel = panel_of(exp)
    panel.do("slide", 25)
    assert panel.view.shown[-1].wish == 25
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)
    panel.do("apply")
    until(lambda: panel.state.message == "applied 25 % in 2 ms; 0 requests lost", panel)
    assert exp.cluster.router.observed() == ck.TrafficSplit(25)
    assert panel.state.served.endswith("requests")


@pytest.mark.parametrize("action", ["promote", "abort"])
def test_what_cannot_be_taken_back_asks_once(experiment, panel_of, until, action):
    """
    No is no; yes does it, and a second yes finds nothing to do.
    """
    exp = experiment()
    panel = panel_of(exp)
    panel.do(action)
    assert panel.view.shown[-1].question
    panel.do("no")
    assert not panel.view.shown[-1].question
    panel.do("yes")
    assert exp.ending is None
    panel.do(action)
    panel.do("yes")
    until(lambda: exp.ending is not None, panel)
    assert exp.ending.outcome == {"promote": "promoted", "abort": "rolled back"}[action]
    until(lambda: panel.state.message == f"{exp.ending.outcome}; 0 requests lost", panel)
    assert panel.state.verdict == exp.ending.sentence


def test_abort_works_while_another_command_is_busy(experiment, panel_of, until, held_up):
    """
    A canary that does not answer keeps Apply waiting, not Abort; and what was to be applied is not, afterwards.
    """
    exp = experiment()
    gate = held_up(exp.cluster)
    panel = panel_of(exp)
    panel.do("slide", 50)
    panel.do("apply")
    until(lambda: exp.snapshot().doing == "giving 50 % to the canary", panel)
    panel.do("abort")
    panel.do("yes")
    until(lambda: exp.ending is not None, panel, seconds=5)
    assert not gate.is_set()
    gate.set()
    until(lambda: "the rollout has ended meanwhile" in panel.state.message, panel)
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)


def test_a_second_command_does_not_queue(experiment, panel_of, until, held_up):
    """
    A click that comes while another command is busy is dropped, not done later to everyone's surprise.
    """
    exp = experiment()
    gate = held_up(exp.cluster)
    panel = panel_of(exp)
    panel.do("slide", 50)
    panel.do("apply")
    panel.do("apply")
    gate.set()
    until(lambda: "applied" in panel.state.message, panel)
    assert [change["asked"] for change in exp.journal.weights()] == [50]


def test_a_plan_runs_in_the_background_and_abort_ends_it(experiment, panel_of, until, held_up):
    """
    The panel follows it, other panels too; the kernel is free all the time.
    """
    exp = experiment(plan=ck.RolloutPlan.of(5, 25, 50, hold="10s", budget="1h"))
    gate = held_up(exp.cluster)
    panel, other = panel_of(exp), panel_of(exp)
    panel.do("run")
    until(lambda: exp.snapshot().running, panel)
    assert "apply" not in other.state.enabled
    other.do("abort")
    other.do("yes")
    until(lambda: exp.ending is not None, other)
    gate.set()
    until(lambda: not exp.snapshot().running, panel)
    assert exp.ending.outcome == "rolled back"
    for each in (panel, other):
        assert each.state.phase == "✗ rolled back"


def test_a_plan_that_runs_to_its_end_is_followed(experiment, panel_of, until):
    """
    On the simulated cluster that takes a moment.
    """
    exp = experiment(plan=ck.RolloutPlan.of(5, 50, hold="20s"))
    panel = panel_of(exp)
    panel.do("run")
    until(lambda: panel.state.phase == "✓ promoted", panel, seconds=60)


def test_a_budget_of_harm_paces_the_plan(experiment, panel_of, until):
    """
    With the plan's highest weight and its time there; every panel shows the budget, and a budget that is none is a sentence.
    """
    exp = experiment(rate=200, plan=ck.RolloutPlan.of(5, 40, hold="5s"))
    panel, other = panel_of(exp), panel_of(exp)
    assert panel.state.harm == 0
    panel.do("run", 0.5)
    until(lambda: panel.state.problem, panel)
    assert "harm: Input should be greater than or equal to 1" in panel.state.message
    panel.do("run", 4)
    until(lambda: panel.state.phase == "✓ promoted", panel, seconds=60)
    assert other.state.harm == 4
    weights = [change["asked"] for change in exp.journal.weights()]
    assert weights[-3:] == [40, 100, 0]
    assert len(weights) > 5


def test_panels_agree_whoever_moves(experiment, panel_of, until):
    """
    State lives in the experiment: another panel's Apply, or a cell's shift, moves this panel's slider.
    """
    exp = experiment()
    one, two = panel_of(exp), panel_of(exp)
    two.do("slide", 80)
    one.do("slide", 25)
    one.do("apply")
    until(lambda: "applied" in one.state.message, one)
    assert two.state.wish == one.state.wish == 25
    assert two.state.served == one.state.served
    exp.shift(10)
    assert two.state.wish == one.state.wish == 10


def _in_trouble(panel, until, sentence):
    until(lambda: panel.state.problem, panel)
    assert sentence in panel.state.message
    assert "Traceback" not in panel.state.message


def test_a_weight_that_the_router_cannot_serve_is_a_sentence(experiment, panel_of, until, monkeypatch):
    """
    It is refused in words; the weight in force stays, and the slider stays where it was left.
    """
    exp = experiment()
    panel = panel_of(exp)

    def refuse(split, **options):
        raise RoutingError(f"replicas serve 0 %, 33.3 % and 66.7 %, not {split}")

    monkeypatch.setattr(exp.cluster.router, "write", refuse)
    panel.do("slide", 12.5)
    panel.do("apply")
    _in_trouble(panel, until, "not 12.5 %")
    assert (panel.state.asked, panel.state.wish) == ("0 %", 12.5)
    monkeypatch.undo()
    panel.do("apply")
    until(lambda: "applied 12.5 %" in panel.state.message, panel)


def test_a_promotion_after_an_alarm_is_refused_in_words(experiment, panel_of, until):
    """
    The reason is the evidence.
    """
    exp = experiment("failing")
    exp.shift(25)
    while exp.judge().alarm is None:
        exp.observe(1)
    panel = panel_of(exp)
    panel.do("promote")
    panel.do("yes")
    _in_trouble(panel, until, "nothing to promote: the canary's error rate")
    assert panel.state.verdict.startswith("✗ fail")


def test_a_cluster_that_is_gone_is_a_sentence_while_polling(experiment, panel_of, until):
    """
    Nobody needs to click for it; when it is back, the sentence goes.
    """
    gone = threading.Event()

    def problem(role, now):
        if gone.is_set():
            raise ClusterError("the local cluster is gone: it was torn down or its supervisor was killed")

    exp = experiment(cluster=SimulatedCluster("good", problem=problem))
    panel = panel_of(exp).start()
    gone.set()
    _in_trouble(panel, until, "the local cluster is gone")
    gone.clear()
    until(lambda: not panel.state.problem, panel)


def test_a_split_that_someone_else_changed_is_a_sentence_while_polling(experiment, panel_of, until):
    """
    Nobody needs to click for it, and what the last click came to does not hide it.
    """
    exp = experiment()
    panel = panel_of(exp).start()
    panel.do("slide", 5)
    panel.do("apply")
    until(lambda: "applied" in panel.state.message, panel)
    exp.cluster.router.split = ck.TrafficSplit(77)
    _in_trouble(panel, until, "serves 77 % to the canary, not the 5 %")
    exp.shift(25)
    until(lambda: not panel.state.problem, panel)


def test_an_error_that_nobody_foresaw_is_a_sentence_and_is_logged(experiment, panel_of, until, monkeypatch, caplog):
    """
    No traceback is lost in a callback.
    """
    exp = experiment()
    panel = panel_of(exp)
    monkeypatch.setattr(exp.cluster.router, "write", lambda split, **options: 1 / 0)
    panel.do("slide", 5)
    panel.do("apply")
    _in_trouble(panel, until, "ZeroDivisionError: division by zero")
    assert "Traceback" in caplog.text


def test_counts_that_cannot_be_read_do_not_end_the_polling(experiment, panel_of, until, monkeypatch):
    """
    The next look may succeed.
    """
    exp = experiment()
    reads = []

    def fail(now):
        reads.append(now)
        raise TelemetryError("the gateway's access log cannot be read")

    monkeypatch.setattr(exp.cluster.telemetry, "read", fail)
    panel = panel_of(exp).start()
    until(lambda: len(reads) > 1, panel)
    _in_trouble(panel, until, "access log cannot be read")


def test_an_experiment_torn_down_under_the_panel(experiment, panel_of, until):
    """
    The panel says so, offers nothing any more, and ends.
    """
    exp = experiment()
    panel = panel_of(exp).start()
    poller = panel._poller
    until(lambda: panel.frames == 1, panel)
    exp.abort("the last thing")
    exp.teardown()
    until(lambda: not poller.is_alive(), panel)
    last = panel.view.shown[-1]
    assert "rolled back" in last.picture.alt
    assert "has been closed" in last.message
    assert not last.enabled
    panel.do("apply")
    _in_trouble(panel, until, "nothing is deployed")


def test_an_experiment_torn_down_during_a_plan(experiment, panel_of, until, held_up):
    """
    The plan ends undecided, not with a traceback.
    """
    exp = experiment(plan=ck.RolloutPlan.of(5, 50))
    gate = held_up(exp.cluster)
    panel = panel_of(exp)
    panel.do("run")
    until(lambda: exp.snapshot().running, panel)
    exp.teardown()
    gate.set()
    until(lambda: not exp.snapshot().running, panel)
    assert exp.ending.outcome == "inconclusive"


def test_a_panel_may_come_before_deploy(experiment, panel_of, until):
    """
    It waits, and follows when there is something to follow.
    """
    exp = experiment(deploy=False)
    panel = panel_of(exp).start()
    assert "deploy()" in panel.state.phase
    exp.deploy()
    until(lambda: panel.view.shown and "all traffic on stable" in panel.view.shown[-1].phase, panel)


def test_traffic_is_started_shaped_and_stopped(experiment, panel_of, until):
    """
    The rate is the experiment's, so every panel shows it.
    """
    exp = experiment(rate=None)
    panel = panel_of(exp)
    panel.do("send", (50.0, "spike"))
    until(lambda: panel.state.traffic.startswith("sending 50/s"), panel)
    until(lambda: "stop" in panel.state.enabled, panel)
    panel.do("stop")
    until(lambda: panel.state.traffic == "the kit sends nothing", panel)


def test_a_fault_is_switched_on_and_off(experiment, panel_of, until):
    """
    For teaching: the canary fails until it is mended, and the journal says that it was on purpose.
    """
    exp = experiment()
    panel = panel_of(exp)
    panel.do("inject", "failing")
    until(lambda: panel.state.fault == "failing" and "inject" in panel.state.enabled, panel)
    exp.shift(50)
    exp.observe("20s")
    assert exp.judge().alarm.guardrail == "error rate"
    panel.do("inject", None)
    until(lambda: panel.state.fault == "", panel)
    assert [event["text"] for event in exp.journal.events() if event["kind"] == "fault"] == [
        "the canary is broken on purpose: failing", "the canary is mended",
    ]  # fmt: skip


def test_a_slow_drawing_drops_frames_and_keeps_no_number_waiting(experiment, panel_of, until, monkeypatch):
    """
    One drawing at a time; numbers go on while it lasts; what could not be drawn is dropped, not queued.
    """
    exp = experiment()
    panel = panel_of(exp)
    chart, drawn = exp.compare, []

    def slow():
        drawn.append(time.monotonic())
        time.sleep(0.5)
        return chart()

    monkeypatch.setattr(exp, "compare", slow)
    start = time.monotonic()
    for _ in range(10):
        panel._tick()
    assert time.monotonic() - start < 0.5
    assert len(drawn) <= 2
    assert panel.dropped >= 8
    until(lambda: panel.frames >= 1, panel)
    assert panel.state.picture.alt.startswith("v2, no data so far")


def test_a_click_that_is_none_is_an_error(experiment, panel_of):
    """
    A control of the view that the panel does not know is a mistake here.
    """
    with pytest.raises(ValueError, match="no control 'explode'"):
        panel_of(experiment()).do("explode")
