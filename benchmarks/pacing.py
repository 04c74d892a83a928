"""How fast a good version gets through, and how many users a bad one hurts: fixed steps, harm budgets, and two peers.

    python benchmarks/pacing.py            400 rollouts a cell
    python benchmarks/pacing.py --quick    60 rollouts a cell, a minute or two

200 requests a second, windows of a second, drawn from the laws of the table. Fixed steps and budgets are decided by
`canarykit.rollout` itself, with its own Judge; Argo Rollouts and Flagger by their published default plans, whose analysis
asks for a success rate of 95 and 99 %. "Hurt" are the canary's bad requests beyond stable's share. The bound holds when
the harm that was done, in expectation, stays below what `Harm.most` and the budget said at the end.
"""

import argparse
import multiprocessing
import os
import sys
from dataclasses import dataclass

import numpy as np

from canarykit import metrics
from canarykit.forecast import simulate
from canarykit.metrics import LATENCY_EDGES, latency_cells
from canarykit.plan import RolloutPlan

RATE, LONGEST = 200, 1800
GUARDRAILS = (metrics.error_rate(), metrics.latency(), metrics.refused(), metrics.denied())


@dataclass(frozen=True)
class Canary:
    """Shares of failed requests of both versions, the factor of the canary's durations, and how the base moves."""

    name: str
    stable: float = 0.001
    canary: float = 0.001
    slower: float = 1.0
    drift: float = 0.0
    burst: float = 0.0

    @property
    def good(self):
        """Whether it is no worse."""
        return self.canary == self.stable and self.slower == 1.0


CANARIES = (
    Canary("equal"),
    Canary("fails 1 %", canary=0.01),
    Canary("fails 5 %", canary=0.05),
    Canary("fails 20 %", canary=0.2),
    Canary("fails 100 %", canary=1.0),
    Canary("p95 × 1.5", slower=1.5),
    Canary("both fail 1 %", 0.01, 0.01),
    Canary("both fail 1 %, drifting", 0.01, 0.01, drift=1.0),
    Canary("both fail 1 %, in bursts", 0.01, 0.01, burst=5.0),
)
PLANS = {
    "fixed 5, 25, 50 %": RolloutPlan.of(5, 25, 50, hold=60),
    "harm 2": RolloutPlan.paced(harm=2),
    "harm 4": RolloutPlan.paced(harm=4),
    "harm 8": RolloutPlan.paced(harm=8),
}


def drawn(canary, rng, second, share):
    """Counts of one second, and the expected harm of it."""
    tide = np.exp(canary.drift * np.sin(2 * np.pi * second / 120))
    if canary.burst and rng.random() < 1 / 20:
        tide *= canary.burst
    rates = np.minimum(np.array([canary.stable, canary.canary]) * tide, 1.0)
    total = rng.poisson(RATE)
    hers = rng.binomial(total, share)
    requests = np.array([total - hers, hers])
    bad = rng.binomial(requests, rates)
    latency = np.zeros((2, len(LATENCY_EDGES)), dtype=np.int64)
    for row, factor in enumerate((1.0, canary.slower)):
        latency[row] = latency_cells(factor * rng.lognormal(-3.5, 0.4, int(requests[row] - bad[row])))
    none = np.stack([requests, np.zeros(2, dtype=np.int64)], axis=1)
    outcome = np.stack([requests - bad, bad], axis=1)
    return {"outcome": outcome, "latency": latency, "refused": none, "denied": none}, bad[1], hers * (rates[1] - rates[0])


def one(job):
    """Carry out one rollout: outcome, seconds, failed requests of the canary, expected harm, and the bound of it."""
    canary, plan, seed, delay = job
    rng, done = np.random.default_rng(seed), np.zeros(2)

    def draw(start, share):
        counts, *hurt = drawn(canary, rng, start, share)
        done[:] += hurt
        return counts

    outcome, seconds, state = simulate(plan, GUARDRAILS, draw, delay=delay, longest=LONGEST)
    return outcome, seconds, *done, state.harm.most + (plan.pace.harm if plan.pace else 0)


