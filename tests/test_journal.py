"""The record of a rollout: complete, private, readable while it is written, safe when the disk is full."""

import json
import shutil
import sqlite3
import stat
from dataclasses import replace

import numpy as np
import pytest

import canarykit as ck
from canarykit.analysis import Judge
from canarykit.errors import JournalError
from canarykit.history import replay
from canarykit.journal import mask
from canarykit.metrics import LATENCY_EDGES
from canarykit.model import Ending

GUARDRAILS = (ck.metrics.error_rate(), ck.metrics.latency(0.95), ck.metrics.accuracy(mde=2.0))


def filled(path, window, windows=10):
    """A journal of some windows."""
    journal = ck.Journal(path)
    journal.begin(
        {"service": "digits", "alpha": 0.05, "dispersion": None, "versions": {"stable": "v1", "canary": "v2"}}, GUARDRAILS
    )
    journal.add_event(0.0, "deploy", "both versions ready")
    journal.add_weight(0.0, 25.0, 0.002, 0.0)
    for at in range(windows):
        made = window(at)
        cells = np.zeros(len(LATENCY_EDGES), dtype=np.int64)
        cells[40] = 7
        instances = {"latency": {"stable-0": cells}, "outcome": {"stable-0": np.array([5, 1])}}
        journal.add_window(replace(made, instances=instances, left_out=2, note="as it was"))
    journal.set_load(1, {"lost": {"refused": 1}, "behind_p99": float("nan")})
    return journal


def same(one, other):
    """Whether two windows are equal, tables and all."""
    plain = [replace(w, counts={}, instances={}) for w in (one, other)]
    tables = [
        {**w.counts, **{(table, name): cells for table, of in w.instances.items() for name, cells in of.items()}}
        for w in (one, other)
    ]
    return plain[0] == plain[1] and all(np.array_equal(tables[0][name], tables[1][name]) for name in tables[0] | tables[1])


def test_what_is_written_is_read(tmp_path, window, rng):
    """
    Windows, weights, events, loads and the ending come back as they were.
    """
    path = tmp_path / "journal.sqlite"
    journal = filled(path, window, windows=0)
    written = [window(at) for at in range(5)]
    for each in written:
        journal.add_window(each)
    journal.end(Ending("promoted", "it is"), 9.0)
    journal.close()
    read = ck.Journal.read(path)
    assert all(same(*pair) for pair in zip(written, read.windows(), strict=True))
    assert read.guardrails == GUARDRAILS
    assert read.weights() == [{"time": 0.0, "asked": 25.0, "before": 0.0, "seconds": 0.002}]
    assert read.events() == [{"time": 0.0, "kind": "deploy", "text": "both versions ready"}]
    assert read.loads() == [{"lost": {"refused": 1}, "behind_p99": None}]
    assert read.ending == Ending("promoted", "it is")


def test_a_journal_in_memory_stays_readable(window):
    """
    Without a path nothing is written to the disk, and closing loses nothing.
    """
    journal = filled(None, window)
    journal.close()
    assert len(list(journal.windows())) == 10


def test_a_journal_is_read_while_it_is_written(tmp_path, window):
    """
    A second reader sees each window as soon as it is there, under the same values.
    """
    path = tmp_path / "journal.sqlite"
    journal = filled(path, window)
    reader = ck.Journal.read(path)
    assert len(list(reader.windows())) == 10
    journal.add_window(window(10))
    assert len(list(reader.windows())) == 11
    assert reader.ending is None


def test_a_closed_journal_is_one_private_file(tmp_path, window):
    """
    Readable by its owner alone, with nothing beside it; it can still be read, and not be written.
    """
    path = tmp_path / "journal.sqlite"
    journal = filled(path, window)
    journal.close()
    journal.close()
    assert [file.name for file in tmp_path.iterdir()] == ["journal.sqlite"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(journal.windows())) == 10
    with pytest.raises(JournalError, match="cannot write"):
        journal.add_window(window(10))


def test_a_journal_records_one_rollout(tmp_path, window):
    """
    An existing file is never written over; a folder that is not there is named.
    """
    path = tmp_path / "journal.sqlite"
    filled(path, window).close()
    with pytest.raises(JournalError, match="exists already"):
        ck.Journal(path)
    with pytest.raises(JournalError, match="cannot write the journal"):
        ck.Journal(tmp_path / "missing" / "journal.sqlite")


