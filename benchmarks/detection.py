"""How many requests until a bad canary is found, and how often a good one is blamed: this kit and its peers.

    python benchmarks/detection.py            the table of docs/measured.md and its picture, in build/detection
    python benchmarks/detection.py --quick    fewer runs, a few minutes

One rollout is 100,000 requests, each to the canary with the configured probability, in windows of 100; peers look every
1,000. All are asked "is the canary worse?" at a false-alarm rate of 5 %. Ratios are against the information bound: no
method that keeps that rate can need fewer requests in expectation. Seeds are fixed.
"""

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import norm

from canarykit.analysis.bets import latency_bets, log_wealth_of_cells
from canarykit.analysis.evidence import LabelEvidence, threshold
from canarykit.analysis.monitor import Monitor
from canarykit.analysis.power import bound
from canarykit.model import Guardrail, Metric, TrafficSplit, Window
from canarykit.teaching.peers import ALPHA, INTERVAL, PEERS, Served

REQUESTS, WINDOW = 100_000, 100
WINDOWS = REQUESTS // WINDOW
EDGES = (*(1e-3 * 2 ** (i / 8) for i in range(1, 108)), float("inf"))
MEDIAN, SIGMA = 0.1, 0.6
AIMS = {"errors": 1.25, "accuracy": 1.25, "latency": 1.8}


@dataclass(frozen=True)
class Case:
    """What is wrong with the canary."""

    name: str
    kind: str
    stable: float = 0.0
    canary: float = 0.0
    slower: float = 1.0
    tail: float = 1.0
    """Of durations above stable's `TAIL` quantile, the excess is stretched by this, in log units."""


TAIL = 0.95
STRETCH = 1 + np.log(2) / (SIGMA * (norm.ppf(0.99) - norm.ppf(TAIL)))
"""Doubles the 99th percentile and leaves everything below the 95th as it is."""
CASES = (
    Case("errors 1 → 1.5 %", "errors", 0.01, 0.015),
    Case("errors 1 → 2 %", "errors", 0.01, 0.02),
    Case("errors 0.1 → 0.5 %", "errors", 0.001, 0.005),
    Case("accuracy 96 → 93 %", "accuracy", 0.04, 0.07),
    Case("latency p50 +10 %", "latency", slower=1.1),
    Case("latency p99 ×2", "latency", tail=STRETCH),
)


def ramp(fraction):
    """Weight at each window: 5, 20, 50 %, a tenth, a fifth and the rest of the rollout."""
    return np.select([fraction < 0.1, fraction < 0.3], [0.05, 0.2], 0.5)


FRACTION = (np.arange(WINDOWS) + 0.5) / WINDOWS
WAVE = np.sin(2 * np.pi * 2 * FRACTION)
SETTINGS = {
    "5 %": (np.full(WINDOWS, 0.05), 0 * WAVE),
    "20 %": (np.full(WINDOWS, 0.2), 0 * WAVE),
    "50 %": (np.full(WINDOWS, 0.5), 0 * WAVE),
    "20 %, drifting": (np.full(WINDOWS, 0.2), 0.5 * WAVE),
    "5 → 20 → 50 %, drifting": (ramp(FRACTION), 0.5 * WAVE),
}


def tail_point():
    """Stable's quantile above which only the tail is slow, at no drift."""
    return MEDIAN * np.exp(SIGMA * norm.ppf(TAIL))


def point_of(duration, case):
    """Where a duration of the canary comes from, at no drift."""
    point, x = tail_point(), duration / case.slower
    return x if x <= point else point * (x / point) ** (1 / case.tail)


