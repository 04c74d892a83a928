"""How long a change of weight takes on a cluster, beside a raw patch of the same route.

    python benchmarks/kube_shift.py [WHERE]

WHERE is as of `connect`, such as "kube:?hostname=bench.test"; by default the cluster that KUBECONFIG names. Both
versions run there; the canary's weight goes from 0 to 100 % and back, by turns with `Experiment.shift` and with one
read and one patch of the route and nothing else. A client that asks without a pause sees when the first answer of the
other version comes: from the call to that answer is the time until the split is in force. The kit, which looks at the
counts, the pods and the route before it writes, may add a tenth and one round trip to the gateway.
"""

from __future__ import annotations

import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import canarykit as ck
from canarykit.model import TrafficSplit
from canarykit.routers.objects import Probe
from canarykit.serving import digits

ROUNDS = 25
NAMESPACE = "canarykit-bench"


def raw(exp, weight):
    """Patch the route, and nothing else."""
    router = exp.cluster.router
    body, how = router.change(router._read(), TrafficSplit(weight))
    exp.cluster.client.patch(router.kind, router.name, body, how=how)


def until_in_force(change, exp, weight, probe):
    """Seconds from the beginning of a change until the other version answers."""
    with ThreadPoolExecutor(1) as worker:
        start = time.perf_counter()
        writing = worker.submit(change, exp, weight)
        while probe() != ("canary" if weight else "stable"):
            pass
        took = time.perf_counter() - start
        writing.result()
    return took


def measure(exp):
    """Seconds of each way, per change; and of one round trip."""
    router = exp.cluster.router
    probe = Probe(router.url, "/v2/health/ready", host=router.hostname)
    ways = {"raw patch": raw, "shift()": lambda exp, weight: exp.shift(weight)}
    took, trips, rng = {name: [] for name in ways}, [], np.random.default_rng(0)
    for number in range(ROUNDS):
        for name in ways if number % 2 else reversed(ways):
            for weight in (100, 0):
                time.sleep(float(rng.uniform(0.1, 0.3)))  # the gateway gathers changes: at no fixed moment of that
                start = time.perf_counter()
                probe()
                trips.append(time.perf_counter() - start)
                took[name].append(until_in_force(ways[name], exp, weight, probe))
    probe.close()
    return took, statistics.median(trips)


def main():
    """Print both, and their ratio."""
    cluster = ck.connect(sys.argv[1] if len(sys.argv) > 1 else f"kube:/{NAMESPACE}?hostname=bench.test")
    versions = ck.Version("v1", model=digits.model("stable")), ck.Version("v2", model=digits.model("good"))
    with ck.Experiment(ck.Service("digits", *versions, replicas=1), cluster, tell=lambda line: None) as exp:
        exp.deploy()
        took, trip = measure(exp)
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
