"""Verdicts of whole sessions: sources that are late or tell less, traffic that is refused, endings that tell everything."""

from dataclasses import replace

import pytest

import canarykit as ck
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.clusters.simulated.cluster import _Telemetry
from canarykit.errors import PlanError
from canarykit.load.tally import Answer
from canarykit.model import Window

PLAN = ck.RolloutPlan.of(5, 25, 50, hold=60, interval=1, budget="30min")


class Late(_Telemetry):
    """A source that is read every so many seconds, as a Prometheus is."""

    def __init__(self, cluster, every):
        super().__init__(cluster)
        self._every, self._due = every, 0.0

    @property
    def delay(self):
        return self._every + 1.0

    def begin(self, split, since):
        super().begin(split, since)
        self._due = since + self._every

    def read(self, now):
        if now < self._due:
            return Window(now, now, self._split, {}, note="Prometheus has yet to scrape", waiting=True)
        self._due += self._every
        window = super().read(now)
        return replace(window, counts={name: table for name, table in window.counts.items() if name != "confusion"})


class Blunt(_Telemetry):
    """A source that tells neither refused nor denied requests."""

    tables = frozenset({"outcome", "latency"})

    def read(self, now):
        window = super().read(now)
        return replace(window, counts={name: table for name, table in window.counts.items() if name in self.tables})


@pytest.mark.parametrize("every", [15.0, 30.0, 60.0])
def test_a_default_rollout_is_promoted_whatever_the_interval_of_scrapes(simulated, every):
    """
    Counts that come once a minute are no silence: a good canary is promoted, and between two scrapes nothing is missing.
    """
    cluster = SimulatedCluster("good")
    cluster.telemetry = Late(cluster, every)
    exp = simulated(cluster=cluster)
    assert exp.run(PLAN).outcome == "promoted"


def test_a_source_that_stays_silent_ends_a_rollout_with_its_reason(simulated):
    """
    When the scrape never comes, the rollout ends without data, and says what it waited for.
    """
    cluster = SimulatedCluster("good")
    cluster.telemetry = Late(cluster, 1e9)
    type(cluster.telemetry).delay = property(lambda self: 16.0)
    try:
        ending = simulated(cluster=cluster).run(PLAN)
    finally:
        type(cluster.telemetry).delay = property(lambda self: self._every + 1.0)
    assert ending.outcome == "no data"
    assert "Prometheus has yet to scrape" in ending.sentence


def test_default_guardrails_are_those_that_the_source_can_count(simulated):
    """
    A source that tells no refusals has two guardrails, and it is said; one that was asked for stays, as "no data".
    """
    cluster, lines = SimulatedCluster("good"), []
    cluster.telemetry = Blunt(cluster)
    exp = simulated(cluster=cluster, notify=lines.append)
    assert [guardrail.name for guardrail in exp.guardrails] == ["error rate", "p95 latency"]
    assert any("does not tell refused requests and denied requests" in line for line in lines)
    asked = SimulatedCluster("good")
    asked.telemetry = Blunt(asked)
    exp = simulated(cluster=asked, guardrails=[ck.metrics.refused()])
    exp.shift(50)
    exp.observe("5s")
    assert exp.judge().status == "no data"


def with_answers(exp, status, *, label=None, said=None, lost=None, role="stable", unread=None):
    """Let the simulated traffic have answers of one kind."""
    load = exp.load
    answers = [Answer(f"r-{n}", 1e12, 0.01, 0.0, status, role, None, lost, label, said, unread) for n in range(30)]
    load.answers = lambda: answers


@pytest.mark.parametrize("status", [404, 422, 401])
def test_traffic_that_both_versions_refuse_ends_a_rollout_within_seconds(simulated, status):
    """
    A wrong path, schema or key: said within seconds, as no data; nothing is promoted, whatever the gateway counts.
    """
    lines = []
    exp = simulated(notify=lines.append)
    with_answers(exp, status)
    began = exp.cluster.clock.now()
    ending = exp.run(PLAN)
    assert ending.outcome == "no data"
    assert f"({status})" in ending.sentence
    assert "stable does not serve what the kit sends" in ending.sentence
    assert exp.cluster.clock.now() - began < 10
    # Once as soon as it is known, and once in the ending.
    assert ["no data" in line for line in lines if "does not serve" in line] == [False, True]


def test_answers_that_nobody_can_read_are_no_accuracy(simulated):
    """
    Both versions answer another format than the labels': accuracy is "no data" with the reason, not 0 % and 0 %.
    """
    exp = simulated(guardrails=[ck.metrics.accuracy()])
    with_answers(exp, 200, label=3)
    exp.shift(50)
    exp.observe("20s")
    judgement = exp.judge()
    assert judgement.status == "no data"
    assert "no answer of either version" in judgement.sentence


class Losing(SimulatedCluster):
    """Loses requests of the kit's own traffic, and fails some, while versions are exchanged and after."""

    def promote(self, cancelled):
        super().promote(cancelled)
        self._traffic.record = lambda: {"answered": 10, "lost": {"timed out": 7, "refused": 3}, "lost_total": 10}
        self._behaviour["stable"] = replace(self._behaviour["stable"], errors=0.2)
        return True


def test_an_ending_tells_what_was_lost_in_a_promotion_and_after(simulated, tmp_path):
    """
    Requests lost and failed after the last judgement are in the ending, and in the journal's, which reports read.
    """
    journal = tmp_path / "journal.sqlite"
    exp = simulated(cluster=Losing("good"), journal=journal)
    ending = exp.run(PLAN)
    assert ending.outcome == "promoted"
    assert "10 of the requests that the kit sent were lost (3 refused, 7 timed out)" in ending.sentence
    assert "requests failed during the promotion and after it" in ending.sentence
    assert exp.journal.ending == ending
    assert exp.ending == ending


