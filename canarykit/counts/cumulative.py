"""Counts that are sums of others: buckets that hold all below them, and totals since a server's start."""

from __future__ import annotations

import numpy as np

from canarykit.model import Counts

__all__ = ["buckets_alone", "first_fall", "look_cumulative", "look_like_totals"]

_MANY_BUCKETS, _LEAST_PAIRS, _MOST_BEYOND = 5, 10, 0.1
_LEAST_MIXED, _LEAST_SHARE = 3, 0.25
_LEAST_WINDOWS, _LEAST_STEPS = 12, 40


def first_fall(counts: Counts) -> tuple[int, int, int] | None:
    """Return window, version and bucket after which a count falls along the edges; None when none does.

    Parameters
    ----------
    counts : (windows, 2, cells) int array
        Counts of buckets in the order of their edges.
    """
    falls = np.argwhere(np.diff(counts, axis=2) < 0)
    if not len(falls):
        return None
    window, version, bucket = (int(number) for number in falls[0])
    return window, version, bucket


def buckets_alone(counts: Counts) -> Counts:
    """Return what each bucket holds alone, of buckets that hold all below them, as those of Prometheus (``le``) do."""
    return np.diff(counts, axis=2, prepend=0)


def look_cumulative(counts: Counts) -> bool:
    """Say whether buckets are likely to hold all below them: those of both versions, of one, or of some windows.

    No count falls along the edges, although many could, so that the last bucket is the largest. Of few buckets that is true
    where most requests are slower than the last finite edge, too: then the last two must also hold almost the same.

    Parameters
    ----------
    counts : (windows, 2, cells) int array
        Counts of buckets in the order of their edges.
    """
    together = counts.reshape(-1, counts.shape[2])
    if any(map(_looks_so, (together, *counts.swapaxes(0, 1)))):
        return True
    found = sum(_looks_so(window) for window in counts)
    return found >= _LEAST_MIXED and found >= _LEAST_SHARE * len(counts)


def _looks_so(rows: Counts) -> bool:
    """Say so of all these rows of buckets together."""
    if (np.diff(rows, axis=1) < 0).any():
        return False
    filled = (rows > 0).sum(axis=1)
    many = rows.shape[1] >= _MANY_BUCKETS
    pairs = (filled[filled > (3 if many else 2)] - 1).sum()
    below, everything = rows.sum(axis=0)[-2:]
    return bool(pairs >= (1 if many else 4) * _LEAST_PAIRS and (many or everything - below <= _MOST_BEYOND * everything))


def look_like_totals(counts: Counts) -> bool:
    """Say whether counts are likely to be a counter's totals since its start, and not those of each window.

    The requests of both versions rise from window to window, and no cell ever falls, over many windows.

    Parameters
    ----------
    counts : (windows, 2, cells) int array
        In the order of their windows.
    """
    if len(counts) < _LEAST_WINDOWS:
        return False
    steps = np.diff(counts, axis=0)
    rising = (np.diff(counts.sum(axis=2), axis=0) > 0).all()
    return bool(rising and (steps >= 0).all() and (counts[:-1] > 0).sum() >= _LEAST_STEPS)