def test_what_is_no_journal_is_refused(tmp_path):
    """
    Nothing there, another file, another program's database, an empty journal.
    """
    with pytest.raises(JournalError, match="there is no journal"):
        ck.Journal.read(tmp_path / "missing.sqlite")
    path = tmp_path / "text.sqlite"
    path.write_text("this is not a database, however long it is " * 50)
    with pytest.raises(JournalError, match="cannot read"):
        ck.Journal.read(path)
    other = tmp_path / "other.sqlite"
    sqlite3.connect(other).executescript("CREATE TABLE t (x); PRAGMA user_version = 7").close()
    with pytest.raises(JournalError, match="no journal of this version"):
        ck.Journal.read(other)
    with pytest.raises(JournalError, match="no rollout yet"):
        replay(ck.Journal())


def test_a_full_disk_is_an_error_and_what_was_written_is_safe(tmp_path, window):
    """
    The limit of pages stands for a full disk: the same error of the same library.
    """
    path = tmp_path / "journal.sqlite"
    journal = filled(path, window)
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match="Is the disk full"):
        for at in range(10, 500):
            journal.add_window(window(at))
    kept = len(list(ck.Journal.read(path).windows()))
    assert kept >= 10
    for each in ck.Journal.read(path).windows():
        assert each.counts["outcome"].sum() == 200


def test_a_replay_is_the_live_judgement(window):
    """
    Judged again from the journal, everything is as it was judged live.
    """
    journal, judge = filled(None, window, windows=0), Judge(GUARDRAILS)
    for at in range(60):
        made = window(at, errors=(0.01, 0.04))
        judge.update(made)
        journal.add_window(made)
    history = replay(journal)
    assert repr(history.judgement) == repr(judge.judgement)
    assert history.judgement.alarm is not None
    assert history.polls[-1].log_e == judge.log_e


def test_a_rollout_can_be_judged_again_under_other_margins(window):
    """
    A slowdown of a third fails under the margin it was run with, and passes under a wider one.
    """
    journal = ck.Journal()
    journal.begin({"alpha": 0.05}, [ck.metrics.latency(0.95)])
    for at in range(150):
        journal.add_window(window(at, slower=1.4))
    assert replay(journal).judgement.status == "fail"
    wider = replay(journal, guardrails=[ck.metrics.latency(0.95, tolerate=1.5, margin=2.0)])
    assert wider.judgement.status == "pass"


def test_windows_after_the_end_are_kept_and_not_judged(window):
    """
    After a promotion stable is another version: its windows are drawn nowhere and judged by nobody, but they are there.
    """
    journal = filled(None, window)
    before = replay(journal)
    for at in range(10, 60):
        journal.add_window(replace(window(at, errors=(0.0, 0.9)), judged=False))
    after = replay(journal)
    assert repr(after.judgement) == repr(before.judgement)
    assert after.windows == before.windows + 50


def test_served_shares_are_counted_per_step(window):
    """
    Each change of weight is shown with the share that was really served until the next.
    """
    history = replay(filled(None, window, windows=30))
    (step,) = history.weights
    assert step["requests"] == 30 * 200
    assert step["served"] == pytest.approx(25, abs=3)
    assert history.splits()["in force after"].tolist() == ["2.0 ms"]


def test_levels_over_time_add_up_and_gaps_stay_gaps(window):
    """
    Tidy tables: every request in one bin; a bin with too few requests has no level.
    """
    journal = filled(None, window, windows=0)
    for at in range(100):
        journal.add_window(window(at, weight=25 if at < 50 else 0.5))
    table = replay(journal).levels()
    assert set(table.columns) == {"start", "seconds", "weight", "metric", "version", "requests", "level"}
    assert table[table.metric == "error rate"].requests.sum() == 100 * 200
    few = table[(table.weight == 0.5) & (table.version == "canary") & (table.requests < 30)]
    assert few.level.isna().all()


def test_an_empty_history_has_empty_tables():
    """
    Before the first window all tables are there, without rows.
    """
    journal = ck.Journal()
    journal.begin({"alpha": 0.05}, GUARDRAILS)
    history = replay(journal)
    for table in (history.levels(), history.effects(), history.steps(), history.splits(), history.timeline()):
        assert len(table) == 0
    assert history.judgement.status == "no data"
    assert (history.lost, history.requests) == ({}, (0, 0))


def test_facts_are_plain_json(window):
    """
    Other tools can read the facts: no infinity, no NaN.
    """
    journal = filled(None, window)
    for value in journal.facts.values():
        json.dumps(value, allow_nan=False)


