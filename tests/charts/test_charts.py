"""Pictures, tested by their artists."""

import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import canarykit as ck
from canarykit.charts import Chart, compare, draw_effect, draw_evidence, draw_levels, draw_weight
from canarykit.charts.style import COLOURS
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.history import replay

GUARDRAILS = [ck.metrics.error_rate(), ck.metrics.latency(0.95), ck.metrics.accuracy()]


@pytest.fixture
def history(service):
    """A finished rollout of a failing canary."""
    exp = ck.Experiment(
        service,
        SimulatedCluster("failing"),
        guardrails=GUARDRAILS,
        plan=ck.RolloutPlan.of(5, 25, hold="20s"),
        notify=lambda line: None,
    )
    exp.deploy()
    exp.send(100)
    exp.observe("10s")
    exp.run()
    return exp.history()


@pytest.fixture
def ax():
    """Axes of a figure that nobody shows."""
    return Figure().subplots()


def texts(ax):
    """All that is written on axes."""
    return " | ".join(text.get_text() for text in ax.texts)


def test_levels_are_drawn_in_their_roles_colours(history, ax):
    """
    Stable is blue and solid, canary is orange and dashed; each line is labelled at its end; latency is in ms.
    """
    table = history.levels()
    draw_levels(ax, table, metric=GUARDRAILS[1].metric)
    stable, canary = ax.lines
    assert (to_hex(stable.get_color()), to_hex(canary.get_color())) == tuple(c.lower() for c in COLOURS.values())
    assert stable.get_linestyle() == "-"
    assert canary.get_linestyle() != "-"
    rows = table[(table.metric == "p95 latency") & (table.version == "stable")]
    np.testing.assert_allclose(stable.get_ydata(), 1000 * rows.level)
    assert re.search(r"canary \d+", texts(ax))
    assert ax.get_title(loc="left") == "p95 latency, ms"
    assert ax.get_legend() is None


def test_rates_start_at_zero(history, ax):
    """
    A share of bad requests has its zero in the picture.
    """
    draw_levels(ax, history.levels(), metric=GUARDRAILS[0].metric)
    assert ax.get_ylim()[0] == 0


def test_an_empty_table_draws_an_empty_picture(history, ax):
    """
    No rows, or one version only: the axes say so, or show the one.
    """
    table = history.levels()
    draw_levels(ax, table[:0], metric=GUARDRAILS[0].metric)
    assert "nothing was counted" in texts(ax)
    other = Figure().subplots()
    draw_levels(other, table[table.version == "stable"], metric=GUARDRAILS[0].metric)
    assert "canary" not in texts(other)
    for draw in (
        lambda: draw_effect(Figure().subplots(), history.effects()[:0], guardrail=GUARDRAILS[0]),
        lambda: draw_evidence(Figure().subplots(), history.effects()[:0], metric=GUARDRAILS[0].metric),
        lambda: draw_weight(Figure().subplots(), history.steps()[:0]),
    ):
        assert draw() is not None


def test_the_effect_has_its_interval_and_the_lines_that_decide(history, ax):
    """
    A band, a line at "no difference", the margin and what is tolerated.
    """
    draw_effect(ax, history.effects(), guardrail=GUARDRAILS[1])
    assert len(ax.collections) == 1
    heights = {round(float(line.get_ydata()[0]), 3) for line in ax.lines if len(line.get_ydata()) == 2}
    assert {1.0, 1.2, 1.5} <= heights
    assert "no difference" in texts(ax)


def test_evidence_is_drawn_beside_the_line_at_twenty(history, ax):
    """
    Both hypotheses, and the line at which they decide.
    """
    draw_evidence(ax, history.effects(), metric=GUARDRAILS[0].metric)
    assert any(np.allclose(line.get_ydata(), 20) for line in ax.lines)
    assert {"worse", "no worse"} <= {line.get_label() for line in ax.lines}


def test_the_weight_is_drawn_as_steps(history, ax):
    """
    The strip holds every weight that was asked for, and as dots what was served of it.
    """
    steps = history.steps()
    draw_weight(ax, steps)
    assert set(ax.lines[0].get_ydata()) == set(steps.weight)
    asked, served = steps["weight"].to_numpy(), ax.lines[1].get_ydata()
    known = np.isfinite(served)
    assert known.sum() > 3
    assert np.abs(served - asked)[known].mean() < 3


def test_compare_states_its_finding_and_has_a_row_for_each_guardrail(history):
    """
    The title of the whole is the finding; the alternative text has the numbers; simulated is written across.
    """
    chart = compare(history)
    assert len(chart.figure.axes) == 3 * (len(GUARDRAILS) + 1)
    assert "v2 rolled back: error rate" in chart.figure.get_suptitle()
    assert "error rate" in chart.alt
    assert "fail" in chart.alt
    assert chart.alt.count("Simulated") == 1
    assert any(text.get_text() == "simulated" for text in chart.figure.texts)


def test_a_chart_shows_once_with_its_alternative_text():
    """
    HTML with the picture and its alt text, plain text with the sentence, and nothing that shows it a second time.
    """
    chart = Chart(Figure(), 'levels of "stable" & canary')
    bundle = chart._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert 'alt="levels of &quot;stable&quot; &amp; canary"' in bundle["text/html"]
    assert bundle["text/html"].count("<img") == 1
    assert chart.png().startswith(b"\x89PNG")


def test_an_empty_rollout_can_be_drawn(service):
    """
    Before any traffic there is a picture, too.
    """
    journal = ck.Journal()
    journal.begin({"alpha": 0.05, "versions": {"stable": "v1", "canary": "v2"}}, GUARDRAILS)
    chart = compare(replay(journal))
    assert "no data so far" in chart.figure.get_suptitle()
    assert chart.png()


def test_a_picture_is_saved(history, tmp_path):
    """
    In the format that the name says.
    """
    assert compare(history).save(tmp_path / "rollout.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(("scenario", "rows"), [("good", 2), ("refusing", 3)])
def test_refusals_are_drawn_where_there_were_any(simulated, scenario, rows):
    """
    Of the default guardrails those about refusals and denials take a row only when something was refused or denied.
    """
    exp = simulated(scenario)
    exp.shift(50)
    exp.observe("20s")
    chart = compare(exp.history())
    assert len(chart.figure.axes) == 3 * (rows + 1)
    titles = " ".join(ax.get_title(loc="left") for ax in chart.figure.axes)
    assert ("refused requests" in titles) == (scenario == "refusing")
