"""How long a change of weight takes on a cluster, beside a raw patch of the same route.

    python benchmarks/kube_shift.py [WHERE]

WHERE is as of `connect`, such as "kube:?hostname=bench.test"; the cluster that KUBECONFIG names by default. Both
versions run there; the canary's weight goes from 0 to 100 % and back, by turns with `Experiment.shift` and with one
patch of the route and nothing else. A raw patch is in force when an eager client sees the first answer of the other
version; `shift` counts until it returns, and has confirmed by then what the raw patch does not ask. The kit may add a
tenth and one round trip to the gateway.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np

import canarykit as ck
from canarykit.model import TrafficSplit
from canarykit.routers.objects import Probe
from canarykit.serving import digits

ROUNDS = 25
NAMESPACE = "canarykit-bench"


def raw(exp, probe, weight):
    """Seconds from the start of one patch until the other version answers."""
    router = exp.cluster.router
    start = time.perf_counter()
    body, how = router.change(router._read(), TrafficSplit(weight))
    exp.cluster.client.patch(router.kind, router.name, body, how=how)
    wanted = "canary" if weight else "stable"
    while probe() != wanted:
        pass
    return time.perf_counter() - start


def kit(exp, weight):
    """Seconds until `shift` returns."""
    start = time.perf_counter()
    exp.shift(weight)
    return time.perf_counter() - start


def measure(exp):
    """Seconds of each way, per change; and of one round trip."""
    router = exp.cluster.router
    probe = Probe(router.url, "/v2/health/ready", host=router.hostname)
    took = {"raw patch": [], "shift()": []}
    trips, rng = [], np.random.default_rng(0)
    for number in range(ROUNDS):
        for name in took if number % 2 else reversed(took):
            for weight in (100, 0):
                time.sleep(float(rng.uniform(0.1, 0.3)))  # the gateway gathers changes: at no fixed moment of that
                if name == "raw patch":
                    took[name].append(raw(exp, probe, weight))
                    exp._split = TrafficSplit(weight)  # it went behind the kit's back
                else:
                    took[name].append(kit(exp, weight))
        start = time.perf_counter()
        probe()
        trips.append(time.perf_counter() - start)
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
