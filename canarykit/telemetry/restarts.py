"""Whether counters that fell were restarted, or belong to several workers of which any answers. Pure, but for its memory.

A server with several worker processes and one metrics page for each answers a scrape with whichever worker is free. Its
totals go up and down between the workers' own totals. Each fall would look like a restart, after which a whole life of
requests would be counted again. Whoever keeps its connection, as Prometheus does, sees one worker for many scrapes: then
each rise to another worker's totals would be counted as requests.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from canarykit.model import TrafficSplit
from canarykit.telemetry.counters import Page, Series, Totals

__all__ = ["START", "Life", "proofs"]

START = "process_start_time_seconds"
"""Name of the gauge that says when a process started; most client libraries write it."""

_SAME_START = 1.0
"""Seconds by which the start time of one process may be said differently: some clients compute it from a boot time."""

_SKEW = 5.0
"""Seconds by which the clock of a pod may differ from ours."""

_ALWAYS_POSSIBLE = 20
"""Requests that a restarted process may have counted by its first scrape, however few came before."""

_SMALL_JUMP = 100
"""Requests by which a counter may always rise between two reads: traffic that begins, and small batches, look like that."""

_BURST = 5.0
"""Times the usual highest rate that may come between two scrapes."""

_BACK = 0.25
"""Part of the way back from a fall by which a counter may pass where it was: a restarted process seldom stops just there."""

_DOUBTED_READS = 3
"""Reads without a fall after which a process that counts much has been restarted all the same."""

_FEW_READS, _SOME_READS = 6, 12
"""Reads within which two falls, one of which no restart explains, or three falls of any kind, are no restarts."""

_REMEMBERED = 60
"""Steps that say what rate is usual: traffic that comes in batches shows nothing between two of them."""

_SHORTEST = 1.0
"""Seconds that lie between two reads at least, as far as their times can be believed: a page takes a while to be read."""

_ALIKE = 8
"""How many times more one worker may have counted than another one. A process that restarted has counted less still."""


@dataclass(slots=True)
class _Fall:
    """A fall that may be a restart.

    Parameters
    ----------
    before, after : mapping of Series to float
        Totals at the two reads.
    moment, since : float
        Times of the second and the first.
    later : set of float
        Times of reads since, at which nothing fell.
    counted : bool
        Whether the requests of the new life belong to what is being counted.
    settled : bool
        Whether it counts as a restart; it is watched for some reads more.
    """

    before: Totals
    after: Totals
    moment: float
    since: float
    later: set[float] = field(default_factory=set)
    counted: bool = True
    settled: bool = False


@dataclass(slots=True)
class _Jump:
    """A rise above what is possible: a surge when it goes on, else perhaps the way to another worker's totals.

    Parameters
    ----------
    before, after : mapping of Series to float
        Totals at the two reads.
    moment, seconds : float
        Time of the second, and how long before it the first was.
    counted : bool
        Whether it belongs to what is being counted.
    """

    before: Totals
    after: Totals
    moment: float
    seconds: float
    counted: bool = True

    @property
    def step(self) -> float:
        """Requests by which it rose."""
        return _requests(self.after) - _requests(self.before, self.after)


class Life:
    """Follows the counters of one source.

    A fall, and a rise above what is possible, are held back until later reads say what they are. A rise that goes on is a
    surge, and counted. One that does not is left out, because it may be the way to another worker's totals: so a single burst
    of more than 100 requests and five times the usual rate is lost where the process does not say when it started. The usual
    rate is what two reads at least have shown. Before that, also after a version without traffic gets some, it is taken to be
    zero for a source that has counted much; one that has counted little is believed. `proof` is set for good when the page is
    one worker's of several.

    Parameters
    ----------
    source : str
        Its name, for messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self.proof = ""
        """Why the page is one worker's of several; empty while nothing says so."""
        self.anew: dict[float, Totals] = {}
        """Times of reads that showed a new process, and the totals from which to count it."""
        self._last: dict[Series, float] | None = None
        self.moment = -math.inf
        """Time of the last read."""
        self.new = True
        """Whether it was not read several times in a row yet."""
        self._started: float | None = None
        self._grew = -math.inf
        self._rates: deque[float] = deque(maxlen=_REMEMBERED)
        self._falls: deque[tuple[int, bool]] = deque(maxlen=3)
        self._reads = 0
        self._fall: _Fall | None = None
        self._jump: _Jump | None = None
        self._left_out: _Jump | None = None
        self._to_another: _Fall | None = None

    @property
    def _rate(self) -> float | None:
        """Requests per second that two steps at least have shown: one alone may be the way to another worker's totals."""
        return sorted(self._rates)[-2] if len(self._rates) > 1 else None

    @property
    def strange(self) -> bool:
        """Whether more reads right now would tell more: it is new, or in doubt."""
        return self.new or self._jump is not None or (self._fall is not None and not self._fall.later)

    @property
    def counting(self) -> bool:
        """Whether the process has shown any counter so far."""
        return bool(self._last)

    def began_anew(self, started: float | None) -> bool:
        """Whether this start time says that another process is there than at the last read."""
        return started is not None and self._started is not None and started - self._started > _SAME_START

    @property
    def doubted_since(self) -> float:
        """Time of the first read that cannot be counted yet; infinite when all can."""
        fall = math.inf if self._fall is None or self._fall.settled else self._fall.moment
        return fall if self._jump is None else min(fall, self._jump.moment)

    @property
    def doubt(self) -> str:
        """Why the last reads cannot be counted yet; empty when they can."""
        if self._jump is not None:
            rose = f"the counter rose by {self._jump.step:,.0f}, far more than usual"
            return f"{self._source}: {rose}; the next reads tell whether traffic has risen"
        if self._fall is None or self._fall.settled:
            return ""
        fell = _what_fell(self._fall.before, self._fall.after)
        return f"{self._source}: {fell}; the next reads tell whether the process restarted"

    def mark(self) -> None:
        """Count from the last read on: what came before it belongs to another weight."""
        self.anew.clear()
        for held in (self._fall, self._jump):
            if held is not None:
                held.counted = False

    def expect(self, before: TrafficSplit, after: TrafficSplit) -> None:
        """Take note of a new weight: more requests are usual from now on, and how many is unknown when there were none."""
        shares = {"stable": (1 - before.share, 1 - after.share), "canary": (before.share, after.share)}
        roles = {series.role for series in self._last or ()}
        more = [math.inf if old <= 0 else new / old for role, (old, new) in shares.items() if role in roles and new > old]
        if math.inf in more:
            self._rates.clear()
        elif more:
            self._rates = deque((rate * max(more) for rate in self._rates), self._rates.maxlen)

    def take_anew(self) -> Totals | None:
        """Return the totals from which a new process is counted, and forget it; None when the process is the same."""
        base = self.anew[max(self.anew)] if self.anew else None
        self.anew.clear()
        return base

    def see(self, moment: float, totals: Totals, started: float | None = None) -> None:
        """Take note of a read.

        Parameters
        ----------
        moment : float
            When it was, seconds since the epoch.
        totals : mapping of Series to float
            Totals of the counters, as `check_totals` accepts them.
        started : float, optional
            When the process says that it started.
        """
        if self.proof:
            return
        self._reads += 1
        if self._last is None:
            self._grew = moment
            self._accept(moment, totals, started)
            return
        fell = any(total < self._last.get(series, 0.0) for series, total in totals.items())
        if self._told_by_start(moment, totals, started, fell):
            return
        if fell:
            self._leave_out()
            self._note_fall(moment, totals)
        else:
            self._note_rise(moment, totals, started)
        self._accept(moment, totals if fell else {**self._last, **totals}, started)
        self._settle()

    def see_again(self, pages: Sequence[Page]) -> None:
        """Take note of reads that came right after the last one, all at once, so that no process can have restarted.

        Parameters
        ----------
        pages : sequence of Page
            Pages that were read, in any order.
        """
        if self.proof or self._last is None or not pages:
            return
        self.new = False
        for page in pages:
            totals, started = page.totals, page.started
            if started is not None and self._started is not None and abs(started - self._started) > _SAME_START:
                self._prove(f"{START} is both {self._started:,.0f} and {started:,.0f}")
            elif any(total < self._last.get(series, 0.0) for series, total in totals.items()):
                self._prove(f"{_what_fell(self._last, totals)} and the process did not restart")
            else:
                self._weigh(self.moment, totals, _requests(totals) - _requests(self._last, totals) > _ALWAYS_POSSIBLE)
            if self.proof:
                return
        # A page is not written in one moment: of two that were asked for together, each may be ahead in some counters.
        together = [self._last, *(page.totals for page in pages)]
        most = {series: max(totals.get(series, 0.0) for totals in together) for totals in together for series in totals}
        self._accept(self.moment, most, None)
        self._settle()

    def _settle(self) -> None:
        """Take a fall for a restart when enough reads speak for it."""
        fall = self._fall
        if fall is None:
            return
        possible = self._possible(fall)
        enough = 0 if _to_nothing(fall) else 1 if possible else _DOUBTED_READS
        if not fall.settled and len(fall.later) >= enough:
            fall.settled = True
            if fall.counted:
                self.anew[fall.moment] = {} if possible else fall.after
        if len(fall.later) >= _DOUBTED_READS:
            self._fall = None

    def _accept(self, moment: float, totals: Totals, started: float | None) -> None:
        self._last, self.moment = dict(totals), max(moment, self.moment)
        self._started = self._started if started is None else started

    def _told_by_start(self, moment: float, totals: Totals, started: float | None, fell: bool) -> bool:
        """Learn from the start time of the process; return whether that settles what this read is."""
        assert self._last is not None
        if started is None or self._started is None:
            return False
        later = started - self._started
        if later < -_SAME_START:
            self._prove(f"{START} went back by {-later:,.0f} s")
        elif fell and later <= 0:
            self._prove(f"{_what_fell(self._last, totals)} and the process did not restart")
        elif later > _SAME_START:
            # A process that was there while another one answered has counted requests of before: only what is new counts.
            self._leave_out()
            self.anew[moment] = {} if started >= self.moment - _SKEW else dict(totals)
            self._fall = self._left_out = self._to_another = None
            self._grew = moment
            self._accept(moment, totals, started)
            return True
        return bool(self.proof)

    def _note_rise(self, moment: float, totals: Totals, started: float | None) -> None:
        """Take note of a read at which nothing fell, and hold it back when it counts more than is possible."""
        assert self._last is not None
        step, seconds = _requests(totals) - _requests(self._last, totals), moment - self.moment
        idle = max(moment - self._grew, _SHORTEST)
        too_many = step > _ALWAYS_POSSIBLE + _BURST * (self._rate or max(self._rates, default=0.0)) * idle
        self._weigh(moment, totals, too_many)
        if self._jump is not None and seconds >= _SHORTEST / 2:
            if _like(self._jump.step / self._jump.seconds, step / seconds, min(self._jump.seconds, seconds)):
                self._jump, too_many = None, False
            else:
                self._leave_out()
        same = started is not None and started == self._started
        # Where all series have other labels, a copy of the page took over: whoever counts sees that.
        usual = max(self._rate or 0.0, self._rates[-1] if self._rates else 0.0)
        # Where no rate is known yet, only a source that has counted much may be one of several workers that are alike.
        alike = bool(self._rate) or step <= _ALIKE * _requests(self._last, totals)
        if too_many and alike and not same and self._jump is None and step > _SMALL_JUMP + _BURST * usual * idle:
            self._jump = _Jump(self._last, {**self._last, **totals}, moment, max(seconds, _SHORTEST))
        if seconds >= 0.2:
            self._rates.append(step / seconds)
        if step:
            self._grew = moment

    def _leave_out(self) -> None:
        """Count only what comes after a rise that did not go on."""
        jump, self._jump = self._jump, None
        if jump is None or self.proof:
            return
        if jump.counted:
            self.anew[jump.moment] = jump.after
        self._left_out = jump
        if self._to_another is not None:
            fell = _what_fell(self._to_another.before, self._to_another.after)
            self._prove(f"{fell} and later rose by {jump.step:,.0f} at once")

    def _note_fall(self, moment: float, totals: Totals) -> None:
        assert self._last is not None
        counted = self._fall is None or self._fall.counted
        fall = _Fall(self._last, totals, moment, self.moment, counted=counted)
        possible = self._possible(fall)
        self._falls.append((self._reads, possible))
        since = [possible for read, possible in self._falls if self._reads - read < _FEW_READS]
        some = [read for read, _ in self._falls if self._reads - read < _SOME_READS]
        fell = _what_fell(self._last, totals)
        # Workers have counted about as much as each other, at whatever distance the falls are.
        another = not possible and _ALIKE * _requests(totals) > _requests(self._last, totals)
        if len(since) >= 2 and not all(since):
            self._prove(f"{fell} and no restart explains that")
        elif another and self._left_out is not None and _ALIKE * _requests(totals) > _requests(self._left_out.before):
            self._prove(f"{fell} after it rose by {self._left_out.step:,.0f} at once")
        elif another and self._to_another is not None:
            self._prove(f"{fell} and no restart explains that, for the second time")
        elif len(some) >= 3:
            why = f"{fell}, the third fall within {_SOME_READS} reads"
            self._prove(why, "or its process restarts again and again")
        self._fall, self._grew = fall, moment
        if another:
            self._to_another = fall

    def _weigh(self, moment: float, totals: Totals, too_many: bool) -> None:
        """Let a read at which nothing fell speak for a restart, or against it."""
        if self._fall is None:
            return
        before = {series: total for series, total in self._fall.before.items() if series in totals}
        back = all(totals[series] >= total for series, total in before.items())
        from_before, from_fallen = (_requests(totals, some) - _requests(some) for some in (before, self._fall.after))
        if back and too_many and from_before <= _BACK * from_fallen:
            self._prove(f"{_what_fell(self._fall.before, self._fall.after)} and then came back")
        else:
            self._fall.later.add(moment)

    def _possible(self, fall: _Fall) -> bool:
        """Whether a process that restarted in between can have counted so many requests."""
        requests, seconds = _requests(fall.after), fall.moment - fall.since
        more = _requests(fall.before) / 4 if self._rate is None else _BURST * self._rate * seconds
        return requests <= _ALWAYS_POSSIBLE + more

    def _prove(self, why: str, otherwise: str = "") -> None:
        self._fall = self._jump = None
        self.proof = (
            f"{self._source}: its metrics page is one worker's of several ({why}){f', {otherwise}' if otherwise else ''}: "
            "set PROMETHEUS_MULTIPROC_DIR, or run one worker per pod"
        )


