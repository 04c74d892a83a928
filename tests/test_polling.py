"""Waiting: what ends it, and what it returns."""

import time

import pytest

from canarykit.polling import poll


class Answers:
    """Gives its answers one after another, the last one for ever."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    def __call__(self):
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_the_first_true_answer_is_returned():
    """False answers are asked again."""
    answers = Answers(0, None, "up", "later")
    assert poll(answers, within=5, every=0.001) == "up"
    assert answers.asked == 3


def test_the_last_answer_is_returned_when_the_time_is_over():
    """Whoever waits sees what there was instead."""
    answers, begun = Answers(0), time.monotonic()
    assert poll(answers, within=0.05, every=0.001) == 0
    assert time.monotonic() - begun >= 0.05
    assert answers.asked > 2


def test_it_asks_once_more_after_the_time_is_over():
    """A machine that was slow to ask may not have seen what came in time."""
    late = Answers(False, True)
    assert poll(late, within=0.01, every=0.05) is True
    assert poll(Answers(True), within=0, every=1) is True


def test_a_cancelled_wait_ends_at_once():
    """Without another rest."""
    answers, cancelled, begun = Answers(""), Answers(False, True), time.monotonic()
    assert poll(answers, within=60, every=0.001, cancelled=cancelled) == ""
    assert (answers.asked, cancelled.asked) == (2, 2)
    assert time.monotonic() - begun < 30


def test_an_error_ends_the_wait():
    """It is the caller's."""

    def ask():
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        poll(ask, within=60, every=0.001)
