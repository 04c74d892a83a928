"""Confidence sequences and bands: intervals that hold at all looks together.

Those of a risk ratio and of a quantile's ratio belong to their evidence (`canarykit.analysis.evidence`); here are means
of bounded values, one rate, and a band for a picture of a distribution.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln

from canarykit.analysis.bets import Array
from canarykit.analysis.state import Stateful

__all__ = ["MeanDifference", "band_radius", "betting_mean", "iterated_logarithm_radius", "rate_interval"]

_ENOUGH_WINDOWS = 20


class MeanDifference(Stateful):
    """Difference of two means from sums per window (canary − stable), compared within each window.

    Asymptotic: it says nothing before `_ENOUGH_WINDOWS` windows. Source: section 3 of docs/statistics.md, the
    Mantel-Haenszel form with a normal mixture (Robbins; Howard et al. 2021).
    """

    _STATE = ("windows", "_sum", "_weight", "_variance", "_scale")

    def __init__(self) -> None:
        self.windows = 0
        self._sum = self._weight = self._variance = self._scale = 0.0

    def update(self, stable: tuple[float, float, float], canary: tuple[float, float, float]) -> None:
        """Take in one window.

        Parameters
        ----------
        stable, canary : tuple of float
            Requests, mean, and variance of the values.
        """
        (n_s, mean_s, var_s), (n_c, mean_c, var_c) = stable, canary
        if min(n_s, n_c) < 1:
            return
        weight = n_c * n_s / (n_c + n_s)
        self._sum += weight * (mean_c - mean_s)
        self._weight += weight
        pooled = max((n_s * var_s + n_c * var_c) / (n_s + n_c), 1e-9)  # a handful of equal values has variance, too
        self._variance += weight**2 * (pooled / n_c + pooled / n_s)
        self.windows += 1
        if self.windows == 1:
            # Where the mixture is tightest; must be chosen before most of the data.
            self._scale = _ENOUGH_WINDOWS * self._variance

    @property
    def estimate(self) -> float:
        """The difference; NaN before any window."""
        return self._sum / self._weight if self._weight else float("nan")

    def log_e(self, difference: float) -> float:
        """Evidence, natural log, that the difference is not this one."""
        if self.windows < _ENOUGH_WINDOWS:
            return 0.0
        away = self._sum - difference * self._weight
        spread = self._variance + self._scale
        return 0.5 * (away**2 / spread - math.log(spread / self._scale))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Confidence sequence of the difference; unbounded at first."""
        if self.windows < _ENOUGH_WINDOWS:
            return float("-inf"), float("inf")
        spread = self._variance + self._scale
        radius = math.sqrt(spread * (math.log(spread / self._scale) + 2 * math.log(1 / alpha))) / self._weight
        return self.estimate - radius, self.estimate + radius


def rate_interval(successes: int, trials: int, *, tightest_at: float, alpha: float = 0.05) -> tuple[float, float]:
    """Confidence sequence of one rate, by a beta-binomial mixture.

    Parameters
    ----------
    successes, trials : int
        Successes and trials so far.
    tightest_at : float
        Number of trials at which the interval should be tightest.
    alpha : float
        Chance that it ever misses.

    Notes
    -----
    Howard, Ramdas, McAuliffe and Sekhon (2021), two-sided beta-binomial mixture.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"successes must be 0 to trials and trials at least 1, not {successes} of {trials}")
    line = math.log(1 / alpha)

    def excess(p: float) -> float:
        return _beta_binomial(successes - trials * p, trials * p * (1 - p), p, tightest_at * p * (1 - p), alpha) - line

    rate, tiny = successes / trials, 1e-9
    low = 0.0 if successes == 0 or excess(tiny) < 0 else brentq(excess, tiny, max(rate - tiny, 2 * tiny))
    high = 1.0 if successes == trials or excess(1 - tiny) < 0 else brentq(excess, min(rate + tiny, 1 - 2 * tiny), 1 - tiny)
    return float(low), float(high)


def _beta_binomial(s: float, v: float, p: float, v_opt: float, alpha: float) -> float:
    g, h = p, 1 - p
    rho = v_opt / (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha)))
    r = max(rho - g * h, 1e-3 * g * h)
    # With g + h = 1 the general form shortens to this.
    value = -((v + h * s) / h) * math.log(g) - ((v - g * s) / g) * math.log(h)
    return float(value + betaln((r + v - g * s) / g, (r + v + h * s) / h) - betaln(r / g, r / h))


def betting_mean(values: Array, mean: float, *, alpha: float = 0.05) -> Array:
    """Wealth of bets against a mean, after each value.

    Parameters
    ----------
    values : (n,) float array
        Between 0 and 1, in order.
    mean : float
        The mean to bet against.
    alpha : float
        For which the bets are tuned.

    Returns
    -------
    (n,) float array
        Reaches 1/α with probability α at most when this is the mean.

    Raises
    ------
    ValueError
        A value is not between 0 and 1.

    Notes
    -----
    Waudby-Smith and Ramdas (2024): hedged predictable plug-in bets, truncated at half of what could be lost.
    """
    x = np.asarray(values, dtype=float)
    if np.isnan(x).any() or (x < 0).any() or (x > 1).any():
        raise ValueError("values must be between 0 and 1; NaN is no value")
    t = np.arange(1, len(x) + 1)
    guess = (0.5 + np.cumsum(x)) / (t + 1)
    variance = (0.25 + np.cumsum((x - guess) ** 2)) / (t + 1)
    before = np.append(0.25, variance[:-1])
    bets = np.sqrt(2 * np.log(2 / alpha) / (t * np.log1p(t) * before))
    up = np.cumprod(1 + np.minimum(bets, 0.5 / mean) * (x - mean))
    down = np.cumprod(1 - np.minimum(bets, 0.5 / (1 - mean)) * (x - mean))
    return np.asarray(np.maximum(0.5 * up, 0.5 * down))


def iterated_logarithm_radius(n: float, *, start: float = 1.0, a: float = 0.85, c: float = 8.1227) -> float:
    """Half-width of a band around an empirical distribution that holds at all times from `start` on, at α = 5 %.

    Parameters
    ----------
    n : float
        Values so far.
    start : float
        Number of values from which on it must hold.
    a, c : float
        Constants of the law of the iterated logarithm.

    Notes
    -----
    Howard and Ramdas (2022), quantile confidence sequences.
    """
    return a * math.sqrt((math.log(math.log(math.e * n / start)) + c) / n)


def band_radius(cells: Array) -> float:
    """Half-width of the band of a drawn distribution function; never decided with. NaN without requests."""
    total = float(np.sum(cells))
    return iterated_logarithm_radius(total) if total >= 1 else float("nan")
