"""When requests are sent: Poisson arrivals whose rate follows a shape. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from canarykit.errors import PlanError

__all__ = ["SHAPES", "arrivals", "peak", "relative_rate"]

_RAMP_FROM, _RAMP_SECONDS = 0.1, 60.0
_SPIKE_TIMES, _SPIKE_EVERY, _SPIKE_SECONDS = 4.0, 20.0, 2.0


def _steady(seconds: float, duration: float | None) -> float:
    return 1.0


def _ramp(seconds: float, duration: float | None) -> float:
    return min(1.0, _RAMP_FROM + (1 - _RAMP_FROM) * seconds / (duration or _RAMP_SECONDS))


def _spike(seconds: float, duration: float | None) -> float:
    return _SPIKE_TIMES if seconds % _SPIKE_EVERY >= _SPIKE_EVERY - _SPIKE_SECONDS else 1.0


SHAPES: dict[str, Callable[[float, float | None], float]] = {"steady": _steady, "ramp": _ramp, "spike": _spike}


def relative_rate(shape: str, seconds: float, duration: float | None) -> float:
    """How many times the stated rate is sent at a moment.

    Parameters
    ----------
    shape : {"steady", "ramp", "spike"}
        The same all the time; from a tenth up to the whole rate over the duration (or a minute); or four
        times the rate for two seconds out of each twenty.
    seconds : float
        Since the beginning.
    duration : float, optional
        Duration of the whole traffic, seconds.
    """
    return SHAPES[shape](seconds, duration)


def peak(shape: str) -> float:
    """How many times the stated rate is sent at most.

    Parameters
    ----------
    shape : {"steady", "ramp", "spike"}
        See `relative_rate`.
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

    Raises
    ------
    PlanError
        No such shape.

    Notes
    -----
    An inhomogeneous Poisson process by thinning (Lewis and Shedler, 1979).
    """
    if shape not in SHAPES:
        raise PlanError(f"traffic has no shape {shape!r}: choose one of {', '.join(SHAPES)}")
    rng = np.random.default_rng(seed)
    most = rate * peak(shape)
    now = 0.0
    while True:
        now += rng.exponential(1 / most)
        if duration is not None and now >= duration:
            return
        if rng.random() * most < rate * relative_rate(shape, now, duration):
            yield now
