"""Whether a server is ready, will be, or never will: the rule, without a clock or a socket.

- 200 is ready, also when it comes as the limit ends.
- 5xx, 400, 425 and 429 mean that the server loads: wait until the limit. (MLServer and Triton answer 400 until then.)
- Another status (404, 401, a redirect), another protocol, or other ports than the one that was given, may be so for a moment
  while a server starts. They are reported once they are *steady*: the same for `patience` seconds, in which the server
  used less than a fifth of one processor. A server that reads a large model works harder than that.
- Another port is reported then only if it answers HTTP on the ready path. A server that downloads its model is idle too, and
  may have a port for metrics or for its workers by then. Such a port is named as a guess when the limit ends.
- No answer at all means: wait until the limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from canarykit.clusters.local.listening import Address

__all__ = ["Observation", "Steadiness", "patience"]

_SHORTEST = 5.0
_SHARE = 1 / 6
_IDLE = 0.2
_LOADING = (400, 425, 429)
_REACHED = ("127.0.0.1", "0.0.0.0", "::")
"""Addresses of which one must be listened on, so that 127.0.0.1 is answered."""


def patience(ready_within: float) -> float:
    """Seconds after which what is steady is reported: a sixth of the limit, but at least 5."""
    return max(_SHORTEST, _SHARE * ready_within)


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of a server at one time.

    Parameters
    ----------
    at : float
        Seconds.
    answer : int, str or None
        Status of its answer on the ready path; in words, that it speaks another protocol; None when it did not answer.
    listens : tuple of Address
        Where it listens, as far as that is known.
    port : int
        Where it was told to listen.
    named : frozenset of int
        Further ports that it was given.
    busy : float
        Processor time that it and what it started have used, in seconds.
    serves : bool
        Whether one of the addresses `elsewhere` answers HTTP on the ready path, as far as that was asked.
    """

    at: float
    answer: int | str | None
    listens: tuple[Address, ...] = ()
    port: int = 0
    named: frozenset[int] = frozenset()
    busy: float = 0.0
    serves: bool = False

    @property
    def ready(self) -> bool:
        """Whether it answered 200."""
        return self.answer == 200

    @property
    def elsewhere(self) -> tuple[Address, ...]:
        """Where it listens, but for 127.0.0.1 at its port, and for its further ports."""
        return tuple(
            address
            for address in self.listens
            if address.port not in self.named and not (address.port == self.port and address.host in _REACHED)
        )

    @property
    def guessed(self) -> bool:
        """Whether all that speaks against it is that it listens on other ports, which may be meant for something else."""
        return self.answer is None and not self._own and bool(self.elsewhere) and not self.serves

    @property
    def wrong(self) -> int | str | tuple[Address, ...] | None:
        """What does not end by waiting, when it stays the same; None when waiting may help."""
        if self.answer is None:
            return None if self._heard else self.elsewhere or None
        if isinstance(self.answer, str):
            return self.answer
        loading = self.ready or self.answer >= 500 or self.answer in _LOADING
        return None if loading else self.answer

    def said(self, path: str) -> str:
        """What is wrong with the server on its ready path, and what to do."""
        own = f"127.0.0.1:{self.port}"
        if isinstance(self.answer, int):
            return f"answers {self.answer} to {path}{_advice(self.answer)}"
        if self.answer is not None:
            return f"is not ready: {self.answer}"
        if self._heard:
            return f"listens on {own} and gives no answer to GET {path} within 2 s"
        if self._own:
            return f"listens on {self._own[0]}, not on {own}: have it listen on 127.0.0.1"
        places = " and ".join(map(str, self.elsewhere))
        if self.serves:
            return f"listens on {places}, not on {own}: use {{port}} in command= where the server takes its port"
        if self.elsewhere:
            return (
                f"does not listen on {own}. It listens on {places}: if it serves there, use {{port}} in command= where the "
                "server takes its port; if it still loads, set a longer ready_within="
            )
        return f"does not listen on {own}"

    @property
    def _own(self) -> tuple[Address, ...]:
        return tuple(address for address in self.listens if address.port == self.port)

    @property
    def _heard(self) -> bool:
        """Whether it listens where it is asked."""
        return any(address.host in _REACHED for address in self._own)


def _advice(status: int) -> str:
    if status in (401, 403):
        return ": that path wants credentials; set ready= to one that answers 200 without"
    if status == 404:
        return ": it has no such path; set ready= to one that answers 200"
    if status == 405:
        return ": that path takes no GET; set ready= to one that does"
    if 300 <= status < 400:
        return ": that is a redirect; set ready= to the path that it leads to"
    if 200 <= status < 300:
        return ": only 200 means ready"
    return ""


@dataclass
class Steadiness:
    """Tells what stays wrong from what is wrong for a moment.

    Parameters
    ----------
    patience : float
        Seconds that it must stay the same.
    """

    patience: float
    _since: Observation | None = field(default=None, init=False)

    def take(self, look: Observation) -> bool:
        """Take note of what was seen; return whether it is steady."""
        if look.wrong is None:
            self._since = None
            return False
        if self._since is None or self._since.wrong != look.wrong:
            self._since = look
            return False
        seconds = look.at - self._since.at
        if seconds < self.patience:
            return False
        idle = look.busy - self._since.busy < _IDLE * seconds
        self._since = look
        return idle