def latency_law(case, version, drift=0.0):
    """Shares of the buckets of one version, with stable's median moved by exp(drift / 2)."""
    median = MEDIAN * np.exp(0.5 * drift)

    def cdf(x, slower, tail):
        x = np.asarray(x, dtype=float) / slower
        point = tail_point() * median / MEDIAN
        base = norm.cdf(np.log(np.maximum(x, 1e-300) / median) / SIGMA)
        if tail == 1:
            return base
        stretched = norm.cdf((np.log(point / median) + np.log(np.maximum(x / point, 1.0)) / tail) / SIGMA)
        return np.where(x <= point, base, stretched)

    slower, tail = (case.slower, case.tail) if version else (1.0, 1.0)
    finite = np.append(cdf(EDGES[:-1], slower, tail), 1.0)
    return np.diff(np.concatenate([[0.0], finite]))


def law(case, version, drift=0.0):
    """Probability of each outcome cell."""
    if case.kind == "latency":
        return latency_law(case, version, drift)
    bad = (case.canary if version else case.stable) * (1 + drift)
    return np.array([1 - bad, bad])


@cache
def needed(case, setting):
    """Requests at which the information gathered reaches log(1/α): the bound, with weight and baseline as they move."""
    shares, drifts = SETTINGS[setting]
    keys = list(zip(shares.tolist(), np.round(drifts, 2).tolist(), strict=True))
    per_request = {key: 1 / bound(law(case, 0, key[1]), law(case, 1, key[1]), key[0], alpha=ALPHA) for key in set(keys)}
    gained = np.cumsum([WINDOW * per_request[key] for key in keys])
    last = int(np.searchsorted(gained, 1.0))
    if last >= WINDOWS:
        return REQUESTS / gained[-1]
    before = gained[last - 1] if last else 0.0
    return WINDOW * (last + (1 - before) / (gained[last] - before))


@dataclass
class Run:
    """One rollout: tables per window, and what peers read."""

    tables: np.ndarray
    shares: np.ndarray
    served: Served
    drifts: np.ndarray = field(repr=False, default=None)


