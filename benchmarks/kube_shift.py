"""How long a change of weight takes on a cluster, beside a raw patch of the same route.

    python benchmarks/kube_shift.py [WHERE]

WHERE is as of `connect`, such as "kube:?hostname=bench.test"; by default the cluster that KUBECONFIG names. Both
versions run there; the canary's weight goes from 0 to 100 % and back, by turns with `Experiment.shift` and with one
read and one patch of the route and nothing else. A client in a process of its own asks again and again, and sees when
the first answer of the other version comes: from the call to that answer is the time until the split is in force. The
kit, which looks at the pods before it writes, may add a tenth and one round trip to the gateway.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time

import numpy as np

import canarykit as ck
from canarykit.model import TrafficSplit
from canarykit.routers.objects import Probe
from canarykit.serving import digits

ROUNDS = 75
NAMESPACE = "canarykit-bench"
PATH = "/v2/health/ready"
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
    ways = {"raw patch": raw, "shift()": lambda exp, weight: exp.shift(weight)}
    took, rng = {name: [] for name in ways}, np.random.default_rng(0)
    for number in range(ROUNDS):
        for name in ways if number % 2 else reversed(ways):
            for weight in (100, 0):
                time.sleep(float(rng.uniform(0.5, 0.8)))  # the gateway gathers changes: at no fixed moment of that
                pipe.send("canary" if weight else "stable")
                start = time.perf_counter()
                ways[name](exp, weight)
                took[name].append(pipe.recv() - start)
    return took


def main():
    """Print both, and their ratio."""
    cluster = ck.connect(sys.argv[1] if len(sys.argv) > 1 else f"kube:/{NAMESPACE}?hostname=bench.test")
    versions = ck.Version("v1", model=digits.model("stable")), ck.Version("v2", model=digits.model("good"))
    with ck.Experiment(ck.Service("digits", *versions, replicas=1), cluster, tell=lambda line: None) as exp:
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
    base, ours = (statistics.median(seconds) for seconds in took.values())
    limit = 1.1 * base + trip
    print(f"\nratio {ours / base:.2f}; the limit is 1.1 × {1000 * base:.0f} ms + a round trip of {1000 * trip:.1f} ms")
    return 0 if ours <= limit else 1


if __name__ == "__main__":
    sys.exit(main())
