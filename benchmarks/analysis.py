"""What one update of the evidence costs, and what a week of windows takes.

    python benchmarks/analysis.py

Times are medians, beside one numpy matrix product of the same size in the same run: bets × cells for a metric of many
cells, and evaluation points × 2 for a rate.
"""

import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from canarykit.analysis import Judge
from canarykit.analysis.bets import latency_bets
from canarykit.analysis.evidence import LabelEvidence, QuantileEvidence, RateEvidence
from canarykit.metrics import error_rate
from canarykit.model import TrafficSplit, Window

LIMITS = {"rate": 50.0, "latency": 500.0}
"""Microseconds for one update: of a rate, and of a latency metric with 100 buckets."""

WEEK = 7 * 24 * 3600 // 10
"""Windows of ten seconds."""

HOURS = 6 * 3600 // 10


def microseconds(call, repeats=2000):
    """Median time of a call."""
    took = np.empty(repeats)
    for i in range(repeats):
        began = time.perf_counter()
        call()
        took[i] = time.perf_counter() - began
    return 1e6 * float(np.median(took))


def rows():
    """Name, limit or none, cells, bets, and time of an update and of a matrix product."""
    rng = np.random.default_rng(0)
    rate = RateEvidence(1.0, 1.5)
    points = len(rate.state()["wealth"])
    yield "rate", "rate", 2, points, microseconds(lambda: rate.update(3, 12, 0.2)), product(points, 2)
    both = RateEvidence(1.0, 1.5, both_cells=True)
    both.update(100, 500, 0.2, (8000, 2000))
    yield "rate, both cells", "rate", 2, points, microseconds(lambda: both.update(3, 12, 0.2, (80, 20))), product(points, 2)
    for cells in (12, 25, 50, 100, 200):
        edges = tuple(1e-3 * 2 ** (i * 13.3 / cells) for i in range(cells))
        law = rng.dirichlet(np.full(cells, 5.0))
        counts = rng.multinomial([80, 20], law).astype(float)
        evidence = LabelEvidence(cells, lambda stable, canary, edges=edges: latency_bets(stable, edges))
        for _ in range(200):
            evidence.update(counts, 0.2)
        bets = len(evidence.state()["wealth"])
        limit = "latency" if cells == 100 else None
        update = microseconds(lambda evidence=evidence, counts=counts: evidence.update(counts, 0.2))
        yield f"latency, {cells} buckets", limit, cells, bets, update, product(bets, cells)
        if limit:
            quantile = QuantileEvidence(edges, 0.95, 1.2, 1.5)
            for _ in range(5):
                quantile.update(*counts)
            shape = np.shape(quantile.state()["wealth"])
            update = microseconds(lambda q=quantile, c=counts: q.update(*c))
            yield f"p95, {cells} buckets", limit, cells, int(np.prod(shape)), update, product(int(np.prod(shape)), 2)


def product(bets, cells):
    """One matrix product: bets × cells by cells × 2."""
    left, right = np.random.default_rng(1).random((bets, cells)), np.random.default_rng(2).random((cells, 2))
    return microseconds(lambda: left @ right)


def week():
    """Bytes that a judge of a rate holds after six hours and after a week of windows."""
    rng = np.random.default_rng(0)
    judge = Judge([error_rate()])
    tracemalloc.start()
    held = {}
    for at in range(WEEK):
        errors = rng.binomial([80, 20], 0.01)
        counts = np.array([[80 - errors[0], errors[0]], [20 - errors[1], errors[1]]])
        judge.update(Window(10.0 * at, 10.0 * (at + 1), TrafficSplit(20), {"outcome": counts}))
        if at + 1 in (HOURS, WEEK):
            held[at + 1] = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held


def million():
    """Seconds that `canarykit judge` takes for a file of a million rows: 250,000 windows of a rate."""
    rng = np.random.default_rng(0)
    windows = 250_000
    canary = rng.binomial(100, 0.2, windows)
    n = np.stack([100 - canary, canary], axis=1)
    bad = rng.binomial(n, 0.01)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.csv"
        with path.open("w") as file:
            file.write("window,version,cell,count\n")
            for at in range(windows):
                for row, version in enumerate(("stable", "canary")):
                    file.write(f"{at},{version},ok,{n[at, row] - bad[at, row]}\n{at},{version},error,{bad[at, row]}\n")
        began = time.monotonic()
        command = [sys.executable, "-m", "canarykit.cli", "judge", str(path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = time.monotonic() - began
    assert json.loads(done.stdout)["windows"] == windows
    return took


def main():
    missed = 0
    print("| update of | bets × cells | µs | limit, µs | × one matrix product |\n|---|---|---|---|---|")
    for name, limit, cells, bets, update, peer in rows():
        most = LIMITS[limit] if limit else None
        missed += most is not None and update > most
        print(f"| {name} | {bets} × {cells} | {update:.1f} | {most or '–'} | {update / peer:.1f} |", flush=True)
    held = week()
    grown = held[WEEK] - held[HOURS]
    print(f"\nmemory of a judge: {held[HOURS] / 1e3:.0f} kB after six hours of 10 s windows, {grown / 1e3:+.1f} kB by a week")
    took = million()
    print(f"canarykit judge, a million rows: {took:.0f} s")
    return 1 if took > 60 or missed or grown > 50_000 else 0


if __name__ == "__main__":
    sys.exit(main())
