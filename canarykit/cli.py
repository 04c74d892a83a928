"""`canarykit` on the command line: thin over the same calls as a notebook."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click

from canarykit import __version__
from canarykit.errors import CanaryError, PlanError
from canarykit.model import Guardrail, Outcome, Word

__all__ = ["main"]

_WORD_CODES: dict[Word, int] = {"pass": 0, "fail": 10, "inconclusive": 20, "no data": 30}


class _Group(click.Group):
    """Says what went wrong in a sentence, and exits with 2 for what was asked wrongly and 1 for the rest."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except CanaryError as error:
            click.echo(f"canarykit: {error}", err=True)
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
    from canarykit.report import report

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
@click.argument("journal", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--margin", multiple=True, metavar="[GUARDRAIL=]RATIO", help="Promote only when shown no worse than this.")
@click.option("--tolerate", multiple=True, metavar="[GUARDRAIL=]RATIO", help="Alarm only when shown worse than this.")
@click.option("--ceiling", multiple=True, metavar="[GUARDRAIL=]SHARE", help="Of rates: or below this share anyway.")
@click.option("--alpha", type=float, help="Chance of a false alarm, however often one looks.")
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
def judge_command(
    journal: Path,
    margin: Sequence[str],
    tolerate: Sequence[str],
    ceiling: Sequence[str],
    alpha: float | None,
    as_json: bool,
) -> None:
    """Judge the JOURNAL of a rollout again, also while it is written, under its own margins or others."""
    from canarykit.history import replay
    from canarykit.journal import Journal
    from canarykit.model import Ending
    from canarykit.report.verdict import verdict

    record = Journal.read(journal)
    guardrails = list(record.guardrails)
    for field, written in (("margin", margin), ("tolerate", tolerate), ("ceiling", ceiling)):
        for text in written:
            guardrails = _changed(guardrails, field, text)
    history = replay(record, guardrails=guardrails, alpha=alpha)
    judgement = history.judgement
    if as_json:
        recorded = history.ending or Ending("inconclusive", "the rollout has not ended")
        found = verdict(history, recorded) | {"verdict": judgement.word, "sentence": judgement.sentence}
        click.echo(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(str(judgement))
    sys.exit(_WORD_CODES[judgement.word])


def _changed(guardrails: Sequence[Guardrail], field: str, text: str) -> list[Guardrail]:
    """Set a number of one guardrail (``p95 latency=1.3``), or of all that have it (``1.3``)."""
    name, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        raise PlanError(f"--{field} takes a number, or GUARDRAIL=NUMBER, not {text!r}") from None
    changes: dict[str, Any] = {field: value}
    names = [guardrail.name for guardrail in guardrails]
    if name and name not in names:
        raise PlanError(f"--{field}: the journal has no guardrail {name!r}; it has {', '.join(names)}")
    applies = [
        guardrail.name == name if name else field != "ceiling" or guardrail.metric.kind == "rate" for guardrail in guardrails
    ]
    return [replace(g, **changes) if does else g for g, does in zip(guardrails, applies, strict=True)]


def _end_with_parent() -> None:
    """End when the calling process does: at once where the system can do it, else within a fraction of a second."""
    from canarykit.clusters.local.mortal import die_with_parent

    parent = os.getppid()
    die_with_parent(parent)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, name="canarykit-parent", daemon=True).start()


if __name__ == "__main__":
    main(prog_name="canarykit")
