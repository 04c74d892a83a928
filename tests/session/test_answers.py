"""Whether the kit's own traffic is any good."""

from dataclasses import dataclass
from typing import Any

import pytest

from canarykit.session.own_answers import OwnAnswers


@dataclass
class Answer:
    """What became of one request."""

    status: int = 200
    role: str = "stable"
    lost: str | None = None
    label: Any = None
    said: Any = None
    unread: str | None = None


def taken(*answers, **asked):
    """Answers, counted."""
    own = OwnAnswers(asked)
    own.take(answers)
    return own


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(404), "20 of 20 requests (20 × refused (404))"),
        (Answer(422), "20 × refused (422)"),
        (Answer(401), "20 × denied (401)"),
        (Answer(429), "20 × denied (429)"),
        (Answer(302), "20 × redirected (302)"),
        (Answer(500), "20 × failed (500)"),
        (Answer(0, role="", lost="refused"), "20 × lost (refused)"),
        (Answer(503, role="", lost="gateway 503"), "20 × lost (gateway 503)"),
    ],
)
def test_traffic_that_stable_does_not_serve_is_told(answer, said):
    """
    Twenty requests that are refused, denied, failed or lost are enough, and the sentence says which.
    """
    assert taken(*[answer] * 19).useless is None
    assert said in taken(*[answer] * 20).useless
    assert "path=" in taken(*[answer] * 20).useless


def test_a_canary_that_refuses_what_stable_accepts_is_no_fault_of_the_traffic():
    """
    That is what guardrails are for.
    """
    own = taken(*[Answer()] * 20, *[Answer(422, role="canary")] * 500)
    assert own.useless is None


def test_advice_names_what_was_given():
    """
    A server that does not decode gzip refuses everything; and nobody who gave a path of the answer left it to the default.
    """
    refused, unread = [Answer(422)] * 20, [Answer(label=3)] * 20
    assert taken(*refused).useless.endswith("Check path=, method=, payloads= and headers= of send()")
    said = taken(*refused, compression="gzip", content_type="image/png").useless
    assert said.endswith("Check path=, method=, payloads=, compression=, content_type= and headers= of send()")
    assert "first value of the first output by default" in taken(*unread).unreadable
    assert taken(*unread, answer="label").unreadable.endswith("is compared with the value at answer='label' of send()")


def test_the_gateways_limit_is_no_matter_of_paths():
    """
    The advice follows the most frequent cause.
    """
    at_limit = Answer(504, lost="gateway 504 at its limit of 15 s")
    assert "set timeout= of the cluster" in taken(*[at_limit] * 20, *[Answer(404)] * 5).useless
    assert "path=" not in taken(*[at_limit] * 20, *[Answer(404)] * 5).useless
    assert "path=" in taken(*[at_limit] * 5, *[Answer(404)] * 20).useless


def test_some_refusals_are_usual():
    """
    Clients send nonsense now and then: only when nearly nothing is served the traffic is no good.
    """
    assert taken(*[Answer(404)] * 80, *[Answer()] * 20).useless is None
    assert "refused (404)" in taken(*[Answer(404)] * 95, *[Answer()] * 5).useless


def test_answers_that_nobody_can_read_are_told():
    """
    A label and no readable answer of either version: accuracy is not known. One that can be read is enough.
    """
    assert taken().unreadable is None
    assert taken(Answer()).unreadable is None
    assert "no answer of either version to 2 labelled requests" in taken(*[Answer(label=3)] * 2).unreadable
    assert taken(Answer(label=3), Answer(role="canary", label=3, said=7)).unreadable is None


NO_LABEL = "no answer at 'label': the body has the keys outputs"


def test_why_answers_cannot_be_read_is_told_once():
    """
    After twenty of a version, with the most frequent reason; not again when there are more, and again for the other version.
    """
    own = taken(*[Answer(label=3, unread=NO_LABEL, role="canary")] * 19, *[Answer(label=3, said=3)] * 40)
    assert own.news() == []
    own.take([Answer(label=3, unread="an answer is no JSON", role="canary")] * 2)
    (said,) = own.news()
    assert said.startswith(f"21 of 21 labelled answers of canary could not be read, and count as wrong ({NO_LABEL})")
    own.take([Answer(label=3, unread=NO_LABEL, role="canary")] * 50)
    assert own.news() == []
    own.take([Answer(label=3, unread=NO_LABEL)] * 20)
    (said,) = own.news()
    assert said.startswith("20 of 60 labelled answers of stable")


def test_answers_of_both_versions_that_cannot_be_read_are_told_as_one():
    """
    They are no accuracy, and no wrong answers either: one sentence, for both.
    """
    own = taken(*[Answer(label=3, unread=NO_LABEL, role=role) for role in ("stable", "canary")] * 20)
    (said,) = own.news()
    assert said == own.unreadable
    assert f"to 40 labelled requests could be read ({NO_LABEL})" in said
    assert own.news() == []


def test_reasons_are_bounded():
    """
    A server whose keys differ in each answer does not fill the memory.
    """
    own = taken(*[Answer(label=3, unread=f"the body has the keys {number}") for number in range(10_000)])
    assert len(own._unread["stable"]) <= 51
    assert "10,000 labelled requests could be read (other reasons)" in own.unreadable
