"""What a day costs to look at: 86,400 windows of a second, three guardrails.

    python benchmarks/long_rollout.py [--windows 86400]

A journal is written as an experiment writes it, and at the end a panel's view is drawn from what the experiment knows. Then a
process of its own reads the journal, and draws what a report draws. Its memory is the most that it ever had, of which the
libraries alone take "after imports". Limits: a report within 10 s and 300 MB, a panel within 0.5 s. For comparison the same
record is judged again under another margin.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import canarykit as ck
from canarykit import metrics
from canarykit.analysis import Judge
from canarykit.charts import compare
from canarykit.history import history_of
from canarykit.metrics import latency_cells
from canarykit.model import TrafficSplit, Window
from canarykit.session.journal_writer import JournalWriter

DAY = 86_400
LIMITS = {"report, s": 10.0, "panel, s": 0.5, "memory, MB": 300.0}

READER = """
import json, sys, time
import matplotlib
matplotlib.use("agg")
from canarykit.charts import compare, distribution, evidence, timeline
from canarykit.history import replay
from canarykit.journal import Journal
from canarykit import metrics

def memory():
    (most,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(most.split()[1]) / 1000

found = {"after imports, MB": memory()}
path, again = sys.argv[1:]
began = time.perf_counter()
history = replay(Journal.read(path))
read = time.perf_counter() - began
for draw in (compare, distribution, evidence, timeline):
    draw(history).png()
for table in (history.levels(), history.effects(), history.steps(), history.splits(), history.timeline(), history.method()):
    table.to_html()
found |= {"read, s": read, "report, s": time.perf_counter() - began, "memory, MB": memory()}
journal = Journal.read(path)
found["polls"], found["bins"] = len(history.polls), len(history.bins)
if again == "yes":
    began = time.perf_counter()
    replay(journal, guardrails=[metrics.error_rate(tolerate=1.2, margin=2.0), metrics.latency(), metrics.refused()])
    found |= {"judged again, s": time.perf_counter() - began, "judged again, MB": memory()}
print(json.dumps(found))
"""


def write(path, windows, rng):
    """Write a rollout of so many windows at three weights; return seconds for record and judgement, and for a panel's view."""
    guardrails = [metrics.error_rate(), metrics.latency(), metrics.refused()]
    journal, judge = ck.Journal(path), Judge(guardrails)
    writer, weights, spent = JournalWriter(journal), (5, 25, 50), 0.0
    journal.begin({"alpha": 0.05, "split": "realised", "dispersion": None, "versions": {}, "service": "day"}, guardrails)
    pool = {share: [draw(rng, share / 100) for _ in range(500)] for share in weights}
    for at in range(windows):
        weight = weights[3 * at // windows]
        if at == 0 or weight != weights[3 * (at - 1) // windows]:
            journal.add_weight(float(at), weight, 0.001, 0.0)
        counts, instances = pool[weight][rng.integers(500)]
        window = Window(float(at), at + 1.0, TrafficSplit(weight), counts, {"latency": instances})
        began = time.perf_counter()
        judge.update(window)
        writer.window(window, judge)
        spent += time.perf_counter() - began
    took = []
    for _ in range(5):
        began = time.perf_counter()
        compare(history_of(journal, judge, writer.digest.copy())).png()
        took.append(time.perf_counter() - began)
    journal.close()
    return spent, sorted(took)[2]


def draw(rng, share):
    """Counts of a second of 200 requests, and those of two replicas of each version."""
    canary = rng.binomial(200, share)
    requests = np.array([200 - canary, canary])
    bad, refused = rng.binomial(requests, 0.002), rng.binomial(requests, 0.01)
    latency = np.stack([latency_cells(rng.lognormal(-2.5, 0.35, n)) for n in requests])
    instances = {f"{role}-{k}": latency[row] // 2 for row, role in enumerate(("stable", "canary")) for k in (0, 1)}
    return {
        "outcome": np.stack([requests - bad, bad], axis=1),
        "refused": np.stack([requests - refused, refused], axis=1),
        "latency": latency,
    }, instances


def main():
    """Write, read, print, and say whether the limits were kept."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--windows", type=int, default=DAY)
    options.add_argument("--no-again", action="store_true", help="do not judge it again under another margin")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        spent, panel = write(path, asked.windows, np.random.default_rng(0))
        size = path.stat().st_size / 1e6
        command = [sys.executable, "-c", READER, str(path), "no" if asked.no_again else "yes"]
        found = {"panel, s": panel} | json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    print(f"{asked.windows:,} windows, three guardrails, {size:.0f} MB")
    print(f"judged and written as it ran: {1000 * spent / asked.windows:.2f} ms a window")
    missed = []
    for name, value in found.items():
        limit = LIMITS.get(name)
        kept = "" if limit is None else f"   limit {limit:g}: {'kept' if value <= limit else 'MISSED'}"
        missed += [name] if limit is not None and value > limit else []
        print(f"{name:20} {value:8.2f}{kept}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
