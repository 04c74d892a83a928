"""What a pipeline reads: the verdict as JSON, as JUnit's XML and as Markdown. Pure, from a history."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any
from xml.etree import ElementTree as xml

from canarykit.history import History
from canarykit.masking import masked, masked_values
from canarykit.model import ROLES, SYMBOLS, Ending

__all__ = ["junit", "markdown", "verdict", "without_secrets"]


def verdict(history: History | None, ending: Ending) -> dict[str, Any]:
    """All numbers of a rollout, plain.

    Parameters
    ----------
    history : History or None
        None when the notebook never deployed anything.
    ending : Ending
        How it ended, also when the journal does not know.

    Returns
    -------
    dict
        outcome, sentence, exit_code, requests (per version), lost, lost_by_cause, unsent, sender_overloaded, duration_s,
        simulated, versions, alpha, steps, harm, guardrails. Unknown numbers are null.
    """
    found: dict[str, Any] = {"outcome": ending.outcome, "sentence": ending.sentence, "exit_code": ending.exit_code}
    if history is None:
        return found | {
            "requests": dict.fromkeys(ROLES, 0), "lost": 0, "lost_by_cause": {}, "unsent": 0, "sender_overloaded": False,
            "duration_s": None, "simulated": False, "versions": {}, "alpha": None, "steps": [], "harm": None, "guardrails": [],
        }  # fmt: skip
    return found | {
        "requests": dict(zip(ROLES, history.requests, strict=True)),
        "lost": sum(history.lost.values()),
        "lost_by_cause": history.lost,
        "unsent": history.unsent,
        "sender_overloaded": history.overloaded,
        "duration_s": _number(history.ended - history.began, 3),
        "simulated": history.simulated,
        "versions": history.facts.get("versions", {}),
        "alpha": history.facts.get("alpha"),
        "steps": [
            {
                "asked": change["asked"],
                "served": _number(change["served"], 3),
                "requests": int(change["requests"]),
                "seconds_until_in_force": _number(change["seconds"], 6),
            }
            for change in history.weights
        ],
        "harm": history.facts.get("harm"),
        "guardrails": _guardrails(history),
    }


def without_secrets(found: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return a verdict whose sentences are masked, and whose words are what they were: a secret may be called like one.

    Parameters
    ----------
    found : mapping
        The result of `verdict`.
    known : collection of str
        Secrets that are masked wherever they stand.
    """
    plain: dict[str, Any] = masked_values(found)
    lost: Counter[str] = Counter()  # two causes may be one when they are masked
    for cause, count in found["lost_by_cause"].items():
        lost[masked(cause, known)] += count
    return plain | {
        "sentence": masked(found["sentence"], known),
        "lost_by_cause": dict(lost),
        "guardrails": [guardrail | {"sentence": masked(guardrail["sentence"], known)} for guardrail in plain["guardrails"]],
    }


def _guardrails(history: History) -> list[dict[str, Any]]:
    found = []
    for guardrail, said in zip(history.guardrails, history.judgement.verdicts, strict=True):
        comparison = said.comparison
        found.append(
            {
                "name": said.guardrail,
                "verdict": said.status,
                "sentence": said.sentence,
                "levels": dict(zip(ROLES, map(_number, comparison.levels), strict=True)),
                "counts": {
                    role: {"events": comparison.events[row], "requests": comparison.requests[row]}
                    for row, role in enumerate(ROLES)
                },
                "effect": _number(comparison.effect),
                "interval": [_number(comparison.interval[0]), _number(comparison.interval[1])],
                "log_e": _number(comparison.log_e),
                "log_e_safe": _number(comparison.log_e_safe),
                "alarm_at": comparison.alarm_at,
                "dispersion": {"likely": _number(comparison.likely_dispersion), "of_alarm": comparison.dispersion},
                "tolerate": guardrail.tolerate,
                "margin": guardrail.margin,
                "ceiling": guardrail.ceiling,
                "limit": guardrail.limit,
            }
        )
    return found


def _number(value: float, digits: int = 10) -> float | None:
    """JSON has neither NaN nor infinity: what is unknown or unbounded is null."""
    return round(value, digits) if math.isfinite(value) else None


def junit(found: dict[str, Any], name: str) -> str:
    """Test results for a CI system: the rollout, each guardrail, lost requests.

    Parameters
    ----------
    found : dict
        The result of `verdict`.
    name : str
        Name of the notebook.
    """
    cases: list[tuple[str, str | None, str]] = [("rollout", _failure(found), found["sentence"])]
    for guardrail in found["guardrails"]:
        kind = {"pass": None, "fail": "failure"}.get(guardrail["verdict"], "skipped")
        cases.append((f"guardrail {guardrail['name']}", kind, guardrail["sentence"]))
    lost = ", ".join(f"{count} {cause}" for cause, count in found["lost_by_cause"].items())
    cases.append(("no request lost", "failure" if found["lost"] else None, lost))
    counts = {kind: str(sum(case[1] == kind for case in cases)) for kind in ("failure", "skipped", "error")}
    suite = xml.Element(
        "testsuite",
        {"name": f"canarykit.{name}", "tests": str(len(cases)), "failures": counts["failure"], "errors": counts["error"],
         "skipped": counts["skipped"], "time": str(found["duration_s"] or 0)},
    )  # fmt: skip
    for title, kind, text in cases:
        case = xml.SubElement(suite, "testcase", {"classname": f"canarykit.{name}", "name": title})
        if kind is not None:
            xml.SubElement(case, kind, {"message": _printable(text)})
    xml.indent(suite)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{xml.tostring(suite, encoding="unicode")}\n'


def _failure(found: dict[str, Any]) -> str | None:
    return {"promoted": None, "rolled back": "failure", "failed": "error"}.get(found["outcome"], "skipped")


def _printable(text: str) -> str:
    """XML takes no control characters, and a quoted log may hold some."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)


def markdown(found: dict[str, Any], history: History | None) -> str:
    """Summary for the page of a CI run."""
    outcome = found["outcome"]
    lines = [f"### {SYMBOLS[outcome]} {outcome}", "", found["sentence"].replace("\n", " "), ""]
    if found["simulated"]:
        lines += ["Simulated: nothing here was measured.", ""]
    verdicts = history.judgement.verdicts if history is not None else ()
    if verdicts:
        rows = [[v.guardrail, *v.cells.values(), f"{SYMBOLS[v.status]} {v.status}"] for v in verdicts]
        head = ["guardrail", *verdicts[0].cells, "verdict"]
        lines += [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
        lines += ["", f"{sum(found['requests'].values()):,} requests, {found['lost']:,} lost"]
    return "\n".join(lines) + "\n"
