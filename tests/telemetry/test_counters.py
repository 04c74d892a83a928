"""From counters that only grow to a window."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarykit.errors import TelemetryError
from canarykit.model import TrafficSplit
from canarykit.telemetry.catalogue import Exposition
from canarykit.telemetry.counters import CounterWindows, Series, check_totals, increases

CODES = Exposition("requests_total", "seconds", "code")
INF = math.inf


def series(role="stable", instance="pod-1", what="requests", *, failed=False, kind="ok", edge=-1.0, rest=()):
    """One counter."""
    return Series(role, instance, what, "failed" if failed else kind, edge, rest)


def buckets(*counts, edges=(0.1, 0.5, INF), **options):
    """Cumulative counts of a histogram."""
    return {
        series(what="latency", edge=edge, rest=(("le", str(edge)),), **options): count
        for edge, count in zip(edges, counts, strict=True)
    }


def window_of(grown, entry=CODES, edges=()):
    """The window of these increases."""
    windows = CounterWindows(entry)
    windows.begin(TrafficSplit(25), 0.0)
    windows.learn_edges(edges)
    windows.add(grown)
    return windows.close(10.0)


@given(totals=st.lists(st.integers(0, 10**6), min_size=1), restarts=st.sets(st.integers(0, 30)))
def test_every_request_is_counted_once_whenever_its_counter_restarts(totals, restarts):
    """
    However a pod's work is cut into looks and lives, what is counted is what it did.
    """
    life, before, counted = 0, {}, 0
    for number, more in enumerate(totals):
        # A counter that has grown past its old value by the next look cannot be told from one that went on.
        if number in restarts and more < before.get(series(), 0):
            life = 0
        life += more
        now = {series(): float(life)}
        counted += increases(before, now)[series()]
        before = now
    assert counted == sum(totals)


def test_a_restart_begins_all_counters_of_its_pod_anew():
    """
    The failures of a pod had not fallen, but its requests had: both began at zero again; other pods go on.
    """
    one, bad, other = series(), series(failed=True), series(instance="pod-2")
    grown = increases({one: 100, bad: 1, other: 50}, {one: 7, bad: 2, other: 60})
    assert grown == {one: 7, bad: 2, other: 10}


def test_a_counter_that_was_not_there_began_at_zero_and_one_that_vanished_says_nothing():
    """
    A new pod's first total is its growth; a pod that is gone takes with it what it counted last.
    """
    assert increases({series(): 100}, {series(instance="new"): 4}) == {series(instance="new"): 4}


@pytest.mark.parametrize("total", [math.nan, -1.0, 2.5, INF])
def test_what_is_no_count_is_refused(total):
    """
    NaN, negative and fractional totals are errors, never zeros.
    """
    with pytest.raises(TelemetryError, match=r"pod-1 counts .* a count is a whole number"):
        check_totals({series(): total})


def test_requests_and_failures_by_label():
    """
    Good and failed requests of each version; a version without a series of failures has none.
    """
    grown = {series(): 9, series(failed=True): 1, series("canary"): 4}
    window = window_of(grown)
    assert window.counts["outcome"].tolist() == [[9, 1], [4, 0]]
    assert (window.start, window.end, window.split.canary, window.note) == (0.0, 10.0, 25.0, "")


def test_silence_is_no_data():
    """
    Without a series of requests the window is empty, and says which one was looked for.
    """
    window = window_of({})
    assert window.requests == (0, 0)
    assert window.note == "no request was counted in requests_total"
    assert "latency" not in window.counts
    assert "answers" not in window.counts


@pytest.mark.parametrize(("beside", "outcome"), [(False, [[7, 3], [0, 0]]), (True, [[10, 3], [0, 0]])], ids=["among", "beside"])
def test_a_counter_of_failures_is_among_the_requests_or_beside_them(beside, outcome):
    """
    Ten requests and three failures are ten or thirteen in all.
    """
    entry = Exposition("requests", "seconds", failures="failures", beside=beside)
    grown = {series(): 10, series(what="failures", failed=True): 3}
    assert window_of(grown, entry).counts["outcome"].tolist() == outcome


def test_failures_that_are_read_ahead_of_requests_leave_no_negative_count():
    """
    A page says two failures, and the requests among which they are come with the next one.
    """
    entry = Exposition("requests", "seconds", failures="failures")
    window = window_of({series(): 1, series(what="failures", failed=True): 2}, entry)
    assert window.counts["outcome"].tolist() == [[0, 2], [0, 0]]


def test_buckets_are_differenced_and_pods_kept_apart():
    """
    Of 10 requests 4 took up to 0.1 s, 3 up to 0.5 s and 3 longer; the pods of one version add up.
    """
    one, two, canary = buckets(4, 7, 10), buckets(1, 1, 1, instance="pod-2"), buckets(0, 2, 2, role="canary", instance="c")
    window = window_of(one | two | canary, edges=one)
    assert window.counts["latency"].tolist() == [[5, 3, 3], [0, 2, 0]]
    assert {name: cells.tolist() for name, cells in window.instances["latency"].items()} == {
        "stable-pod-1": [4, 3, 3],
        "stable-pod-2": [1, 0, 0],
        "canary-c": [0, 2, 0],
    }


@given(cells=st.lists(st.integers(0, 1000), min_size=2, max_size=12))
def test_differencing_undoes_cumulation(cells):
    """
    Whatever the buckets hold comes back.
    """
    edges = (*(float(i) for i in range(1, len(cells))), INF)
    totals = [sum(cells[: i + 1]) for i in range(len(cells))]
    grown = buckets(*totals, edges=edges)
    assert window_of(grown, edges=grown).counts["latency"].tolist() == [cells, [0] * len(cells)]


def test_a_gateway_is_no_instance_of_a_version():
    """
    Where the gateway counts, nothing is known of single pods.
    """
    grown = buckets(1, 1, 1)
    window = window_of(grown, Exposition("r", "seconds", "code", backend="service"), edges=grown)
    assert window.counts["latency"][0].sum() == 1
    assert not window.instances


def test_quick_failures_do_not_flatter_latency():
    """
    Five failures in no time are five errors, and no answers of 0.1 s.
    """
    good, bad = buckets(0, 0, 2), buckets(5, 5, 5, failed=True)
    window = window_of(good | bad, edges=good | bad)
    assert window.counts["latency"].tolist() == [[0, 0, 2], [0, 0, 0]]


def test_what_is_not_known_now_is_in_the_next_window():
    """
    An interval of which nothing is known has no counts but a reason; what was counted stays.
    """
    windows = CounterWindows(CODES)
    windows.begin(TrafficSplit(25), 0.0)
    windows.add({series(): 3})
    silent = windows.close(5.0, "pod-2 cannot be read")
    assert (silent.counts, silent.note) == ({}, "pod-2 cannot be read")
    windows.add({series(): 4})
    window = windows.close(9.0)
    assert (window.requests, window.start) == ((7, 0), 5.0)
    assert windows.close(10.0).requests == (0, 0)


def test_a_new_weight_forgets_what_was_counted_under_the_old_one():
    """
    Counts never travel from one split to another.
    """
    windows = CounterWindows(CODES)
    windows.begin(TrafficSplit(5), 0.0)
    windows.add({series(): 3})
    windows.begin(TrafficSplit(50), 7.0)
    window = windows.close(8.0)
    assert (window.requests, window.start, window.split.canary) == ((0, 0), 7.0, 50.0)