def test_no_password_is_written(tmp_path, window):
    """
    Events, facts, notes, summaries of loads and the ending hold none, whoever wrote the text.
    """
    path, address = tmp_path / "journal.sqlite", "http://me:s3cret@host:9090"
    journal = ck.Journal(path)
    journal.begin({"sources": {"requests": f"{address}: up"}, "options": {"token": "s3cret"}}, GUARDRAILS)
    journal.add_event(0.0, "deploy", f"it is at {address}")
    journal.add_window(replace(window(0), note=f"{address} is away"))
    journal.set_load(1, {"url": address, "lost": {f"{address}": 1}})
    journal.end(Ending("failed", f"cannot reach {address}"), 1.0)
    journal.close()
    assert b"s3cret" not in path.read_bytes()
    read = ck.Journal.read(path)
    assert read.ending.sentence == "cannot reach http://me:***@host:9090"
    assert read.events()[0]["text"] == "it is at http://me:***@host:9090"
    assert read.guardrails == GUARDRAILS


def test_the_environment_of_a_version_is_no_fact(tmp_path):
    """
    What is compared is recorded by names: values of an environment are not.
    """
    path = tmp_path / "journal.sqlite"
    env = {"API_KEY": "s3cret", "LOG_LEVEL": "s3cret"}
    versions = [ck.Version(name, command=["never", "{port}"], env=env) for name in ("v1", "v2")]
    exp = ck.Experiment(ck.Service("digits", *versions, env=env), "simulated", journal=path, notify=lambda line: None)
    exp.deploy()
    exp.abort()
    exp.teardown()
    assert b"s3cret" not in path.read_bytes()


def secret_everywhere(path, window, secret):
    """Write a journal with a secret in each of its texts."""
    journal = ck.Journal(path)
    journal.begin(
        {"sources": {"requests": f"asked with {secret} twice"}, "versions": {"stable": "v1", "canary": "v2"}}, GUARDRAILS
    )
    for number in range(50):
        journal.add_event(float(number), "deploy", f"{number} refused {secret} again")
        journal.add_window(replace(window(number), note=f"refused {secret} again"))
    journal.set_load(1, {"sent": 5, "asked": {"path": f"/{secret}/x"}})
    journal.end(Ending("rolled back", f"it refused {secret}"), 1.0)
    return journal


@pytest.mark.parametrize("closed", [True, False])
def test_no_byte_of_a_masked_journal_holds_a_known_secret(tmp_path, window, closed):
    """
    Neither a table nor a free page nor a file beside it, also when the writer was killed; counts and guardrails are as before.
    """
    path = tmp_path / "a" / "journal.sqlite"
    path.parent.mkdir()
    journal = secret_everywhere(path, window, "k3y-0f")
    if closed:
        journal.close()
    else:  # as a process that is killed leaves it: with all that was written in the file beside it
        killed = tmp_path / "b"
        shutil.copytree(path.parent, killed)
        path = killed / path.name
        assert path.with_name("journal.sqlite-wal").stat().st_size
    reader = ck.Journal.read(path)
    before = replay(reader)
    reader.close()
    mask(path, {"k3y-0f"})
    assert [file.name for file in path.parent.iterdir()] == ["journal.sqlite"]
    assert b"k3y-0f" not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    read = ck.Journal.read(path)
    after = replay(read)
    assert (after.requests, str(after.judgement.verdicts)) == (before.requests, str(before.judgement.verdicts))
    assert (read.events()[7]["text"], read.ending.sentence) == ("7 refused *** again", "it refused ***")
    assert read.facts["sources"] == {"requests": "asked with *** twice"}
    assert read.loads()[0] == {"sent": 5, "asked": {"path": "/***/x"}}


@pytest.mark.parametrize("word", ["canary", "rolled back", "deploy", "sources", "outcome", "latency", "pass", "error rate"])
def test_a_masked_journal_can_be_judged_whatever_the_secret(tmp_path, window, word):
    """
    A secret that is called like a version, an outcome, a kind of event or a guardrail changes sentences only.
    """
    path = tmp_path / "journal.sqlite"
    secret_everywhere(path, window, word).close()
    before = replay(ck.Journal.read(path))
    mask(path, {word})
    after = replay(ck.Journal.read(path))
    assert str(after.judgement.verdicts) == str(before.judgement.verdicts)  # NaN differs from itself
    assert after.facts["versions"] == before.facts["versions"]
    assert (after.ending.outcome, after.ending.sentence) == ("rolled back", "it refused ***")
    assert [event["kind"] for event in after.events] == [event["kind"] for event in before.events]


def test_a_journal_that_somebody_writes_is_not_masked(tmp_path, window):
    """
    It is an error, and what was written is there.
    """
    journal = secret_everywhere(tmp_path / "journal.sqlite", window, "k3y-0f")
    with pytest.raises(JournalError, match=r"cannot mask .*journal\.sqlite: database is locked"):
        mask(journal.path, {"k3y-0f"})
    assert len(journal.events()) == 50
    with pytest.raises(JournalError, match="there is no journal"):
        mask(tmp_path / "none.sqlite", {"k3y-0f"})
