"""How long a change of weight takes on a cluster, beside a raw patch of the same route.

    python benchmarks/kube_shift.py [WHERE]

WHERE is as of `connect`, such as "kube:?hostname=bench.test"; by default the cluster that KUBECONFIG names. Both
versions run there; the canary's weight goes from 0 to 100 % and back, by turns with one read and one patch of the route
and nothing else, with `Experiment.shift` while somebody watches, as a plan and a panel do, and with `Experiment.shift`
when nobody has looked for longer than the plan's interval, which takes in the counts first. A client in a process of its
own asks again and again, and sees when the first answer of the other version comes: from the call to that answer is the
time until the split is in force. The kit, which looks at the canary's pods before it writes, may add a tenth and one
round trip to the gateway; the look, which may find an alarm and then stops the change, comes on top and is printed.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time

import numpy as np

import canarykit as ck
from canarykit.model import TrafficSplit
from canarykit.routers.probe import Probe
from canarykit.serving import digits

ROUNDS = 75
RAW, WATCHED, UNWATCHED = "raw patch", "`shift()`, watched", "`shift()`, not looked at before"
NAMESPACE = "canarykit-bench"
PATH = "/v2/health/ready"
PLAN = ck.RolloutPlan.of(100)
REST = 0.002
"""Seconds between questions: without a rest the client would take the processors from the gateway that it watches."""


def raw(exp, weight):
    """Patch the route, and nothing else."""
    router = exp.cluster.router
    body, how = router.change(router._read(), TrafficSplit(weight))
    exp.cluster.client.patch(router.kind, router.name, body, how=how)


def watch(pipe, url, host):
    """Answer each role that comes through the pipe with the moment at which it first answers; None ends it."""
    probe = Probe(url, PATH, host=host)
    for role in iter(pipe.recv, None):
        while probe() != role:
            time.sleep(REST)
        pipe.send(time.perf_counter())
    probe.close()


def round_trip(router):
    """Seconds of one question to the gateway, in the median."""
    probe, took = Probe(router.url, PATH, host=router.hostname), []
    for _ in range(100):
        start = time.perf_counter()
        probe()
        took.append(time.perf_counter() - start)
    probe.close()
    return statistics.median(took[1:])


def measure(exp, pipe):
    """Seconds of each way, per change."""
    ways = {RAW: raw, WATCHED: ck.Experiment.shift, UNWATCHED: ck.Experiment.shift}
    took, rng = {name: [] for name in ways}, np.random.default_rng(0)
    for _ in range(ROUNDS):
        for name in rng.permutation(list(ways)):
            for weight in (100, 0):
                if name != RAW:
                    exp.poll()
                # The gateway gathers changes: they come at no fixed moment of that.
                time.sleep(float(rng.uniform(0.5, 0.8)) + (PLAN.interval if name == UNWATCHED else 0))
                pipe.send("canary" if weight else "stable")
                start = time.perf_counter()
                ways[name](exp, weight)
                took[name].append(pipe.recv() - start)
    return took


def main():
    """Print both, and their ratio."""
    cluster = ck.connect(sys.argv[1] if len(sys.argv) > 1 else f"kube:/{NAMESPACE}?hostname=bench.test")
    versions = ck.Version("v1", model=digits.model("stable")), ck.Version("v2", model=digits.model("good"))
    with ck.Experiment(ck.Service("digits", *versions, replicas=1), cluster, plan=PLAN, notify=lambda line: None) as exp:
        exp.deploy()
        router = exp.cluster.router
        trip = round_trip(router)
        here, there = multiprocessing.get_context("spawn").Pipe()
        client = multiprocessing.get_context("spawn").Process(
            target=watch, args=(there, router.url, router.hostname), daemon=True
        )
        client.start()
        took = measure(exp, here)
        here.send(None)
        client.join()
    print("| change of weight on a cluster | median | 95 % within | slowest | changes |\n|---|---|---|---|---|")
    for name, seconds in took.items():
        quantiles = np.quantile(seconds, [0.5, 0.95, 1.0])
        print(f"| {name} | {' | '.join(f'{1000 * q:.0f} ms' for q in quantiles)} | {len(seconds)} |")
    base, ours, looked = (statistics.median(took[name]) for name in (RAW, WATCHED, UNWATCHED))
    limit = 1.1 * base + trip
    print(
        f"\nratio {ours / base:.2f}; the limit is 1.1 × {1000 * base:.0f} ms + a round trip of {1000 * trip:.1f} ms; "
        f"a look before it takes {1000 * (looked - ours):.0f} ms more"
    )
    return 0 if ours <= limit else 1


if __name__ == "__main__":
    sys.exit(main())
