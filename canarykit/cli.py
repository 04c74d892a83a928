"""`canarykit` on the command line: thin over the same calls as a notebook."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import click

from canarykit import __version__
from canarykit.errors import CanaryError, PlanError
from canarykit.extras import extra
from canarykit.masking import masked
from canarykit.model import Guardrail, Outcome, Status

__all__ = ["main"]

Kind = Literal["rate", "histogram", "classes", "score"]
Split = Literal["realised", "known", "mirrored"]
KINDS, SPLITS = get_args(Kind), get_args(Split)  # stated here too, so that `--help` need not load numpy
_FILE = click.Path(dir_okay=False, path_type=Path)
_SQLITE = b"SQLite format 3\0"
_STATUS_CODES: dict[Status, int] = {"pass": 0, "fail": 10, "inconclusive": 20, "no data": 30}


class _Group(click.Group):
    """Says what went wrong in a sentence, and exits with 2 for what was asked wrongly and 1 for the rest."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except click.UsageError as error:
            # It quotes what was written.
            raise click.UsageError(masked(error.format_message()), error.ctx) from None
        except CanaryError as error:
            click.echo(masked(f"canarykit: {error}"), err=True)
            context.exit(2 if isinstance(error, PlanError) else 1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Canary deployments of AI services: run a rollout unattended, and judge its record.

    Exit codes: 0 promoted (or pass), 10 rolled back (fail), 20 inconclusive, 30 no data, 1 the tool failed,
    2 wrong usage.
    """


@main.command("report")
@click.argument("notebook", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-p", "--parameter", "parameters", type=(str, str), multiple=True, metavar="NAME VALUE", help="Of the notebook.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the report [build/NOTEBOOK].")
@click.option("--expect", type=click.Choice(get_args(Outcome)), help="Exit with 0 when it ends like this, and 1 otherwise.")
@click.option("--die-with-parent", is_flag=True, help="End, with all that was started, when the calling process does.")
def report_command(
    notebook: Path,
    parameters: Sequence[tuple[str, str]],
    out: Path | None,
    expect: Outcome | None,
    die_with_parent: bool,
) -> None:
    """Run a NOTEBOOK through papermill and leave a folder with report.html, verdict.json, junit.xml and the journal."""
    if die_with_parent:
        _end_with_parent()
    try:
        with extra("notebook"):
            from canarykit.report import report
    except ImportError as error:
        raise click.ClickException(str(error)) from error

    os.umask(0o077)  # what a rollout records is its user's own
    done = report(notebook, out or Path("build") / notebook.stem, dict(parameters))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a") as file:
            file.write(done.summary)
    click.echo(f"\n{done.ending}\nreport: {done.page}")
    if expect is not None:
        if done.ending.outcome != expect:
            click.echo(f"expected it to be {expect}, and it is {done.ending.outcome}", err=True)
        sys.exit(0 if done.ending.outcome == expect else 1)
    sys.exit(done.ending.exit_code)


@main.command("judge")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--kind", type=click.Choice(KINDS), default="rate", show_default=True, help="Of a CSV file: what its cells are.")
@click.option("--quantile", type=float, default=0.95, show_default=True, help="Of histograms: which quantile is judged.")
@click.option(
    "--cumulative/--not-cumulative", default=None, help="Of histograms: each bucket counts all below it [as a column le says]."
)
@click.option("--margin", multiple=True, metavar="[NAME=]RATIO", help="Pass only when shown no worse than this.")
@click.option("--tolerate", multiple=True, metavar="[NAME=]RATIO", help="Fail only when shown worse than this.")
@click.option("--ceiling", multiple=True, metavar="[NAME=]SHARE", help="Of rates: or below this share anyway.")
@click.option("--limit", multiple=True, metavar="[NAME=]SHARE", help="Of rates: above this share stable is no reference [0.1].")
@click.option("--mde", multiple=True, metavar="[NAME=]RATIO", help="The ratio one wants to find: fewer requests.")
@click.option("--alpha", type=float, help="Chance of a false alarm, however often one looks [0.05].")
@click.option("--split", type=click.Choice(SPLITS), default="realised", show_default=True, help="Of a CSV file: whose share.")
@click.option("--dispersion", help="Of a CSV file: how much counts vary beyond chance, or 'estimated' [1].")
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
@click.option("--kayenta", type=_FILE, help="Judge as Kayenta does, by its canary configuration or a request with one.")
@click.option("--stable", type=_FILE, help="With --kayenta: CSV with the columns metric, value.")
@click.option("--canary", type=_FILE, help="With --kayenta: the same of the canary.")
@click.option("--pass", "pass_at", type=float, help="With --kayenta: score from which it passes [as the file says].")
@click.option("--marginal", "marginal_at", type=float, help="With --kayenta: score from which it is marginal.")
@click.option("--tolerance", type=float, default=0.25, show_default=True, help="With --kayenta: share of the shift.")
@click.option("--confidence", type=float, default=0.98, show_default=True, help="With --kayenta: level of the interval.")
def judge_command(
    file: Path | None,
    kind: Kind,
    quantile: float,
    cumulative: bool | None,
    alpha: float | None,
    split: Split,
    dispersion: str | None,
    as_json: bool,
    kayenta: Path | None,
    stable: Path | None,
    canary: Path | None,
    pass_at: float | None,
    marginal_at: float | None,
    tolerance: float,
    confidence: float,
    **changes: Sequence[str],
) -> None:
    """Judge FILE: the journal of a rollout, also while it is written, or a CSV file of counts.

    A CSV file has the columns window, version (stable or canary), cell and count, and optionally metric and weight
    (percent). Cells: of a rate, ok and error; of a histogram, the bucket's upper edge; of classes, names; of a score,
    values from 0 to 1. Prometheus' buckets, each of which counts all below it, are read from a column le in place of cell.
    With --kayenta there is no FILE. Exits with 0 pass, 10 fail, 20 inconclusive, 30 no data.
    """
    if kayenta is not None:
        if file is not None or stable is None or canary is None:
            raise PlanError("--kayenta CONFIG.json goes with --stable A.csv and --canary B.csv, and without a FILE")
        numbers = {"pass_at": pass_at, "marginal_at": marginal_at, "tolerance": tolerance, "confidence": confidence}
        _judge_as_kayenta(kayenta, stable, canary, numbers, as_json)
    elif file is None:
        raise PlanError("say what to judge: the journal of a rollout, a CSV file of counts, or --kayenta CONFIG.json")
    elif file.is_file() and file.open("rb").read(len(_SQLITE)) == _SQLITE:
        _judge_journal(file, changes, alpha, as_json)
    else:
        how = {"alpha": 0.05 if alpha is None else alpha, "split": split, "dispersion": _dispersion(dispersion)}
        _judge_counts(file, kind, quantile, cumulative, changes, how, as_json)


def _judge_journal(file: Path, changes: Mapping[str, Sequence[str]], alpha: float | None, as_json: bool) -> None:
    from canarykit.history import replay
    from canarykit.journal import Journal
    from canarykit.model import Ending
    from canarykit.report.verdict import verdict

    record = Journal.read(file)
    history = replay(record, guardrails=_changed(record.guardrails, changes), alpha=alpha)
    recorded = history.ending or Ending("inconclusive", "the rollout has not ended")
    said = {"verdict": history.judgement.status, "sentence": history.judgement.sentence}
    _say(history.judgement, verdict(history, recorded) | said, history.judgement.status, as_json)


def _judge_counts(
    file: Path,
    kind: Kind,
    quantile: float,
    cumulative: bool | None,
    changes: Mapping[str, Sequence[str]],
    how: Mapping[str, Any],
    as_json: bool,
) -> None:
    from canarykit.counts import judge_counts, read_counts

    tables, weights = read_counts(file, kind, quantile=quantile, cumulative=cumulative)
    defaults: dict[Kind, dict[str, float]] = {
        "rate": {"limit": 0.1},
        "histogram": {"tolerate": 1.2},
        "classes": {"tolerate": 0.0, "margin": 0.05},
        "score": {"tolerate": 0.0, "margin": 0.05},
    }
    guardrails = _changed([Guardrail(table.metric, **defaults[kind]) for table in tables], changes)
    found = judge_counts(tables, guardrails, weights, **how)
    _say(found, found.as_json(), found.judgement.status, as_json)


def _dispersion(text: str | None) -> float | None:
    """A number; None to have it estimated. A file of few windows says too little about it, so that 1 is the default."""
    if text is None:
        return 1.0
    if text == "estimated":
        return None
    try:
        return float(text)
    except ValueError:
        raise PlanError(f"--dispersion takes a number of 1 or more, or estimated, not {text!r}") from None


def _judge_as_kayenta(config: Path, stable: Path, canary: Path, numbers: Mapping[str, Any], as_json: bool) -> None:
    from canarykit.compat import kayenta
    from canarykit.counts import read_series

    try:
        written = config.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"the canary configuration {config} cannot be read: {error}") from error
    series = read_series(stable), read_series(canary)
    found = kayenta.judge(written, *series, **numbers)
    words: dict[str, Status] = {"Pass": "pass", "Marginal": "inconclusive", "Fail": "fail"}
    _say(found, found.as_json(), words[found.classification], as_json)


def _say(found: object, plain: Mapping[str, Any], status: Status, as_json: bool) -> NoReturn:
    click.echo(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) if as_json else str(found))
    sys.exit(_STATUS_CODES[status])


def _changed(guardrails: Sequence[Guardrail], changes: Mapping[str, Sequence[str]]) -> list[Guardrail]:
    """Set numbers of one guardrail (``p95 latency=1.3``), or of all that have them (``1.3``), together."""
    asked: dict[str, dict[str, Any]] = {guardrail.name: {} for guardrail in guardrails}
    for field, written in changes.items():
        for text in written:
            name, _, number = text.rpartition("=")
            try:
                value = float(number)
            except ValueError:
                raise PlanError(f"--{field} takes a number, or NAME=NUMBER, not {text!r}") from None
            if name and name not in asked:
                raise PlanError(f"--{field}: there is no guardrail {name!r}, only {', '.join(asked)}")
            for guardrail in guardrails:
                if guardrail.name == name or (
                    not name and (field not in ("ceiling", "limit") or guardrail.metric.kind == "rate")
                ):
                    asked[guardrail.name][field] = value
    return [replace(guardrail, **asked[guardrail.name]) for guardrail in guardrails]


@main.command("power")
@click.option("--rate", required=True, metavar="N[/s|/min|/h]", help="Requests to both versions together.")
@click.option("--weight", "weights", multiple=True, type=float, help="Percent to the canary; several are compared.")
@click.option("--base", required=True, type=float, help="Stable's share of bad requests: 0.01 is 1 %.")
@click.option("--effect", type=float, help="Ratio of bad requests that is to be found.")
@click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path), help="A plan in YAML: its time, and what bad versions hurt."
)
@click.option("--harm", type=float, metavar="N", help="The same of a plan paced by this budget of harm.")
@click.option("--alpha", type=float, default=0.05, show_default=True, help="Chance of a false alarm.")
@click.option("--scrape-interval", metavar="N[s|min]", help="Time between two scrapes, when counts come from Prometheus.")
@click.option("--prometheus", metavar="URL", help="Read the scrape interval from this Prometheus.")
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
def power_command(
    rate: str,
    weights: Sequence[float],
    base: float,
    effect: float | None,
    plan_file: Path | None,
    harm: float | None,
    alpha: float,
    scrape_interval: str | None,
    prometheus: str | None,
    as_json: bool,
) -> None:
    """Say how many requests, and how long, it takes to find an effect, or to carry out a plan: before a rollout starts."""
    from canarykit.analysis.power import plan
    from canarykit.load.load import per_second
    from canarykit.plan import seconds

    if scrape_interval is not None and prometheus is not None:
        raise click.UsageError("--scrape-interval says what --prometheus would be asked for: give one of them")
    interval = seconds(scrape_interval) if scrape_interval is not None else 0.0
    if prometheus is not None:
        interval = _scrape_interval(prometheus)
    if (effect is None) == (plan_file is None and harm is None):
        raise click.UsageError("give --effect, for what is found at each weight; or --plan or --harm, for a whole rollout")
    if effect is None:
        _forecast(per_second(rate), base, plan_file, harm, interval, as_json=as_json)
        return
    found = plan(per_second(rate), weights or (5.0,), base, effect, alpha=alpha, interval=interval)
    click.echo(json.dumps(found.as_json(), indent=1, allow_nan=False) if as_json else str(found))


def _forecast(rate: float, base: float, file: Path | None, harm: float | None, interval: float, *, as_json: bool) -> None:
    """Say how a plan ends, for a good version and for bad ones."""
    from canarykit.forecast import forecast
    from canarykit.plan import RolloutPlan

    plan = RolloutPlan.paced() if file is None else RolloutPlan.from_yaml(file)
    found = forecast(plan if harm is None else plan.with_harm(harm), rate, base, delay=interval)
    if as_json:
        click.echo(json.dumps([each.as_json() for each in found], indent=1, allow_nan=False))
        return
    click.echo(f"Simulated, {rate:g} requests/s, stable fails {100 * base:g} %. A canary that:")
    for each in found:
        click.echo(f"  {each}")


def _scrape_interval(prometheus: str) -> float:
    """Interval at which a Prometheus scrapes most of its targets, in seconds."""
    from canarykit.telemetry.prometheus_api import PrometheusApi

    interval = PrometheusApi(prometheus).usual_interval()
    if interval is None:
        raise click.ClickException("this Prometheus does not say how often it scrapes: give --scrape-interval instead")
    return interval


def _end_with_parent() -> None:
    """End when the calling process does: at once where the system can do it, else within a fraction of a second."""
    from canarykit.clusters.local.parent_death import die_with_parent

    parent = os.getppid()
    die_with_parent(parent)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, name="canarykit-parent", daemon=True).start()


if __name__ == "__main__":
    main(prog_name="canarykit")
