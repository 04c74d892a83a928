"""How often the default guardrails together blame a canary that is the same version: chance, bursts, and a day's curve.

    python benchmarks/false_alarms.py            400 rollouts a cell, 15 minutes; exits with 1 when a cell is above its limit
    python benchmarks/false_alarms.py --quick    60 rollouts a cell, a few minutes

One rollout is 90 windows of ten seconds at 100 requests/s, 30 each at 5, 25 and 50 %. Both versions fail, refuse and deny
the same share of requests, and answer in the same time. The limit is the error budget of 5 % and three standard errors.
"""

import argparse
import math
import multiprocessing
import os
import sys
from dataclasses import dataclass

import numpy as np

from canarykit import metrics
from canarykit.analysis import Judge
from canarykit.metrics import latency_cells
from canarykit.model import TrafficSplit, Window

ALPHA, WINDOWS, REQUESTS = 0.05, 90, 1000
BASES = (0.001, 0.01, 0.1)


@dataclass(frozen=True)
class World:
    """How the share of bad requests behaves, beside its base rate.

    Parameters
    ----------
    name : str
        What people call it.
    phi : float
        How much more each version's counts vary from window to window than chance allows (beta-binomial).
    tide : float
        How far rates and durations of both versions rise and fall over the rollout.
    burst : float
        What requests and bad requests of both versions are multiplied by in a burst.
    lone : float
        What bad requests of one version alone are multiplied by in a burst of its own.
    replicas : int
        Of each version, each with a rate of its own; what stable's count is told to the estimate of φ when there are several.
    looks : int
        How often one looks within ten seconds; rates stay as they are for ten seconds.
    known_limit : bool
        Whether the limit is not claimed to hold.
    """

    name: str
    phi: float = 1.0
    tide: float = 0.0
    burst: float = 1.0
    lone: float = 1.0
    replicas: int = 1
    looks: int = 1
    known_limit: bool = False


WORLDS = (
    World("independent requests"),
    World("φ = 3", phi=3.0),
    World("φ = 3 in each of four replicas", phi=3.0, replicas=4),
    World("φ = 3, a look every second", phi=3.0, looks=10, known_limit=True),
    World("day curve ±80 %", tide=0.8),
    World("day curve and φ = 3", phi=3.0, tide=0.8),
    World("bursts of both versions", burst=3.0),
    World("bursts of one version", lone=3.0, known_limit=True),
)


def bursts(rng, chance=0.02, windows=3):
    """Windows that lie in a burst of half a minute."""
    begins = rng.random(WINDOWS) < chance
    return np.array([begins[max(0, at - windows + 1) : at + 1].any() for at in range(WINDOWS)])


def share_of(rng, requests, share, phi):
    """Share of bad requests of one version for ten seconds."""
    share = min(share, 0.95)
    if phi > 1 and requests > 1:
        within = min((phi - 1) / (requests - 1), 0.95)
        share = rng.beta(share * (1 / within - 1), (1 - share) * (1 / within - 1))
    return share


def windows_of(world, base, rng):
    """One rollout of the same version twice."""
    common = bursts(rng)
    alone = [bursts(rng), bursts(rng)]
    for at in range(WINDOWS):
        tide = 1 + world.tide * math.sin(2 * math.pi * at / WINDOWS)
        requests = REQUESTS * (world.burst if common[at] else 1)
        weight = (5, 25, 50)[3 * at // WINDOWS]
        expected = (requests * (1 - weight / 100), requests * weight / 100)
        levels = [base * tide * (world.burst if common[at] else 1) * (world.lone if alone[v][at] else 1) for v in (0, 1)]
        tables = ("outcome", "refused", "denied")
        shares = {
            name: [
                [share_of(rng, n / world.replicas, p, world.phi) for _ in range(world.replicas)]
                for n, p in zip(expected, levels, strict=True)
            ]
            for name in tables
        }
        for look in range(world.looks):
            total = int(rng.poisson(requests / world.looks))
            canary = int(rng.binomial(total, weight / 100))
            sizes = (total - canary, canary)
            counts = {"latency": np.array([latency_cells(0.05 * tide * np.exp(rng.normal(0, 0.5, n))) for n in sizes])}
            even = [1 / world.replicas] * world.replicas
            served = [rng.multinomial(size, even) for size in sizes]
            instances = {}
            for name in tables:
                bad = [rng.binomial(served[v], shares[name][v]) for v in (0, 1)]
                counts[name] = np.array([[sizes[v] - bad[v].sum(), bad[v].sum()] for v in (0, 1)])
                if name == "outcome" and world.replicas > 1:
                    cells = zip(served[0] - bad[0], bad[0], strict=True)
                    instances[name] = {f"stable-{number}": np.array(pair) for number, pair in enumerate(cells)}
            start = 10.0 * at + 10.0 * look / world.looks
            yield Window(start, start + 10.0 / world.looks, TrafficSplit(weight), counts, instances)


def blamed(job):
    """Whether a rollout ends with an alarm, and by which guardrail."""
    world, base, number = job
    rng = np.random.default_rng([number, WORLDS.index(world), BASES.index(base)])
    judge = Judge(metrics.default(), alpha=ALPHA)
    for window in windows_of(world, base, rng):
        judge.update(window)
        if not judge.calm:
            return judge.judgement.alarm.guardrail
    return None


def main():
    """Print the table, and compare it with the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="60 rollouts a cell")
    runs = 60 if parser.parse_args().quick else 400
    limit = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    above = []
    print(f"{runs} rollouts a cell; limit {100 * limit:.1f} %\n")
    print(f"| the same version twice | {' | '.join(f'{100 * base:g} % bad' for base in BASES)} |")
    print(f"|---|{'---|' * len(BASES)}")
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for world in WORLDS:
            row, count = [], runs if world.looks == 1 else runs // 4
            for base in BASES:
                found = [name for name in pool.map(blamed, [(world, base, n) for n in range(count)], chunksize=4) if name]
                row.append(len(found) / count)
                if row[-1] > limit and not world.known_limit:
                    above.append(f"{world.name} at {100 * base:g} %")
            note = f" ({count} rollouts; no limit claimed)" if world.known_limit else ""
            print(f"| {world.name}{note} | {' | '.join(f'{100 * share:.1f} %' for share in row)} |", flush=True)
    print(f"\nabove the limit: {', '.join(above)}" if above else "\nevery cell is within the limit")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