def simulate(case, setting, bad, seed):
    """Serve one rollout; the canary is bad, or another stable."""
    rng = np.random.default_rng(seed)
    shares, drifts = SETTINGS[setting]
    canary = rng.binomial(WINDOW, shares)
    n = np.stack([WINDOW - canary, canary], axis=1)
    if case.kind != "latency":
        rate = np.stack([case.stable * (1 + drifts), (case.canary if bad else case.stable) * (1 + drifts)], axis=1)
        events = rng.binomial(n, rate)
        tables = np.stack([n - events, events], axis=2)
        spans = np.arange(0, WINDOWS, INTERVAL)
        with np.errstate(invalid="ignore"):
            values = np.add.reduceat(events, spans) / np.add.reduceat(n, spans)
        served = Served(n, events, values, (case.stable + case.canary) / 2, case.canary - case.stable)
        return Run(tables, shares, served, drifts)
    label = np.arange(WINDOW)[None, :] < canary[:, None]
    x = MEDIAN * np.exp(0.5 * drifts)[:, None] * np.exp(SIGMA * rng.standard_normal((WINDOWS, WINDOW)))
    if bad:
        point = tail_point() * np.exp(0.5 * drifts)[:, None]
        x = np.where(label, case.slower * np.where(x > point, point * (x / point) ** case.tail, x), x)
    cells = np.searchsorted(EDGES, x)
    flat = (np.arange(WINDOWS)[:, None] * 2 + label) * len(EDGES) + cells
    tables = np.bincount(flat.ravel(), minlength=WINDOWS * 2 * len(EDGES)).reshape(WINDOWS, 2, len(EDGES))
    quantile = 0.99 if case.tail > 1 else 0.5
    usual = MEDIAN * np.exp(SIGMA * norm.ppf(quantile))
    slow = usual * (2.0 if case.tail > 1 else case.slower)
    above = x > usual
    events = np.stack([(above & ~label).sum(axis=1), (above & label).sum(axis=1)], axis=1)
    values = np.full((WINDOWS // INTERVAL, 2), np.nan)
    for i, (xs, labels) in enumerate(zip(x.reshape(-1, INTERVAL * WINDOW), label.reshape(-1, INTERVAL * WINDOW), strict=True)):
        values[i] = np.quantile(xs[~labels], quantile), np.quantile(xs[labels], quantile) if labels.any() else np.nan
    origin = point_of(usual, case)
    beyond = 1 - norm.cdf(np.log(origin / MEDIAN) / SIGMA)
    return Run(tables, shares, Served(n, events, values, (usual + slow) / 2, beyond - (1 - quantile)), drifts)


def guardrail(case, *, stated=False):
    """The kit's own guardrail for that kind."""
    if case.kind == "latency":
        metric = Metric("latency", "t", "quantile", EDGES, quantile=0.99 if case.tail > 1 else 0.5)
        return Guardrail(metric, tolerate=1.0, mde=case.slower if stated and case.slower > 1 else None)
    metric = Metric(case.kind, "t", "rate", ("ok", "bad"), shown="good" if case.kind == "accuracy" else "bad")
    return Guardrail(metric, mde=case.canary / case.stable if stated else None)


def trajectory(case, run, *, stated=False, stop=None):
    """Log E of the kit after each window, until it passes `stop`."""
    if case.kind == "latency":
        return _latency_trajectory(case, run, stated, stop)
    monitor = Monitor(guardrail(case, stated=stated), 1 / ALPHA)
    found = np.full(WINDOWS, -np.inf)
    for i, table in enumerate(run.tables):
        monitor.update(Window(i, i + 1, TrafficSplit(100 * run.shares[i]), {"t": table}), table)
        found[i] = monitor.log_e
        if stop is not None and found[i] >= stop:
            break
    return found


def _latency_trajectory(case, run, stated, stop):
    # The evidence of `tolerate=1` alone: a Monitor would also follow a quantile, which nobody asks about here.
    def bets(past, _):
        if case.tail == 1:
            return latency_bets(past, EDGES, case.slower if stated else None)
        ratios, prior = latency_bets(past, EDGES)
        if not stated:
            return ratios, prior
        true = np.log(np.maximum(latency_law(case, 1), 1e-12) / np.maximum(latency_law(case, 0), 1e-12))
        true = np.maximum.accumulate(np.clip(true, -7, 7))
        return np.vstack([ratios, true]), np.append(prior, 0.0) + np.log(0.5)

    evidence = LabelEvidence(len(EDGES), bets)
    found, pending = np.full(WINDOWS, -np.inf), np.zeros(run.tables[0].shape)
    weight = run.shares[0]
    for i, table in enumerate(run.tables):
        if run.shares[i] != weight:
            weight, pending = run.shares[i], np.zeros_like(pending)
        pending = pending + table
        stable, canary = pending.sum(axis=1)
        if canary >= 3:  # as a Monitor merges
            evidence.update(pending, canary / (stable + canary))
            pending = np.zeros_like(pending)
        found[i] = evidence.log_e
        if stop is not None and found[i] >= stop:
            break
    return found


def oracle(case, run):
    """One bet on the truth, at the configured weight: what a clairvoyant would do."""
    total = 0.0
    for i, table in enumerate(run.tables):
        true = np.log(np.maximum(law(case, 1, run.drifts[i]), 1e-12) / np.maximum(law(case, 0, run.drifts[i]), 1e-12))
        total += log_wealth_of_cells(table, run.shares[i], np.clip(true, -7, 7)[None, :])[0]
        if total >= np.log(1 / ALPHA):
            return float((i + 1) * WINDOW)
    return np.inf


def crossing(found, line):
    """Requests at which log E reaches a line."""
    hits = np.flatnonzero(found >= line)
    return float((hits[0] + 1) * WINDOW) if len(hits) else np.inf


KIT = "this kit"
STATED = "this kit, effect stated"
CALIBRATED = "this kit, horizon declared"
METHODS = (KIT, STATED, CALIBRATED, "oracle", *PEERS)


def one(job):
    """Requests to the alarm of every method on one rollout; `line` is the declared horizon's threshold, natural log."""
    case, setting, bad, number, line, methods = job
    place = [CASES.index(case), list(SETTINGS).index(setting), int(bad), number]
    run = simulate(case, setting, bad, np.random.SeedSequence(place))
    alarm = np.log(1 / ALPHA)
    found = {}
    if KIT in methods:
        plain = trajectory(case, run, stop=alarm)
        found[KIT] = crossing(plain, alarm)
        if line is not None:
            found[CALIBRATED] = crossing(plain, line)
    if STATED in methods:
        found[STATED] = crossing(trajectory(case, run, stated=True, stop=alarm), alarm)
    if "oracle" in methods:
        found["oracle"] = oracle(case, run)
    found |= {name: peer(run.served) for name, peer in PEERS.items() if name in methods}
    return found


def highest(job):
    """Largest log E of the kit in a rollout of equal versions, for the threshold of a declared horizon."""
    case, setting, number = job
    place = [CASES.index(case), list(SETTINGS).index(setting), 2, number]
    return float(trajectory(case, simulate(case, setting, False, np.random.SeedSequence(place))).max())


def horizon(case, setting, pool, runs):
    """Threshold (natural log) for a rollout of 100,000 requests: the labels of events are pivotal."""
    shares, _ = SETTINGS[setting]
    if case.kind == "errors" and len(set(shares)) == 1:
        return float(np.log(threshold(round(REQUESTS * case.stable), float(shares[0]), alpha=ALPHA)))
    tops = pool.map(highest, [(case, setting, number) for number in range(runs)], chunksize=4)
    # The upper end of what the quantile may be: the threshold is an estimate, and must not break the promise.
    rank = 1 - ALPHA + 1.645 * np.sqrt(ALPHA * (1 - ALPHA) / runs)
    return min(float(np.quantile(tops, rank, method="higher")), float(np.log(1 / ALPHA)))


def measure(pool, cases, settings, bad_runs, good_runs, methods=METHODS):
    """Median requests, ratio and false alarms of each method, per case and setting."""
    for case, setting in itertools.product(cases, settings):
        line = horizon(case, setting, pool, good_runs) if CALIBRATED in methods else None
        arms = []
        for bad, runs in ((True, bad_runs), (False, good_runs)):
            jobs = [(case, setting, bad, number, line, methods) for number in range(runs)]
            arms.append(pool.map(one, jobs, chunksize=4))
        least = needed(case, setting)
        for name in [name for name in METHODS if name in arms[0][0]]:
            median = float(np.median([found[name] for found in arms[0]]))
            false = float(np.mean([np.isfinite(found[name]) for found in arms[1]]))
            yield {
                "case": case, "setting": setting, "method": name, "median": median,
                "ratio": median / least, "false": false, "bound": least,
            }  # fmt: skip


def table(rows, settings):
    """Markdown: one row per case and method, per setting the median, its ratio and the false alarms."""
    lines = ["| canary | method | " + " | ".join(settings) + " |", "|---|---|" + "---|" * len(settings)]
    cells = {(row["case"].name, row["method"], row["setting"]): row for row in rows}
    for case, method in itertools.product(dict.fromkeys(row["case"].name for row in rows), METHODS):
        found = [cells.get((case, method, setting)) for setting in settings]
        if any(found):
            lines.append(f"| {case} | {method} | " + " | ".join(_cell(row) for row in found) + " |")
    return "\n".join(lines)


def _cell(row):
    if row is None:
        return "–"
    ratio = f"{row['median']:,.0f} ({row['ratio']:.2f}×)" if np.isfinite(row["median"]) else "not in most"
    return f"{ratio}, {100 * row['false']:.1f} %"


def summary(rows):
    """Markdown: per method, the worst ratio and false-alarm rate over all cases and settings."""
    lines = ["| method | errors, accuracy: ratio | latency: ratio | false alarms |", "|---|---|---|---|"]
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        if not mine:
            continue
        spans = []
        for latency in (False, True):
            ratios = [row["ratio"] for row in mine if (row["case"].kind == "latency") == latency]
            spans.append(_span(ratios))
        false = [100 * row["false"] for row in mine]
        lines.append(f"| {method} | {spans[0]} | {spans[1]} | {min(false):.1f} to {max(false):.1f} % |")
    return "\n".join(lines)


def _span(ratios):
    if not ratios:
        return "–"
    high = f"{max(ratios):.2f}" if np.isfinite(max(ratios)) else "never"
    low = f"{min(ratios):.2f}" if np.isfinite(min(ratios)) else "never"
    return f"{low} to {high}" if low != high else low


def picture(rows, path):
    """Ratio to the bound against false alarms, one mark per case and setting."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.2), layout="constrained")
    marks = itertools.cycle("os^Dvp*Xh<>P")
    colours = iter(["#0072B2", "#D55E00", "#009E73", "#000000", *plt.get_cmap("tab20b").colors[::3], *["0.5"] * 5])
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        ours = method.startswith(KIT) or method == "oracle"
        ratios = [min(row["ratio"], 30) for row in mine]
        axes.scatter(
            ratios, [100 * row["false"] for row in mine], s=46 if ours else 30, marker=next(marks),
            color=next(colours), alpha=0.95 if ours else 0.65, label=method, zorder=3 if ours else 2,
        )  # fmt: skip
    axes.axhline(100 * ALPHA, color="0.4", linewidth=1, linestyle="--")
    axes.text(29, 100 * ALPHA * 1.1, "asked for: 5 %", ha="right", fontsize=9, color="0.3")
    axes.set(
        xscale="log", xlabel="median requests to find a bad canary, × the information bound (30: never)",
        ylabel="good canaries blamed, %",
    )  # fmt: skip
    axes.set_yscale("symlog", linthresh=5)
    axes.set_ylim(-0.6, 130)
    axes.set_xticks([0.3, 0.5, 1, 2, 5, 10, 30], ["0.3", "0.5", "1", "2", "5", "10", "30"])
    axes.set_yticks([0, 2, 5, 10, 30, 100], ["0", "2", "5", "10", "30", "100"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8.5, ncols=1, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.set_title("Each mark is one kind of bad canary at one weight or ramp: lower left is better", fontsize=10.5, loc="left")
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs: a few minutes")
    parser.add_argument("--bad", type=int, help="rollouts of each bad canary")
    parser.add_argument("--good", type=int, help="rollouts of equal versions")
    parser.add_argument("--out", type=Path, default=Path("build/detection"))
    options = parser.parse_args()
    bad, good = options.bad or (40 if options.quick else 200), options.good or (60 if options.quick else 400)
    began = time.monotonic()
    rows = []
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for row in measure(pool, CASES, SETTINGS, bad, good):
            rows.append(row)
            if row["method"] == KIT:
                print(f"{row['case'].name}, {row['setting']}: {_cell(row)}", file=sys.stderr, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    text = (
        "# Requests to detect, and false alarms\n\nMade by `python benchmarks/detection.py`.\n\n"
        f"Rollouts: {bad} of each bad canary, {good} of equal versions, 100,000 requests each. A cell is the median of "
        f"requests until the alarm, its ratio to the information bound, and the share of good canaries that were blamed.\n\n"
        f"{summary(rows)}\n\n{table(rows, SETTINGS)}\n"
    )
    (options.out / "detection.md").write_text(text)
    picture(rows, options.out / "detection.png")
    print(text)
    print(f"{time.monotonic() - began:.0f} s; table and picture in {options.out}")
    missed = [row for row in rows if row["method"] == KIT and (row["ratio"] > AIMS[row["case"].kind] or row["false"] > 0.05)]
    for row in missed:
        print(f"misses the aim: {row['case'].name}, {row['setting']}: {_cell(row)}")


if __name__ == "__main__":
    main()
