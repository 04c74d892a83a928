"""The panel on the local default: real model servers, a real Envoy, real traffic."""

import time

import pytest

import canarykit as ck
from canarykit.clusters.local import LocalCluster
from canarykit.metrics import accuracy, error_rate

pytestmark = [pytest.mark.real("envoy"), pytest.mark.slow]


def test_a_rollout_by_hand(models, panel_of, until):
    """
    Traffic, Apply, a fault that is seen and mended, Promote; nothing is lost, and the panel ends with the experiment.
    """
    service = ck.Service("digits", ck.Version("v1", model=models["stable"]), ck.Version("v2", model=models["good"]), replicas=1)
    with ck.Experiment(service, guardrails=[error_rate(), accuracy()], notify=lambda line: None) as exp:
        panel = panel_of(exp, view=None).start()
        view = panel.view
        exp.deploy()
        until(lambda: not view.send.disabled, panel)
        view.rate.value = 150
        view.send.click()
        until(lambda: not view.stop.disabled, panel)
        view.slider.value = 50
        start = time.monotonic()
        view.apply.click()
        until(
            lambda: "served <b" in view.served.value and "50 %</b>" in view.served.value and "requests<" in view.served.value,
            panel,
        )
        print(f"served share shown after {time.monotonic() - start:.2f} s")
        view.fault.value = "failing"
        until(lambda: not view.inject.disabled, panel)  # one command at a time: Apply may still be seeing its share served
        view.inject.click()
        until(lambda: exp.judge().verdicts[0].comparison.events[1] > 0, panel, seconds=60)
        until(lambda: not view.inject.disabled, panel)
        view.fault.value = "nothing"
        view.inject.click()
        until(lambda: panel.state.fault == "", panel)
        if exp.judge().alarm is None:
            until(lambda: not view.promote.disabled, panel)
            view.promote.click()
            view.yes.click()
            until(lambda: exp.ending is not None, panel, seconds=60)
            assert exp.ending.outcome == "promoted"
        assert sum(exp.history().lost.values()) == 0
        until(lambda: panel.frames > 0, panel, seconds=60)
        poller = panel._poller
    until(lambda: not poller.is_alive(), panel)


def test_each_fault_is_seen_from_outside(models):
    """
    Slow, failing and wrong, through the gateway, on the canary alone; a model on a server of one's own has none.
    """
    service = ck.Service("digits", ck.Version("v1", model=models["good"]), ck.Version("v2", model=models["good"]), replicas=1)
    cluster = LocalCluster()
    assert cluster.faults == ()
    guardrails = [error_rate(), ck.metrics.latency(0.5), accuracy()]
    with ck.Experiment(service, cluster, guardrails=guardrails, notify=lambda line: None) as exp:
        exp.deploy()
        assert cluster.faults == ("slow", "failing", "wrong")
        with pytest.raises(ck.errors.PlanError, match="choose one of slow, failing, wrong"):
            exp.inject("sleepy")
        exp.send(150)
        exp.shift(50)
        for fault in ("slow", "wrong", "failing"):  # a failed answer is not a right one: wrong comes before failing
            before = exp.judge().verdicts
            exp.inject(fault)
            exp.observe("3s")
            after = exp.judge().verdicts
            assert _worse(fault, before, after), (fault, after)
            exp.inject(None)


def _worse(fault, before, after):
    row = {"failing": 0, "slow": 1, "wrong": 2}[fault]
    stable, canary = (after[row].comparison.events[role] - before[row].comparison.events[role] for role in (0, 1))
    return canary > 5 + stable
