"""Traffic made up in memory, to see what evidence does: for lessons, where thousands of rollouts must take seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import norm

from canarykit.analysis.evidence import RateEvidence
from canarykit.errors import PlanError
from canarykit.forecast import forecast
from canarykit.model import TrafficSplit, Window
from canarykit.plan import RolloutPlan
from canarykit.teaching.peers import INTERVAL, PEERS, Served

if TYPE_CHECKING:
    from canarykit.charts.chart import Chart

__all__ = ["looks", "made_up", "paces", "picture_of_looks", "picture_of_race", "race", "windows"]

WINDOW = 100
"""Requests per window."""

KIT = "this kit"


def made_up(stable: float, canary: float, *, weight: float = 20, requests: int = 20_000, seed: int = 1) -> Served:
    """Serve one made-up rollout in windows of 100 requests.

    Parameters
    ----------
    stable, canary : float
        Share of bad requests of each version, 0 to 1.
    weight : float
        Percent of the requests that the canary receives.
    requests : int
        Requests to both versions together.
    seed : int
        The same seed serves the same requests.

    Raises
    ------
    PlanError
        A share is not between 0 and 1, or the weight is not between 0 and 100.
    """
    if not (0 < stable < 1 and 0 < canary < 1 and 0 < weight < 100 and requests >= WINDOW * INTERVAL):
        raise PlanError(f"shares must lie between 0 and 1, the weight between 0 and 100, requests from {WINDOW * INTERVAL} on")
    rng = np.random.default_rng(seed)
    to_canary = rng.binomial(WINDOW, weight / 100, requests // WINDOW)
    n = np.stack([WINDOW - to_canary, to_canary], axis=1)
    events = rng.binomial(n, [stable, canary])
    spans = np.arange(0, len(n), INTERVAL)
    with np.errstate(invalid="ignore"):
        shown = np.add.reduceat(events, spans) / np.add.reduceat(n, spans)
    return Served(n, events, shown, (stable + canary) / 2, canary - stable)


def windows(stable: float, canary: float, *, count: int = 100, weight: float = 20, seed: int = 1) -> Iterator[Window]:
    """Yield a made-up rollout as a judge reads it, one second per window of 100 requests.

    Parameters
    ----------
    stable, canary, weight, seed
        See `made_up`.
    count : int
        How many windows.
    """
    served = made_up(stable, canary, weight=weight, requests=WINDOW * count, seed=seed)
    for at, (n, bad) in enumerate(zip(served.requests, served.events, strict=True)):
        yield Window(float(at), at + 1.0, TrafficSplit(weight), {"outcome": np.stack([n - bad, bad], axis=1)})


def _evidence(served: Served, mde: float | None = None) -> list[float]:
    """Log E of the kit after each window."""
    evidence, found = RateEvidence(1.0, 1.5, mde), []
    for (stable, canary), (bad_stable, bad_canary) in zip(served.requests, served.events, strict=True):
        evidence.update(bad_canary, bad_stable + bad_canary, canary / (stable + canary))
        found.append(evidence.log_e)
    return found


def looks(
    stable: float, canary: float, *, runs: int = 40, weight: float = 20, requests: int = 20_000, seed: int = 1
) -> pd.DataFrame:
    """Look at made-up rollouts after every window, with a p-value and with evidence.

    Parameters
    ----------
    stable, canary, weight, requests
        See `made_up`.
    runs : int
        How many rollouts.
    seed : int
        Seed of the first run; the others follow.

    Returns
    -------
    DataFrame
        One row per run and look: run, requests, p (one-sided z-test of everything so far), e.
    """
    tables = []
    for run in range(runs):
        served = made_up(stable, canary, weight=weight, requests=requests, seed=seed + run)
        n, bad = np.cumsum(served.requests, axis=0), np.cumsum(served.events, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share, overall = bad / n, bad.sum(axis=1) / n.sum(axis=1)
            z = (share[:, 1] - share[:, 0]) / np.sqrt(overall * (1 - overall) * (1 / n).sum(axis=1))
        e = np.exp(np.minimum(_evidence(served), 50.0))
        tables.append(pd.DataFrame({"run": run, "requests": n.sum(axis=1), "p": norm.sf(np.nan_to_num(z)), "e": e}))
    return pd.concat(tables, ignore_index=True)


def race(
    stable: float, canary: float, *, runs: int = 60, weight: float = 20, requests: int = 50_000, seed: int = 1
) -> pd.DataFrame:
    """Let every method watch the same made-up rollouts: bad canaries, and as many that are another stable.

    Parameters
    ----------
    stable, canary, runs, weight, requests, seed
        See `looks`. Methods with a threshold get the middle between both shares.

    Returns
    -------
    DataFrame
        Indexed by method: blamed (share of good canaries that alarmed), found (share of bad ones), median (requests
        until a bad one is found; infinite when most are not).
    """
    rows = {}
    alarms: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in (KIT, *PEERS)}
    for run in range(runs):
        for arm, share in enumerate((stable, canary)):
            served = made_up(stable, share, weight=weight, requests=requests, seed=seed + run + arm * 1_000_003)
            served = Served(served.requests, served.events, served.values, (stable + canary) / 2, canary - stable)
            crossed = np.flatnonzero(np.asarray(_evidence(served)) >= math.log(20))
            alarms[KIT][arm].append(float((crossed[0] + 1) * WINDOW) if len(crossed) else math.inf)
            for name, peer in PEERS.items():
                alarms[name][arm].append(peer(served))
    for name, (good, bad) in alarms.items():
        rows[name] = {"blamed": np.isfinite(good).mean(), "found": np.isfinite(bad).mean(), "median": np.median(bad)}
    return pd.DataFrame.from_dict(rows, orient="index")


def picture_of_looks(table: pd.DataFrame) -> Chart:
    """Draw p-values and evidence of the same rollouts, with the ones that crossed their line at any look.

    Parameters
    ----------
    table : DataFrame
        From `looks`.
    """
    from canarykit.teaching.charts import draw_looks

    return draw_looks(table)


def picture_of_race(table: pd.DataFrame) -> Chart:
    """Draw how often each method blames a good canary, and how many requests it takes to find a bad one.

    Parameters
    ----------
    table : DataFrame
        From `race`.
    """
    from canarykit.teaching.charts import draw_race

    return draw_race(table)


def paces(plans: Mapping[str, RolloutPlan], *, rate: float, base: float, runs: int = 11) -> pd.DataFrame:
    """Return how plans end for a good canary and for bad ones: a row for each plan and canary.

    Parameters
    ----------
    plans : mapping of str to RolloutPlan
        Plans, by the name that the table shows.
    rate, base, runs
        See `canarykit.forecast.forecast`.
    """
    found = [{"plan": name, **each.as_json()} for name, plan in plans.items() for each in forecast(plan, rate, base, runs=runs)]
    return pd.DataFrame(found).set_index(["plan", "canary"])
