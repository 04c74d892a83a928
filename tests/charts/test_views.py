"""Pictures that answer one question each, tested by their artists."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import canarykit as ck
from canarykit.charts import (
    confusion,
    distribution,
    draw_confusion,
    draw_distribution,
    draw_family,
    draw_shares,
    draw_timeline,
    evidence,
    shares,
    timeline,
)
from canarykit.charts.style import COLOURS
from canarykit.charts.tables import FAMILY, OTHER, answers_of, decisions_of, durations_of, evidence_of, shares_of
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.history import replay
from canarykit.metrics import CONFUSION

GUARDRAILS = [ck.metrics.error_rate(), ck.metrics.latency(0.95), ck.metrics.accuracy()]
LATENCY = GUARDRAILS[1].metric
VIEWS = {"confusion": confusion, "distribution": distribution, "evidence": evidence, "shares": shares, "timeline": timeline}


def rolled_out(service, scenario, **options):
    """A finished rollout."""
    exp = ck.Experiment(
        service,
        SimulatedCluster(scenario),
        guardrails=GUARDRAILS,
        plan=ck.RolloutPlan.of(5, 25, 50, hold="20s", min_requests=1, budget="2min"),
        notify=lambda line: None,
    )
    exp.deploy()
    exp.send(200, **options)
    exp.observe("10s")
    exp.run()
    return exp.history()


@pytest.fixture
def wrong(service):
    """A rollout of a canary that answers wrongly."""
    return rolled_out(service, "wrong")


@pytest.fixture
def ax():
    """Axes of a figure that nobody shows."""
    return Figure().subplots()


def texts(ax):
    """All that is written on axes."""
    return " | ".join(text.get_text() for text in ax.texts)


def test_durations_are_shares_that_rise_to_all(wrong):
    """
    Of both versions, weighted alike; the requests are those that were counted while both had traffic.
    """
    table = durations_of(wrong, LATENCY)
    for row, role in enumerate(("stable", "canary")):
        rows = table[table.version == role]
        assert rows.share.is_monotonic_increasing
        assert rows.share.iloc[-1] == pytest.approx(1.0)
        together = sum(b.counts["latency"][row].sum() for b in wrong.bins if b.judged and 0 < b.weight < 100)
        assert set(rows.requests) == {together}


def test_stable_is_weighted_as_the_canary_so_that_a_busy_hour_is_no_difference(service, window):
    """
    Slow under one weight for both, and at another weight fast for both: the lines lie on each other.
    """
    journal = ck.Journal()
    journal.begin({"alpha": 0.05}, GUARDRAILS)
    for at in range(20):
        slow = at >= 10
        told = window(at, weight=50.0 if slow else 5.0, requests=2000)
        counts = np.zeros_like(told.counts["latency"])
        counts[:, 200 if slow else 100] = told.counts["outcome"].sum(axis=1)
        told.counts["latency"][:] = counts
        journal.add_window(told)
    table = durations_of(replay(journal), LATENCY).pivot(index="seconds", columns="version", values="share")
    assert 0.05 < table.canary.iloc[150] < 0.15
    np.testing.assert_allclose(table.stable, table.canary, atol=1e-9)


def test_a_distribution_has_both_lines_and_where_they_reach_the_quantile(wrong, ax):
    """
    In their colours, canary dashed, in ms, from 0 to 100 %; each quantile is marked and named.
    """
    table = durations_of(wrong, LATENCY)
    draw_distribution(ax, table, metric=LATENCY)
    lines = {line.get_label(): line for line in ax.lines}
    assert to_hex(lines["stable"].get_color()) == COLOURS["stable"].lower()
    assert lines["stable"].get_linestyle() == "-" != lines["canary"].get_linestyle()
    np.testing.assert_allclose(lines["canary"].get_xdata(), 1000 * table[table.version == "canary"].seconds)
    assert ax.get_ylim()[0] == 0
    assert ax.get_xscale() == "log"
    marks = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "o"]
    assert len(marks) == 2
    for mark, role in zip(marks, ("stable", "canary"), strict=True):
        rows = table[table.version == role]
        assert np.interp(mark / 1000, rows.seconds, rows.share) == pytest.approx(0.95, abs=0.01)
        level = wrong.judgement.verdicts[1].comparison.levels[role == "canary"]
        assert mark / 1000 == pytest.approx(level)
        assert f"{role}: 95 % took at most {mark:.3g} ms" in texts(ax)
    assert ax.get_legend() is None


def test_requests_that_never_end_leave_the_line_below_the_quantile(ax):
    """
    A version that lets one request in ten hang has no 95th percentile, and that is said.
    """
    table = pd.DataFrame({"metric": "p95 latency", "version": "canary", "seconds": [0.1, 0.2], "share": [0.5, 0.9]})
    draw_distribution(ax, table, metric=LATENCY)
    assert "canary: fewer than 95 % ever ended" in texts(ax)
    assert "stable" not in texts(ax)


def test_answers_are_counted_by_label_and_by_what_was_said(wrong):
    """
    Each label's shares add up; wrong answers agree with the guardrail's counts.
    """
    table = answers_of(wrong)
    assert table.groupby(["version", "label"])["share"].sum().to_numpy() == pytest.approx(1)
    wrong_ones = table[table.label != table.said].groupby("version")["requests"].sum()
    comparison = wrong.judgement.verdicts[2].comparison
    assert (wrong_ones["stable"], wrong_ones["canary"]) == comparison.events
    said = shares_of(wrong).set_index(["version", "said"])["requests"]
    assert said["canary"].sum() == comparison.requests[1]
    assert said["canary", 3] == table[(table.version == "canary") & (table.said == 3)].requests.sum()


def test_a_confusion_colours_mistakes_and_writes_every_share(wrong, ax):
    """
    A square of ten by ten; the diagonal has no colour; the title counts what is wrong.
    """
    table = answers_of(wrong)
    draw_confusion(ax, table, version="canary")
    (image,) = ax.images
    data = image.get_array()
    assert data.shape == (10, 10)
    assert np.ma.getmaskarray(data).diagonal().all()
    rows = table[table.version == "canary"].set_index(["label", "said"])
    assert data[8, 1] == pytest.approx(rows.share[8, 1])
    written = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in ax.texts}
    assert written[0, 0] == f"{100 * rows.share[0, 0]:.0f}"
    bad = rows.requests[rows.index.get_level_values(0) != rows.index.get_level_values(1)].sum()
    assert (
        ax.get_title(loc="left") == f"canary: {100 * bad / rows.requests.sum():.3g} % of {rows.requests.sum():,} answers wrong"
    )


def test_what_is_no_class_has_a_column_of_its_own(ax):
    """
    Only where it happens.
    """
    rows = [
        ("canary", label, said, requests, requests / 10)
        for label, counts in (("cat", (9, 0, 1)), ("dog", (2, 8, 0)))
        for said, requests in zip(("cat", "dog", OTHER), counts, strict=True)
    ]
    draw_confusion(ax, pd.DataFrame(rows, columns=["version", "label", "said", "requests", "share"]), version="canary")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog", "other"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]


def test_shares_stand_side_by_side_from_zero(wrong, ax):
    """
    A pair of bars for each class, in the roles' colours, the canary's hatched, named in words.
    """
    table = shares_of(wrong)
    draw_shares(ax, table)
    stable, canary = ax.containers
    assert len(stable) == len(canary) == 10
    assert [bar.get_height() for bar in canary] == pytest.approx(list(100 * table[table.version == "canary"].share[:10]))
    assert (to_hex(stable[0].get_facecolor()), canary[0].get_hatch()) == (COLOURS["stable"].lower(), "////")
    assert ax.get_ylim()[0] == 0
    assert {"stable", "canary"} <= {word.strip(",") for word in texts(ax).split()}


def test_a_share_that_moved_makes_the_title_and_chance_does_not(service, window):
    """
    One class in three goes from a third to a half of 4,000 answers; then none moves.
    """
    for canary, title in (([2000, 1000, 1000], "v2: answers cat 33.4 % → 50 %"), ([1334, 1333, 1333], "no class's share")):
        journal = ck.Journal()
        facts = {"alpha": 0.05, "versions": {"stable": "v1", "canary": "v2"}, "classes": ["cat", "dog", "owl"]}
        journal.begin(facts, GUARDRAILS)
        told = window(0.0, weight=50.0, requests=8000)
        told.counts[CONFUSION] = np.zeros((2, 12), dtype=np.int64)
        told.counts[CONFUSION][:, [0, 5, 10]] = [[1334, 1333, 1333], canary]
        journal.add_window(told)
        assert title in shares(replay(journal)).alt


def test_evidence_of_all_guardrails_is_on_one_pair_of_axes(wrong, ax):
    """
    A line for each, one for all together, and the line of the alarm; who crossed it is seen by more than colour.
    """
    metrics = [guardrail.metric for guardrail in wrong.guardrails]
    table = evidence_of(wrong)
    draw_family(ax, table, metrics=metrics, alarm_at=20)
    lines = {line.get_label(): line for line in ax.lines}
    assert {"error rate", "p95 latency", "accuracy", FAMILY} <= set(lines)
    rows = table[table.metric == "accuracy"]
    np.testing.assert_allclose(lines["accuracy"].get_ydata(), np.exp(np.clip(rows.log_e, np.log(1e-2), np.log(1e4))))
    assert to_hex(lines["accuracy"].get_color()) == COLOURS["canary"].lower()
    assert to_hex(lines["error rate"].get_color()) != COLOURS["canary"].lower()
    assert len({str(line._dash_pattern) for line in ax.lines}) == len(ax.lines)
    assert any(np.allclose(line.get_ydata(), 20) for line in ax.lines)
    assert {"alarm at 20", "accuracy", FAMILY} <= set(texts(ax).split(" | "))


def test_a_timeline_says_what_was_decided_and_no_two_words_overlap(wrong, ax):
    """
    Weights with what was served, and the end; where labels would meet, they stand one above the other.
    """
    decisions = decisions_of(wrong)
    assert decisions.text.iloc[-1] == "✗ rolled back"
    assert decisions.weight.dropna().tolist() == [change["asked"] for change in wrong.weights[:-1]]
    draw_timeline(ax, wrong.steps(), decisions=decisions)
    assert set(ax.lines[0].get_ydata()) == set(wrong.steps().weight)
    assert texts(ax) == " | ".join(decisions.text)
    crowd = pd.DataFrame({"seconds": [1.0, 1.1, 1.2, 1.3], "weight": [5, 25, 50, 100], "text": ["25 %, served 24.9 %"] * 4})
    figure = Figure(figsize=(9, 3))
    other = draw_timeline(figure.subplots(), wrong.steps(), decisions=crowd)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in other.texts]
    assert not any(a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[:number])


@pytest.mark.parametrize("role", ["stable", "canary"])
def test_one_version_alone_is_drawn_alone(wrong, role):
    """
    Nothing is invented for the other.
    """
    other = "canary" if role == "stable" else "stable"
    axes = Figure().subplots(1, 3)
    for ax, table, draw in (
        (axes[0], durations_of(wrong, LATENCY), lambda ax, table: draw_distribution(ax, table, metric=LATENCY)),
        (axes[1], shares_of(wrong), draw_shares),
        (axes[2], answers_of(wrong), lambda ax, table: draw_confusion(ax, table, version=role)),
    ):
        draw(ax, table[table.version == role])
        assert other not in texts(ax) + ax.get_title(loc="left")
    lonely = draw_confusion(Figure().subplots(), answers_of(wrong)[lambda t: t.version == role], version=other)
    assert "no answers with labels" in texts(lonely)


def test_empty_tables_are_said_to_be_empty(wrong, ax):
    """
    No rows: words in place of lines.
    """
    metrics = [guardrail.metric for guardrail in wrong.guardrails]
    for draw, words in (
        (lambda ax: draw_distribution(ax, durations_of(wrong, LATENCY)[:0], metric=LATENCY), "no traffic side by side"),
        (lambda ax: draw_shares(ax, shares_of(wrong)[:0]), "no answers were counted"),
        (lambda ax: draw_confusion(ax, answers_of(wrong)[:0], version="canary"), "no answers with labels"),
        (lambda ax: draw_family(ax, evidence_of(wrong)[:0], metrics=metrics), "no look yet"),
        (lambda ax: draw_timeline(ax, wrong.steps()[:0], decisions=decisions_of(wrong)[:0]), "no weight was ever set"),
    ):
        assert words in texts(draw(Figure().subplots()))


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("confusion", "v2: wrong answers "),
        ("distribution", "v2: p95 latency"),
        ("evidence", "v2: accuracy alarmed after"),
        ("shares", "v2: "),
        ("timeline", "v2 rolled back: it had 5"),
    ],
)
def test_each_view_states_its_finding_and_says_simulated(wrong, name, finding):
    """
    The title is the finding, the alternative text begins with it; simulated is in both, once.
    """
    chart = VIEWS[name](wrong)
    title = " ".join(chart.figure.get_suptitle().split())
    assert title.startswith(finding)
    assert chart.alt.startswith(f"{title}. Simulated: ")
    assert [text.get_text() for text in chart.figure.texts].count("simulated") == 1
    assert len(chart.alt) > 60
    assert chart.png().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", VIEWS)
def test_each_view_of_nothing_is_a_picture_that_says_so(name):
    """
    Before any traffic; and what was really measured is not called simulated.
    """
    journal = ck.Journal()
    journal.begin({"alpha": 0.05, "versions": {"stable": "v1", "canary": "v2"}}, GUARDRAILS)
    chart = VIEWS[name](replay(journal))
    assert chart.png()
    assert "imulated" not in chart.alt
    assert "nan" not in chart.alt


def test_unlabelled_traffic_has_no_confusion_and_says_why(service):
    """
    Counts are missing, not zero.
    """
    history = rolled_out(service, "stable", payloads=[{"body": 1}])
    for view in (confusion, shares):
        assert "no answers were counted by class: the traffic has no labels" in view(history).alt


def test_a_distribution_needs_a_guardrail_of_latency(service):
    """
    Without one, an error says what to add.
    """
    journal = ck.Journal()
    journal.begin({}, GUARDRAILS[:1])
    with pytest.raises(ck.errors.PlanError, match=r"add metrics\.latency\(\)"):
        distribution(replay(journal))