PEERS = {
    # A basic canary of 20 % more each minute with an analysis of the success rate, one failed measurement at most.
    "Argo Rollouts": ((20, 40, 60, 80), 0.95, 1),
    # Its documentation's canary: 5 % more each minute up to 50 %, a success rate of 99 %, five failed checks end it.
    "Flagger": (tuple(range(5, 51, 5)), 0.99, 5),
}
"""Weights, a check of each for a minute, the least success rate, and how many failed checks end the rollout."""


def peer(job):
    """Carry out the default plan of a peer."""
    canary, name, seed = job
    rng, (weights, least, limit) = np.random.default_rng(seed), PEERS[name]
    failures, failed, harm, second, step = 0, 0, 0.0, 0, 0
    while step < len(weights):
        total = np.zeros(2)
        for _ in range(60):
            counts, bad, hurt = drawn(canary, rng, second, weights[step] / 100)
            total += counts["outcome"][1]
            failed, harm, second = failed + bad, harm + hurt, second + 1
        if total[0] >= least * total.sum():
            step += 1
            continue
        failures += 1
        if failures == limit:
            return "rolled back", float(second), failed, harm, np.nan
    return "promoted", float(second), failed, harm, np.nan


def main():
    """Print the table; exit with 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    runs, missed = 60 if options.quick else 400, []
    print(f"{runs} rollouts a cell, {RATE} requests/s\n")
    print("| canary | plan | promoted | rolled back | else | median time | hurt: median, 90 % | within the bound |")
    print("|---|---|---|---|---|---|---|---|")
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for number, canary in enumerate(CANARIES):
            cells = [(name, one, [(canary, plan, [number, run], 0.0) for run in range(runs)]) for name, plan in PLANS.items()]
            cells += [("harm 4, counted 2 s late", one, [(canary, PLANS["harm 4"], [number, run], 2.0) for run in range(runs)])]
            cells += [
                (name, peer, [(canary, name, [number, run]) for run in range(runs)]) for name in ("Argo Rollouts", "Flagger")
            ]
            for name, carry_out, jobs in cells:
                found = pool.map(carry_out, jobs, chunksize=4)
                missed += row(canary, name, found)
    if missed:
        print("\nmissed: " + "; ".join(missed))
    sys.exit(bool(missed))


def row(canary, name, found):
    """Print one row; return the limits that it misses."""
    outcomes, times, failed, harm, most = map(np.array, zip(*found, strict=True))
    promoted, back = np.mean(outcomes == "promoted"), np.mean(outcomes == "rolled back")
    hurt = np.median(failed), np.quantile(failed, 0.9)
    holds = np.mean(harm <= most + 1e-9) if np.isfinite(most).all() else np.nan
    print(
        f"| {canary.name} | {name} | {100 * promoted:.1f} % | {100 * back:.1f} % | {100 * (1 - promoted - back):.1f} % "
        f"| {np.median(times):.0f} s | {hurt[0]:.0f}, {hurt[1]:.0f} | {'–' if np.isnan(holds) else f'{100 * holds:.1f} %'} |",
        flush=True,
    )
    missed = []
    if name != "harm 4":
        return missed
    noise = 3 * np.sqrt(0.05 * 0.95 / len(found))
    limits = {"fails 1 %": 8, "fails 5 %": 6, "fails 20 %": 6, "fails 100 %": 6}
    if canary.name == "equal" and np.median(times) > 30:
        missed.append(f"an equal canary takes {np.median(times):.0f} s, not 30")
    if canary.name in limits and hurt[0] > limits[canary.name]:
        missed.append(f"a canary that {canary.name} hurts {hurt[0]:.0f}, not {limits[canary.name]}")
    if canary.good and back > 0.05 + noise:
        missed.append(f"{canary.name}: {100 * back:.1f} % are blamed")
    if holds < 0.95 - noise:
        missed.append(f"{canary.name}: the bound holds in {100 * holds:.1f} %")
    return missed


if __name__ == "__main__":
    main()
