"""When requests are sent: Poisson arrivals whose rate follows a shape. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["SHAPES", "arrivals", "peak"]

_RAMP_FROM, _RAMP_SECONDS = 0.1, 60.0
_SPIKE_TIMES, _SPIKE_EVERY, _SPIKE_SECONDS = 4.0, 20.0, 2.0


def _steady(seconds: float, duration: float | None) -> float:
    return 1.0


def _ramp(seconds: float, duration: float | None) -> float:
    return min(1.0, _RAMP_FROM + (1 - _RAMP_FROM) * seconds / (duration or _RAMP_SECONDS))


def _spike(seconds: float, duration: float | None) -> float:
    return _SPIKE_TIMES if seconds % _SPIKE_EVERY >= _SPIKE_EVERY - _SPIKE_SECONDS else 1.0


SHAPES: dict[str, Callable[[float, float | None], float]] = {"steady": _steady, "ramp": _ramp, "spike": _spike}
"""How many times the stated rate is sent, by the seconds since the beginning and the duration of the whole: the same all the
time; from a tenth up to the whole rate over the duration (or a minute); or four times the rate for two seconds of twenty."""


def peak(shape: str) -> float:
    """How many times the stated rate is sent at most.

    Parameters
    ----------
    shape : {"steady", "ramp", "spike"}
        See `SHAPES`.
    """
    return _SPIKE_TIMES if shape == "spike" else 1.0


def arrivals(rate: float, shape: str, duration: float | None, seed: int) -> Iterator[float]:
    """Yield the times at which requests are due, in seconds since the beginning.

    Parameters
    ----------
    rate : float
        Requests per second.
    shape : str
        One of `SHAPES`.
    duration : float, optional
        Seconds until it ends; endless by default.
    seed : int
        The same seed gives the same times.

    Notes
    -----
    An inhomogeneous Poisson process by thinning (Lewis and Shedler, 1979).
    """
    rng = np.random.default_rng(seed)
    most = rate * peak(shape)
    now = 0.0
    while True:
        now += rng.exponential(1 / most)
        if duration is not None and now >= duration:
            return
        if rng.random() * most < rate * SHAPES[shape](now, duration):
            yield now