def test_an_ending_without_losses_says_nothing_of_them(simulated):
    """
    No request lost, none failed: the sentence ends with the verdict.
    """
    ending = simulated().run(PLAN)
    assert ending.outcome == "promoted"
    assert "lost" not in ending.sentence
    assert "after it" not in ending.sentence


def test_the_journal_knows_where_counts_come_from_as_soon_as_the_source_does(simulated):
    """
    What a source learns while it is read, such as a pod that is scraped twice, is recorded then.
    """
    exp = simulated()
    exp.shift(50)
    exp.cluster.telemetry.sources = {"requests": "drawn at random", "scraped twice": "chat-0"}
    exp.observe("2s")
    assert exp.journal.facts["sources"]["scraped twice"] == "chat-0"


def test_labelled_answers_between_two_scrapes_are_not_lost(simulated):
    """
    Answers that come while the source waits are in the confusion of the next window that is kept.
    """
    cluster = SimulatedCluster("good")
    cluster.telemetry = Late(cluster, 15.0)
    exp = simulated(cluster=cluster)
    batches = [[Answer(f"r-{n}", 1e12, 0.01, 0.0, 200, "canary", True, None, 3, 3)] for n in range(40)]
    exp.shift(50)
    exp.load.answers = lambda: batches.pop() if batches else []
    exp.observe("75s")
    counted = sum(int(w.counts["confusion"][1].sum()) for w in exp.journal.windows() if "confusion" in w.counts)
    assert counted == 40


def test_refusals_that_no_guardrail_compares_are_told(simulated):
    """
    Whoever names guardrails of their own reads in the ending that the canary refuses a third of its requests.
    """
    guardrails = [ck.metrics.error_rate(), ck.metrics.latency()]
    ending = simulated("refusing", guardrails=guardrails).run(PLAN)
    assert "requests refused: 0 of" in ending.sentence
    assert "by the canary; no guardrail compares them" in ending.sentence
    compared = simulated("refusing").run(PLAN)
    assert compared.outcome == "rolled back"
    assert "requests refused: " not in compared.sentence


def test_wrong_answers_that_no_guardrail_compares_are_told(simulated):
    """
    Labels are there and nobody asks for accuracy: a canary that is wrong twice as often is told, and a better one is not.
    """
    assert "wrong answers: " in simulated("wrong").run(PLAN).sentence
    assert "wrong answers" not in simulated("good").run(PLAN).sentence
    judged = simulated("wrong", guardrails=[*ck.metrics.default(), ck.metrics.accuracy()]).run(PLAN)
    assert judged.outcome == "rolled back"
    assert "no guardrail compares" not in judged.sentence


@pytest.mark.parametrize("bad", [{"errors": 1.0}, {"refused": 1.0}, {"denied": 1.0}])
def test_versions_that_both_break_late_are_not_promoted(simulated, bad):
    """
    A fault of both that begins after minutes of good service: the total looks fair, and what stable does of late does not.
    """
    cluster = SimulatedCluster("good")
    exp = simulated(cluster=cluster)
    plan = ck.RolloutPlan.of(5, 25, 50, hold=60, budget="5min")
    began, look = cluster.clock.now(), cluster.telemetry.read

    def read(now):
        if now > began + 170:
            for role in ("stable", "canary"):
                cluster._behaviour[role] = replace(cluster._behaviour[role], **bad)
        return look(now)

    cluster.telemetry.read = read
    ending = exp.run(plan)
    assert ending.outcome == "no data", ending
    assert "so it is no reference" in ending.sentence


@pytest.mark.parametrize(
    ("role", "says"),
    [("stable", "no answer of either version to 30 labelled requests could be read"), ("canary", "30 of 30 labelled answers")],
    ids=["both", "the canary"],
)
def test_answers_without_a_value_at_the_path_are_told_once(simulated, role, says):
    """
    The reason is said, and written down, as soon as there are enough of them; a canary's count as wrong beside stable's.
    """
    lines = []
    exp = simulated(notify=lines.append)
    missing = "no answer at 'label': the body has the keys outputs"
    if role == "canary":
        with_answers(exp, 200, label=3, said=3)
        exp.observe("2s")
    with_answers(exp, 200, label=3, role=role, unread=missing)
    exp.observe("5s")
    told = [line for line in lines if missing in line]
    assert len(told) == 1
    assert says in told[0]
    assert sum(missing in event["text"] for event in exp.history().events) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "FETCH"}, "method= is one of"),
        ({"answer": "outputs[0]"}, "answer="),
        ({"compression": "br"}, "compression="),
        ({"timeout": 0}, "a timeout is"),
        ({"path": "http://ai.example.com/"}, "path= is a whole address"),
        ({"payloads": [{"text": "miaow"}]}, 'payload 1 must be an object with "body"'),
    ],
    ids=["method", "answer", "compression", "timeout", "path", "payloads"],
)
def test_a_rehearsal_refuses_what_a_rollout_would(simulated, options, says):
    """
    Options of traffic are checked where nothing is sent, too.
    """
    exp = simulated(rate=0)
    with pytest.raises(PlanError, match=says):
        exp.send(10, **options)
    exp.send(10, method="GET", answer="label", path="/predict", timeout=120, inside=2)
    assert exp.load.classes == ()
