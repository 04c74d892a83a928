"""A rollout that was judged as it ran is not judged again: the record says the same to the last digit."""

from dataclasses import asdict, fields, replace

import numpy as np
import pytest

import canarykit as ck
from canarykit.analysis import Judge
from canarykit.analysis.state import plain
from canarykit.digest import CHUNK, Digest, Poll
from canarykit.history import replay
from canarykit.session.journal_writer import JournalWriter

GUARDRAILS = [ck.metrics.error_rate(), ck.metrics.latency()]


def record(window, number, *, path=None, guardrails=GUARDRAILS):
    """Write a rollout of so many windows at three weights, the last tenth after its end, as an experiment does."""
    journal, judge = ck.Journal(path), Judge(guardrails)
    writer = JournalWriter(journal)
    journal.begin({"alpha": 0.05, "dispersion": None}, guardrails)
    weights = (5, 25, 50)
    for at in range(number):
        made = window(at, weight=weights[3 * at // number], errors=(0.01, 0.02))
        instances = {f"{role}-0": made.counts["latency"][row] for row, role in enumerate(("stable", "canary"))}
        made = replace(made, instances={"latency": instances}, judged=at < 0.9 * number)
        if 3 * at % number < 3:
            journal.add_weight(float(at), weights[3 * at // number], 0.001, 0.0)
        if made.judged:
            judge.update(made)
        writer.window(made, judge)
    return journal


def forget(journal):
    """Remove what was judged: what is left has to be judged again."""
    journal._db.execute("DELETE FROM evidence")
    journal._db.execute("DELETE FROM judged")


def text(history):
    """All of a history, to the last digit."""
    with np.printoptions(threshold=10**9, precision=17, floatmode="unique"):
        return {field.name: repr(getattr(history, field.name)) for field in fields(history)}


@pytest.mark.parametrize("number", [10, CHUNK, CHUNK + 1, 700, 1500])
def test_what_was_judged_is_what_judging_again_says(window, number):
    """
    Verdict, evidence on the way, sums to draw, replicas, served shares: short and long, and between two records.
    """
    journal = record(window, number)
    kept = text(replay(journal))
    forget(journal)
    assert kept == text(replay(journal))


def test_an_experiment_knows_what_its_journal_says(simulated):
    """
    A panel draws what is in memory, a report what is in the file: they are the same.
    """
    exp = simulated(plan=ck.RolloutPlan.of(5, 25, 50, hold="40s", budget="10min"))
    for at in range(90):
        exp.advance()
        exp.cluster.clock.sleep(1)
        if at % 30 == 0:
            assert text(exp.history()) == text(replay(exp.journal))
    exp.run()
    exp.observe("5s")
    assert text(exp.history()) == text(replay(exp.journal))


def test_only_the_last_windows_are_read_again(window, monkeypatch):
    """
    Whatever the length of the rollout.
    """
    journal, judged = record(window, 1000), []
    update = Judge.update
    monkeypatch.setattr(Judge, "update", lambda self, window: judged.append(window) or update(self, window))
    replay(journal)
    assert len(judged) <= CHUNK
    replay(journal, guardrails=[ck.metrics.error_rate(tolerate=1.5, margin=3.0)])
    assert len(judged) >= 900


def test_evidence_of_other_guardrails_is_not_used(window):
    """
    The record says which question it answers: after a change of that it is judged again.
    """
    journal = record(window, 300)
    changed = [ck.metrics.error_rate(margin=2.5), ck.metrics.latency()]
    journal.begin({}, changed)
    kept = text(replay(journal))
    forget(journal)
    assert kept == text(replay(journal))
    assert len(journal.judged()[1]) == 0


def test_guardrails_that_change_under_way_leave_one_record(window):
    """
    Buckets that become known late: the new judge's evidence is kept with its own moments, and with all sums.
    """
    journal, first = ck.Journal(), Judge(GUARDRAILS)
    writer, changed = JournalWriter(journal), [ck.metrics.error_rate(margin=2.5)]
    journal.begin({"alpha": 0.05, "dispersion": None}, GUARDRAILS)
    for at in range(2 * CHUNK):
        first.update(window(at))
        writer.window(window(at), first)
    second = Judge(changed)
    writer.digest.forget_polls()
    journal.begin({}, changed)
    for at in range(2 * CHUNK, 4 * CHUNK):
        second.update(window(at))
        writer.window(window(at), second)
    history = replay(journal)
    assert repr(history.judgement) == repr(second.judgement)
    assert {len(poll.comparisons) for poll in history.polls} == {1}
    assert history.windows == 4 * CHUNK
    assert sum(block.requests[0] + block.requests[1] for block in history.bins) == 4 * CHUNK * 200


def test_whoever_reads_while_it_is_written_sees_one_moment(window, tmp_path):
    """
    News that are newer than the evidence belong to the next look.
    """
    path = tmp_path / "journal.sqlite"
    journal = record(window, 300, path=path)
    reader = ck.Journal.read(path)
    journal._db.execute("INSERT INTO judged VALUES (10000, '{}')")
    window_id, news, _ = reader.judged()
    assert window_id == 4 * CHUNK
    assert len(news) == 4
    assert len(list(reader.windows(window_id))) == 300 - 4 * CHUNK


def test_the_record_of_a_long_rollout_is_short(window):
    """
    A window for a second, and few numbers for an hour: polls and blocks grow with the logarithm, and by 64 windows.
    """
    judge, digest, one = Judge(GUARDRAILS), Digest(), window(0)
    judge.update(one)
    for at in range(10_000):
        digest.add(replace(one, start=float(at), end=at + 1.0), judge)
    assert len(digest.polls) < 150 * 6
    assert len(digest.blocks) < 512 + 10_000 / CHUNK + 2
    assert sum(block.counts["outcome"].sum() for block in digest.blocks) == 10_000 * one.counts["outcome"].sum()


def test_a_poll_is_the_same_after_json(window):
    """
    Also what is infinite, or not known yet.
    """
    judge = Judge(GUARDRAILS)
    judge.update(replace(window(0), counts={"outcome": np.array([[10, 0], [10, 0]]), "latency": window(0).counts["latency"]}))
    poll = Poll(1.5, judge.comparisons, float("-inf"))
    assert repr(Poll.of(plain(asdict(poll)))) == repr(poll)
