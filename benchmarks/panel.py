"""What the panel costs: how soon a change shows, whether drawings queue, and what an hour of polling leaves behind.

    python benchmarks/panel.py

First, on the local default under 120 requests a second, Apply is clicked ten times: time until the new share stands in the
panel, counted in requests. Then ten looks in a row under a drawing that takes a second: how many drawings were under way
at once. Then 1,800 polls (an hour of them, one each 2 s) of a rollout on the simulated cluster, with a drawing each minute:
memory of the process.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

import canarykit as ck
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.serving import digits

APPLIES, POLLS, DRAW_EVERY, WARM_UP = 10, 1800, 30, 300
SECONDS, MEGABYTES = 1.0, 25.0
QUIET = {"notify": lambda line: None}


def applied():
    """Seconds from each click on Apply until the share that is served stands in the panel."""
    service = ck.Service("digits", *(ck.Version(name, model=digits.model("good")) for name in ("v1", "v2")), replicas=1)
    took = []
    with ck.Experiment(service, **QUIET) as exp:
        exp.deploy()
        exp.send(120)
        panel = ck.Panel(exp).start()
        time.sleep(6)  # the first drawing imports what draws
        for number in range(APPLIES):
            weight = 5.0 * (1 + number)
            panel.view.slider.value = weight
            start = time.perf_counter()
            panel.view.apply.click()
            shown = f">{weight:g} %</b>"
            while not (shown in panel.view.served.value and "% of" in panel.view.served.value):
                time.sleep(0.005)
            took.append(time.perf_counter() - start)
            while panel.state.message.endswith("…"):
                time.sleep(0.05)
    return took


def simulated(folder):
    """An experiment whose journal is a file, and its panel."""
    never = ["never", "{port}"]
    service = ck.Service("digits", ck.Version("v1", command=never), ck.Version("v2", command=never))
    exp = ck.Experiment(service, SimulatedCluster("same"), journal=Path(folder) / "journal.sqlite", **QUIET)
    exp.deploy()
    exp.send(50)
    exp.shift(25)
    return exp, ck.Panel(exp)


def drawings():
    """Frames drawn, frames dropped, and the most that were under way at once, under a drawing that takes a second."""
    with tempfile.TemporaryDirectory() as folder:
        exp, panel = simulated(folder)
        chart, busy, most, lock = exp.compare, 0, 0, threading.Lock()

        def slow():
            nonlocal busy, most
            with lock:
                busy += 1
                most = max(most, busy)
            time.sleep(1.0)
            try:
                return chart()
            finally:
                busy -= 1

        exp.compare = slow
        start = time.perf_counter()
        for _ in range(10):
            panel._tick()
        polled = time.perf_counter() - start
        while panel.frames < 1:
            time.sleep(0.05)
        exp.teardown()
    return panel.frames, panel.dropped, most, polled


def polled():
    """Megabytes of the process after a warm-up and after an hour of polls; seconds of one poll and one drawing at the end."""
    with tempfile.TemporaryDirectory() as folder:
        exp, panel = simulated(folder)
        held, process = {}, psutil.Process()
        panel._draw = lambda snapshot: None
        for number in range(1, POLLS + 1):
            start = time.perf_counter()
            panel._tick()
            tick = time.perf_counter() - start
            if number % DRAW_EVERY == 0:
                start = time.perf_counter()
                panel._paint_once()
                drawing = time.perf_counter() - start
            if number in (WARM_UP, POLLS):
                gc.collect()
                held[number] = process.memory_info().rss / 1e6
        exp.teardown()
    return held[WARM_UP], held[POLLS], tick, drawing


def main():
    took = applied()
    print("| from Apply to the served share shown | median | slowest | limit |\n|---|---|---|---|")
    print(f"| {APPLIES} times | {statistics.median(took):.2f} s | {max(took):.2f} s | {SECONDS:g} s |\n", flush=True)
    frames, dropped, most, seconds = drawings()
    print(
        "| under a drawing of a second | 10 polls took | frames drawn | dropped | at once | limit |\n|---|---|---|---|---|---|"
    )
    print(f"| | {seconds:.2f} s | {frames} | {dropped} | {most} | 1 at once |\n", flush=True)
    before, after, tick, drawing = polled()
    print(f"| memory of {POLLS:,} polls | after {WARM_UP} | at the end | grown | limit | last poll | last drawing |")
    print("|---|---|---|---|---|---|---|")
    grown = f"{after - before:+.1f} MB"
    print(f"| | {before:.0f} MB | {after:.0f} MB | {grown} | {MEGABYTES:g} MB | {1000 * tick:.0f} ms | {drawing:.1f} s |")
    return 1 if max(took) > SECONDS or most > 1 or after - before > MEGABYTES else 0


if __name__ == "__main__":
    sys.exit(main())
