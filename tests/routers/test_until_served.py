"""When a change of the split is believed."""

import itertools
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_doubles import Gateway, Namespace

from canarykit.errors import ConflictError, RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers import router_class
from canarykit.routers.objects import Target, retried
from canarykit.routers.served import Patience, until_served

WEIGHTS = st.floats(0, 100).map(lambda weight: round(weight, 1))


def wait(probe, before, after, *, within=30.0, each=0.001, settle=1.0, cancelled=lambda: False):
    """Wait for a change as a router does; an answer takes so many seconds of a clock that only answers move."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic, clock.sleep = lambda: clock.now, lambda seconds: setattr(clock, "now", clock.now + seconds)

    def timed():
        clock.now += each
        return probe()

    timed.last = getattr(probe, "last", "")
    before, patience = None if before is None else TrafficSplit(before), Patience(within, settle, cancelled=cancelled)
    with patch("canarykit.routers.served.time", clock):
        until_served(timed, before, TrafficSplit(after), what="HTTPRoute digits", patience=patience)


@settings(max_examples=60, derandomize=True)
@given(before=WEIGHTS, after=WEIGHTS, seed=st.integers(0, 10**6))
def test_a_split_that_is_served_is_believed(before, after, seed):
    """
    Whatever was before and comes after: it returns, after a thousand answers or so at the most.
    """
    gateway = Gateway(after / 100, seed=seed)
    wait(gateway, before, after)
    assert gateway.asked <= 3000


@settings(max_examples=60, derandomize=True)  # by chance alone it happens twice in a thousand changes
@given(pair=st.tuples(WEIGHTS, WEIGHTS).filter(lambda pair: abs(pair[0] - pair[1]) >= 20), seed=st.integers(0, 10**6))
def test_a_split_that_is_not_served_is_not_believed(pair, seed):
    """
    A gateway that stays with the old split is an error, however many answers it gives.
    """
    before, after = pair
    with pytest.raises(RoutingError, match=f"given {after:g} % for the canary.*the gateway does not serve it"):
        wait(Gateway(before / 100, seed=seed), before, after, within=5.0)


def test_old_answers_before_the_change_do_not_count_against_it():
    """
    Some hundred answers of the old split, then the new one: it is seen soon after.
    """
    gateway = Gateway(lambda asked: 0.05 if asked <= 300 else 0.25)
    wait(gateway, 5, 25)
    assert 300 < gateway.asked < 450  # counted from the beginning, the old ones would take two hundred more to outweigh


@pytest.mark.parametrize(("after", "old"), [(0, "canary"), (100, "stable")])
def test_one_answer_that_cannot_be_begins_the_count_anew(after, old):
    """
    From half to nothing, or to all: 17 answers in a row, each twice as likely as before, make it 100,000 to 1.
    """
    new = {"canary": "stable", "stable": "canary"}[old]
    answers, asked = itertools.chain([new] * 10 + [old], itertools.repeat(new)), itertools.count()
    wait(lambda: (next(asked), next(answers))[1], 50, after)
    assert next(asked) == 10 + 1 + 17


def test_one_answer_that_could_not_be_before_is_enough():
    """
    Nothing came from the canary until now: its first answer shows the change.
    """
    answers = iter(["stable", "stable", "canary", "never asked"])
    wait(lambda: next(answers), 0, 50)
    assert next(answers) == "never asked"


def test_nothing_is_known_of_the_split_before():
    """
    Then answers that fit are enough, and those that do not are not.
    """
    wait(Gateway(0.0), None, 0)
    with pytest.raises(RoutingError, match=r"(\d+) of \1 answers came from the canary"):
        wait(Gateway(1.0), None, 0, within=0.05)


def test_a_split_that_was_written_before_need_not_be_served():
    """
    A route of that name was there a moment ago, with another split: one answer that fits is not enough.
    """
    gateway = Gateway(lambda asked: 0.0 if asked == 1 or asked > 20 else 1.0)
    wait(gateway, 0, 0)
    assert gateway.asked > 30


def test_a_gateway_of_which_no_version_answers_says_what_came():
    """
    The last status is in the error.
    """

    class Broken:
        last = "status 503"

        def __call__(self):
            return None

    with pytest.raises(RoutingError, match=r"no version answers \(status 503\) in \d+ requests"):
        wait(Broken(), 0, 5, within=0.05)


def test_a_gateway_that_does_not_say_who_answers_is_left_to_the_counts():
    """
    An adopted route sets no header: three such answers are enough to know that, when it had a second to take up the change.
    """
    answers = []
    wait(lambda: answers.append("") or "", 0, 5, each=0.1)
    assert 0.99 < len(answers) * (0.1 + 0.02) < 1.12
    answers.clear()
    wait(lambda: answers.append("") or "", 0, 5, each=0.6)
    assert len(answers) == 3


def test_a_gateway_that_takes_a_minute_to_follow_is_given_it():
    """
    A cloud's load balancer: where no answer says who gave it, the time that was said is waited for.
    """
    answers = []
    wait(lambda: answers.append("") or "", 0, 5, each=0.98, within=90.0, settle=60.0)
    assert 59 < len(answers) < 62
    router = router_class("gateway-api")(Namespace(), Target("digits", 80, {}), url="http://127.0.0.1:1", settle=60.0)
    assert router._patience.within > router._patience.settle == 60.0


@pytest.mark.parametrize("says", ["", "stable", None], ids=["nobody", "stable", "no answer"])
def test_a_wait_that_is_cancelled_is_over_with_the_answer_under_way(says):
    """
    Whatever the gateway answers, and no error.
    """
    answers = []
    wait(lambda: answers.append(says) or says, 0, 5, within=600.0, settle=600.0, cancelled=lambda: len(answers) == 3)
    assert len(answers) == 3


def test_a_route_that_nobody_takes_up_is_not_waited_for_once_that_is_cancelled(monkeypatch):
    """
    Neither until its controller accepts it, nor until it is served: it is written.
    """
    namespace = Namespace()
    made, url = router_class("gateway-api"), "http://127.0.0.1:1"
    router = made(namespace, Target("digits", 80, {}), url=url, gateway="infra/web", settle=600.0)
    for body in router.objects():
        namespace.create(body)
    asked = []
    monkeypatch.setattr(router, "refusal", lambda found, generation: "no controller has accepted it")
    change = router.write(TrafficSplit(25))
    assert not router.confirm(change, cancelled=lambda: asked.append("cancelled") or len(asked) > 2)
    assert router.observed() == TrafficSplit(25)


def test_silence_is_believed_no_later_than_the_time_is_over():
    """
    A deadline of less than that second is kept.
    """
    answers = []
    wait(lambda: answers.append("") or "", 0, 5, each=0.1, within=0.5)
    assert len(answers) == 5


def test_a_slow_gateway_and_a_small_change():
    """
    Where the time is over before a thousand answers, a hundred that do not speak against it are enough; fewer are not.
    """
    gateway = Gateway(0.0)
    wait(gateway, 0, 0.1, within=30, each=0.2)
    assert 150 <= gateway.asked <= 152
    with pytest.raises(RoutingError, match="0 of 61 answers"):
        wait(Gateway(0.0), 0, 0.1, within=30, each=0.5)


def test_a_conflict_is_tried_again_with_what_was_read_anew(monkeypatch):
    """
    A few times, with a pause that grows; then the conflict is told.
    """
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    tries = itertools.count(1)

    def change():
        if (number := next(tries)) < 4:
            raise ConflictError("changed")
        return number

    assert retried(change) == 4
    assert pauses == pytest.approx([0.05, 0.1, 0.15])

    def never():
        raise ConflictError("changed again")

    with pytest.raises(ConflictError, match="changed again"):
        retried(never)
    assert len(pauses) == 3 + 7


def test_what_is_no_conflict_is_not_tried_again():
    """
    Other errors are the caller's.
    """
    tries = []

    def change():
        tries.append(1)
        raise RoutingError("no")

    with pytest.raises(RoutingError):
        retried(change)
    assert len(tries) == 1
