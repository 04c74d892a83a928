"""Traffic: what the kit sends itself, one sender at a time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from canarykit.clusters.base import Cluster, Limited, Traffic
from canarykit.session.assessment import Assessment
from canarykit.session.events import Events
from canarykit.session.journal_writer import JournalWriter
from canarykit.session.lifecycle import Lifecycle

__all__ = ["OwnTraffic"]


class OwnTraffic:
    """The traffic that the kit sends itself.

    One lock, taken before the experiment's, is held from the end of one sender until the next one has begun; `load` changes
    under both, and may be read without.

    Parameters
    ----------
    cluster : Cluster
        Sends.
    lifecycle : Lifecycle
        Has the experiment's lock.
    assessment : Assessment
        Told which labels there are.
    look : callable
        Takes in the last answers of a sender, under the experiment's lock.
    writer, events : JournalWriter, Events
        Told what became of it.
    """

    def __init__(
        self,
        cluster: Cluster,
        lifecycle: Lifecycle,
        assessment: Assessment,
        look: Callable[[], object],
        writer: JournalWriter,
        events: Events,
    ) -> None:
        self._cluster, self._lifecycle, self._assessment, self._look = cluster, lifecycle, assessment, look
        self._writer, self._events = writer, events
        self._sending = threading.RLock()
        self._number = 0
        self._causes_before: Counter[str] = Counter()
        self.load: Traffic | None = None
        """The one that sends; None when none does."""
        self._summary: object = None

    @property
    def lost(self) -> int | None:
        """Requests lost so far, of all senders; None when there was none."""
        return sum(self.causes.values()) if self._number else None

    @property
    def causes(self) -> dict[str, int]:
        """Lost requests by cause, of all senders."""
        load, now = self.load, Counter(self._causes_before)
        if load is not None:
            now.update(load.record()["lost"])
        return dict(now)

    def send(self, rate: float | str, **options: Any) -> Traffic:
        """Begin to send, in place of what was sent before.

        Parameters
        ----------
        rate : float or str
            Requests per second.
        **options
            See `Load`.
        """
        with self._sending:
            self.stop()
            load = self._cluster.send(rate, **options)
            with self._lifecycle.lock:
                self.load = load
                self._number += 1
                self._assessment.use_classes(load.classes)
        self._events.note("traffic", f"sending {rate if isinstance(rate, str) else f'{rate:g}/s'}")
        self._tell_shorter_limit(options.get("timeout"))
        return load

    def _tell_shorter_limit(self, timeout: float | None) -> None:
        """Say that the gateway gives up before the sender does."""
        limit = self._cluster.timeout if isinstance(self._cluster, Limited) else None
        if timeout is not None and limit is not None and limit < timeout:
            self._events.note(
                "problem",
                f"send() waits {timeout:g} s for an answer, and the gateway ends requests after {limit:g} s, with a 504: make "
                f'the cluster with LocalCluster(timeout={timeout:g}), or where="local?timeout={timeout:g}"',
            )

    def stop(self) -> object:
        """Send no more; return what became of all that the last sender sent, also when it has been stopped before.

        None when nothing was sent. Earlier senders are not in it: `lost` counts the lost requests of all.
        """
        with self._sending:
            load = self.load
            if load is None:
                return self._summary
            with self._events.busy("waiting for the last answers"):
                self._summary = load.stop()
                self._cluster.clock.sleep(self._cluster.telemetry.delay)
            with self._lifecycle.lock:
                try:
                    self._look()
                finally:  # it sends no more, whether its last answers could be taken in or not
                    self.load = None
                    self._causes_before.update(load.record()["lost"])
            return self._summary

    def write_down(self) -> None:
        """Record what became of it so far. Needs the lock."""
        if self.load is not None:
            self._writer.load(self._number, self.load)