def proofs(lives: Mapping[str, Life]) -> str:
    """Why nothing can be counted: a page is one worker's of several. Empty when all pages can be believed."""
    return "; ".join(life.proof for _, life in sorted(lives.items()) if life.proof)


def _to_nothing(fall: _Fall) -> bool:
    """Whether so little is left that it may be counted at once: it is no whole life, whatever it is."""
    requests = _requests(fall.after)
    return requests <= min(_ALWAYS_POSSIBLE, _requests(fall.before) / 4)


def _like(one: float, other: float, seconds: float) -> bool:
    """Whether two rates may be those of the same surge."""
    low, high = sorted((one, other))
    return high * seconds <= _ALWAYS_POSSIBLE + _BURST * low * seconds


def _requests(totals: Totals, among: Mapping[Series, float] | None = None) -> float:
    return sum(total for series, total in totals.items() if series.what != "latency" and (among is None or series in among))


def _what_fell(before: Totals, after: Totals) -> str:
    """The counter that fell most, those of requests first."""
    fallen = [series for series, total in after.items() if total < before.get(series, 0.0)]
    series = max(fallen, key=lambda series: (series.what == "requests", before[series] - after[series]))
    what = "the counter" if series.what == "requests" else f"a counter of {series.what}"
    return f"{what} fell from {before[series]:,.0f} to {after[series]:,.0f}"
