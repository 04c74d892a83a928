"""How long a change of weight takes until it is in force, and what the gateway costs.

    python benchmarks/shift.py

First 200 changes of weight under 200 requests a second: time until in force, and lost requests. Then the throughput
of one model server with 16 connections that send as fast as they can, straight and through the gateway, by turns.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time

import aiohttp
import numpy as np

import canarykit as ck
from canarykit.clusters.local.cluster import LocalCluster
from canarykit.routers.base import apply
from canarykit.serving import digits

CHANGES, CONNECTIONS, SECONDS, ROUNDS = 200, 16, 3.0, 3
PATH = "/v2/models/digits/infer"


def changes(cluster):
    """Print how long changes of weight took; return what was lost."""
    load = ck.Load(cluster.url, rate=200, path=PATH).start()
    took, before = [], cluster.router.observed()
    for weight in np.random.default_rng(0).uniform(0, 100, CHANGES):
        split = ck.TrafficSplit(round(float(weight), 3))
        took.append(1000 * apply(cluster.router, split, expected=before))
        before = split
        time.sleep(0.02)
    cluster.router.reset()
    summary = load.stop()
    quantiles = np.quantile(took, [0.5, 0.95, 1.0])
    print("| changes of weight | median | 95 % within | slowest | requests meanwhile | lost |\n|---|---|---|---|---|---|")
    print(f"| {CHANGES} | {' | '.join(f'{q:.1f} ms' for q in quantiles)} | {summary.sent:,} | {summary.lost_total} |\n")
    return summary.lost_total


async def throughput(url):
    """Answers per second that a closed loop gets."""
    image = digits.held_out()[0][0].tolist()
    body = json.dumps({"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP64", "data": image}]}).encode()
    end, count = time.perf_counter() + SECONDS, 0

    async def ask(session):
        nonlocal count
        while time.perf_counter() < end:
            async with session.post(url + PATH, data=body) as response:
                await response.read()
                assert response.status == 200
                count += 1

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask(session) for _ in range(CONNECTIONS)))
    return count / SECONDS


def main():
    model = digits.model("good")
    cluster = LocalCluster()
    try:
        cluster.deploy(ck.Service("digits", ck.Version("v1", model=model), ck.Version("v2", model=model), replicas=1))
        lost = changes(cluster)
        straight = f"http://127.0.0.1:{cluster.replicas('stable')[0].port}"
        rates = {name: [] for name in ("straight to the server", "through the gateway")}
        for _ in range(ROUNDS):
            for name, url in zip(rates, (straight, cluster.url), strict=True):
                rates[name].append(asyncio.run(throughput(url)))
    finally:
        cluster.teardown()
    base = statistics.median(rates["straight to the server"])
    print("| one model server | requests/s, median of rounds | ratio |\n|---|---|---|")
    for name, measured in rates.items():
        print(f"| {name} | {statistics.median(measured):,.0f} | {statistics.median(measured) / base:.2f} |")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
