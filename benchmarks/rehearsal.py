"""The same model twice, live on the local default: how often is it rolled back, and are the bad canaries still caught?

    python benchmarks/rehearsal.py                 20 rehearsals and each bad canary three times, about 15 minutes
    python benchmarks/rehearsal.py --runs 3        a shorter look

Two equal versions differ by their processes alone, so the ratios of their p95 show what slowdown has to be tolerated.
"""

from __future__ import annotations

import argparse
import math
import sys

import canarykit as ck
from canarykit.serving import digits

PLAN = ck.RolloutPlan.of(5, 25, 50, hold="8s", budget="60s")
GUARDRAILS = [ck.metrics.error_rate(), ck.metrics.latency(0.95), ck.metrics.accuracy()]


def rollout(canary, seed):
    """One whole rollout; return the experiment's ending, its judgement and what was lost."""
    stable = ck.Version("v1", model=MODELS["stable"])
    service = ck.Service("digits", stable=stable, canary=ck.Version("v2", model=MODELS[canary]))
    with ck.Experiment(service, guardrails=GUARDRAILS, plan=PLAN, notify=lambda line: None) as exp:
        exp.deploy()
        exp.send(120, seed=seed)
        exp.observe("3s")
        ending = exp.run()
        return ending, exp.judge(), sum(exp.history().lost.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="rehearsals")
    parser.add_argument("--bad", type=int, default=3, help="rollouts of each bad canary")
    options = parser.parse_args()
    print("| canary | run | outcome | requests | p95 canary / stable | lost | why |\n|---|---|---|---|---|---|---|")
    outcomes, ratios, lost_total = {}, [], 0
    for kind in ("stable", "slow", "failing", "wrong"):
        for run in range(options.runs if kind == "stable" else options.bad):
            ending, judgement, lost = rollout(kind, seed=run)
            outcomes.setdefault(kind, []).append(ending.outcome)
            comparison = judgement.verdicts[1].comparison
            ratio = comparison.levels[1] / comparison.levels[0]
            if kind == "stable" and not math.isnan(ratio):
                ratios.append(ratio)
            lost_total += lost
            why = judgement.alarm.guardrail if judgement.alarm else ""
            print(
                f"| {kind} | {run + 1} | {ending.outcome} | {sum(comparison.requests):,} | {ratio:.2f} | {lost} | {why} |",
                flush=True,
            )
    false = outcomes["stable"].count("rolled back")
    caught = sum(ending == "rolled back" for kind, endings in outcomes.items() if kind != "stable" for ending in endings)
    bad = sum(len(endings) for kind, endings in outcomes.items() if kind != "stable")
    print(f"\nfalse rollbacks: {false} of {options.runs}; p95 ratios of equal versions: {min(ratios):.2f} to {max(ratios):.2f}")
    print(f"bad canaries caught: {caught} of {bad}; requests lost: {lost_total}")
    return 0 if false <= max(1, options.runs // 20) and caught == bad and lost_total == 0 else 1


if __name__ == "__main__":
    MODELS = {kind: digits.model(kind) for kind in digits.KINDS}
    sys.exit(main())
