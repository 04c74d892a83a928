"""CSV files of counts, checked row by row, as arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from canarykit.counts.cumulative import buckets_alone, first_fall, look_cumulative, look_like_totals
from canarykit.errors import PlanError, TelemetryError
from canarykit.metrics import OUTCOME_CELLS
from canarykit.model import ROLES, Counts, Metric

__all__ = ["KINDS", "Kind", "Table", "read_counts", "read_series"]

Kind = Literal["rate", "histogram", "classes", "score"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_COLUMNS = ("window", "version", "cell", "count")
_NOTHING = ("", "nan", "none", "<na>")
_EXTRAPOLATED = (
    " (increase() and rate() of Prometheus extrapolate between scrapes, so that theirs are not: export the counter itself, and "
    "write the last total of each window less the one before)"
)
_AS_THEY_ARE = "; if each counts its own requests alone, say --not-cumulative (in Python cumulative=False)"
_ONE_METRIC = {"rate": "error rate", "histogram": "latency", "classes": "classes", "score": "score"}


@dataclass(frozen=True)
class Table:
    """Counts of one metric.

    Parameters
    ----------
    metric : Metric
        Metric of the table.
    windows : sequence of str
        Names of the windows that have it, in order.
    counts : (windows, 2, cells) int array
        Stable first.
    """

    metric: Metric
    windows: Sequence[str]
    counts: Counts


def read_counts(
    source: Path | pd.DataFrame, kind: Kind = "rate", *, quantile: float = 0.95, cumulative: bool | None = None
) -> tuple[list[Table], dict[str, float]]:
    """Read tidy counts: one row per window, version and outcome cell.

    Parameters
    ----------
    source : Path or DataFrame
        A CSV file, or what it would hold: the columns window, version (stable or canary), cell and count, and optionally
        metric, and weight (percent that the canary was configured to receive). Rows of the same cell add up. A column
        ``le`` in place of cell holds Prometheus' buckets, each of which counts all below it.
    kind : {"rate", "histogram", "classes", "score"}
        Meaning of cells: ``error`` and ``ok``; upper edges of buckets, the last one ``inf``; names; values from 0 to 1.
    quantile : float
        Quantile of a histogram that is judged.
    cumulative : bool, optional
        Whether each bucket of a histogram counts all below it. By default a column ``le`` says so, and counts in a column
        cell that look so are refused. False takes all counts as they are.

    Returns
    -------
    tables : list of Table
        One per metric.
    weights : dict of str to float
        Configured weight of each window, percent; empty without that column.

    Raises
    ------
    TelemetryError
        It is no such table; the message says what is wrong, in which row or window, and what to do.
    """
    if not 0 < quantile < 1:
        raise PlanError(f"the quantile must be between 0 and 1, such as 0.95, not {quantile}")
    frame = _frame(source)
    if kind != "histogram" and (cumulative or "le" in frame.columns):
        raise PlanError(f"only buckets of a histogram are cumulative (the column le): judge it as a histogram, not as {kind}")
    count = _counts(frame)
    cell = _cells(frame, kind)
    order = pd.Index(_in_order(frame["window"]))
    position = pd.Categorical(frame["window"], categories=order).codes
    tables = []
    for name in frame["metric"].unique():
        rows = (frame["metric"] == name).to_numpy()
        table = _table(name, kind, quantile, order, position[rows], frame["version"][rows], cell[rows], count[rows])
        if kind == "histogram":
            table = _alone(table, "le" in frame.columns if cumulative is None else cumulative, sure=cumulative is not None)
        if cumulative is not False and look_like_totals(table.counts):
            raise TelemetryError(
                f"{table.metric.name}: no count ever falls from window to window, so they look like totals of a counter since "
                "its start: write what was added in each window, its last total less the one before"
                f"{_AS_THEY_ARE}"
            )
        tables.append(table)
    return tables, _weights(frame, count)


def _read(source: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except FileNotFoundError:
        raise TelemetryError(f"there is no file {source}") from None
    except pd.errors.EmptyDataError:
        raise TelemetryError(f"{source} is empty: it needs the columns {', '.join(columns)}") from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        raise TelemetryError(f"{source} is not a CSV file that can be read: {error}") from error
    return _checked(frame, columns)


def _checked(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    frame.columns = frame.columns.str.strip()
    missing = [column for column in columns if column not in frame.columns and not (column == "cell" and "le" in frame.columns)]
    if missing:
        raise TelemetryError(
            f"missing: {', '.join(missing)}; the columns must be {', '.join(columns)}, separated by commas, "
            f"and the file has: {', '.join(map(str, frame.columns))[:120]}"
        )
    return frame


def _counts(frame: pd.DataFrame) -> np.ndarray:
    """The column of counts, checked; both versions must have rows."""
    count = _numbers(frame, "count")
    _refuse(frame, count < 0, "count", "counts must be whole numbers, 0 or more")
    _refuse(frame, count != np.floor(count), "count", f"counts must be whole numbers, 0 or more{_EXTRAPOLATED}")
    _refuse(frame, ~frame["version"].isin(ROLES), "version", "a version is stable or canary")
    for role in ROLES:
        if not (frame["version"] == role).any():
            raise TelemetryError(f"there is no row of {role}: a comparison needs both versions")
    return count


def _in_order(windows: pd.Series) -> np.ndarray:
    """Names of the windows: by their numbers where all are numbers, as they come otherwise."""
    names = np.asarray(pd.factorize(windows)[1])
    numbers = pd.to_numeric(pd.Series(names), errors="coerce").to_numpy()
    return names if np.isnan(numbers).any() else np.asarray(names[np.argsort(numbers, kind="stable")])


def _frame(source: Path | pd.DataFrame) -> pd.DataFrame:
    frame = _checked(source.astype(str), _COLUMNS) if isinstance(source, pd.DataFrame) else _read(source, _COLUMNS)
    if frame.empty:
        raise TelemetryError("there are no rows below the header")
    frame = frame.drop(columns="le", errors="ignore") if "cell" in frame.columns else frame.assign(cell=frame["le"])
    if "metric" not in frame.columns:
        frame["metric"] = ""
    for column in (*_COLUMNS, "metric"):
        if column != "metric" or (frame["metric"] != "").any():
            _refuse(frame, frame[column].str.lower().isin(_NOTHING), column, f"{column} is empty or NaN")
    return frame


def _refuse(frame: pd.DataFrame, bad: Any, column: str, rule: str) -> None:
    """Name the first bad row: line 1 of the file is the header."""
    rows = np.flatnonzero(np.asarray(bad))
    if len(rows):
        written = "le" if column == "cell" and "le" in frame.columns else column
        raise TelemetryError(f"line {rows[0] + 2}: {rule}, not {frame[column].iloc[rows[0]]!r} (column {written})")


def _numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    numbers = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=float)
    _refuse(frame, ~np.isfinite(numbers), column, f"{column} must be a number")
    return numbers


def _cells(frame: pd.DataFrame, kind: Kind) -> pd.Series:
    cell = frame["cell"]
    if kind == "rate":
        _refuse(frame, ~cell.isin(OUTCOME_CELLS), "cell", "the cells of a rate are ok and error")
    if kind in ("rate", "classes"):
        return cell
    # Infinity is an edge, and no score.
    numbers = pd.to_numeric(cell.str.replace(r"^\+", "", regex=True), errors="coerce")
    if kind == "histogram":
        _refuse(frame, numbers.isna(), "cell", "the cell of a histogram is its bucket's upper edge, a number or inf")
    else:
        _refuse(frame, ~numbers.between(0, 1), "cell", "the cell of a score is a number from 0 to 1")
    return numbers


def _table(
    name: str,
    kind: Kind,
    quantile: float,
    order: pd.Index,
    window: np.ndarray,
    version: pd.Series,
    cell: pd.Series,
    count: np.ndarray,
) -> Table:
    present = np.unique(window)
    names = list(OUTCOME_CELLS) if kind == "rate" else sorted(cell.unique())
    if len(names) < 2:
        raise TelemetryError(f"{name or _ONE_METRIC[kind]}: a {kind} needs two cells or more, and there is only {names[0]}")
    where = np.searchsorted(present, window)
    which = pd.Categorical(cell, categories=names).codes
    shape = (len(present), len(ROLES), len(names))
    flat = np.ravel_multi_index((where, (version == "canary").to_numpy().astype(int), which), shape)
    counts = np.bincount(flat, weights=count, minlength=math.prod(shape)).astype(np.int64).reshape(shape)
    if kind == "histogram":
        there = np.bincount(np.ravel_multi_index((where, which), shape[::2]), minlength=shape[0] * shape[2]).reshape(shape[::2])
        changed = np.flatnonzero((there == 0).any(axis=1))
        if len(changed):
            lacking = ", ".join(f"{names[i]:g}" for i in np.flatnonzero(there[changed[0]] == 0)[:5])
            raise TelemetryError(
                f"window {order[present[changed[0]]]} has no bucket {lacking}, which other windows have: buckets must not "
                "change midway; where a bucket is empty, write a row with count 0"
            )
    metric = Metric(
        name or _ONE_METRIC[kind],
        name or kind,
        "quantile" if kind == "histogram" else kind,
        tuple(names),
        quantile=quantile if kind == "histogram" else None,
        shown="good" if kind == "score" else "bad",
    )
    return Table(metric, [str(order[i]) for i in present], counts)


def _alone(table: Table, cumulative: bool, *, sure: bool) -> Table:
    """Return a table of buckets that count what they hold alone, above 0.

    An edge of 0 or below holds nothing that lasts: it is merged into the next one.
    """
    edges, counts, fall = table.metric.cells, table.counts, first_fall(table.counts)
    if cumulative:
        if fall is not None:
            window, version, bucket = fall
            lower, upper = counts[window, version, bucket : bucket + 2]
            raise TelemetryError(
                f"window {table.windows[window]}: {lower} requests of {ROLES[version]} up to {edges[bucket]:g}, and only "
                f"{upper} up to {edges[bucket + 1]:g}: buckets that count all below them "
                f"(le) never fall. Is a row missing, or does each hold its own requests alone? Then name the column cell"
            )
        if edges[-1] != math.inf:
            raise TelemetryError(f"there is no bucket +Inf, so requests above {edges[-1]:g} are missing: export it too")
        counts = buckets_alone(counts)
    elif not sure and look_cumulative(counts):
        raise TelemetryError(
            f"{table.metric.name}: the counts never fall along the edges, so they look like Prometheus' "
            "buckets, each of which counts all below it: if they are, name the column le, or say --cumulative (in Python "
            "cumulative=True)"
            f"{_AS_THEY_ARE}"
        )
    below = sum(edge <= 0 for edge in edges)
    if below >= len(edges) - 1:
        raise TelemetryError(f"{table.metric.name}: a histogram needs two buckets above 0 or more, not {edges}")
    merged = np.concatenate([counts[..., : below + 1].sum(axis=2, keepdims=True), counts[..., below + 1 :]], axis=2)
    return replace(table, metric=replace(table.metric, cells=edges[below:]), counts=merged)


def _weights(frame: pd.DataFrame, count: np.ndarray) -> dict[str, float]:
    if "weight" not in frame.columns:
        return {}
    weight = _numbers(frame, "weight")
    _refuse(frame, (weight < 0) | (weight > 100), "weight", "a weight is 0 to 100 percent")
    seen = frame.assign(_weight=weight, _served=np.where(frame["version"] == "canary", count, 0), _count=count)
    groups = seen.groupby("window", sort=False)
    low, high = groups["_weight"].min(), groups["_weight"].max()
    if (low != high).any():
        window = low.index[(low != high).to_numpy()][0]
        raise TelemetryError(
            f"window {window} has weights {low[window]:g} and {high[window]:g}: leave out the window of a change"
        )
    served, total = groups["_served"].sum(), groups["_count"].sum()
    one_sided = ((low == 0) | (low == 100)) & (served > 0) & (served < total)
    if one_sided.any():
        window = low.index[one_sided.to_numpy()][0]
        raise TelemetryError(
            f"window {window} has weight {low[window]:g} and requests of both versions: one of the two is wrong"
        )
    return {str(window): float(value) for window, value in low.items()}


def read_series(source: Path) -> dict[str, list[float]]:
    """Read values per interval, for Kayenta's judge: a CSV file with the columns metric and value.

    Parameters
    ----------
    source : Path
        An empty value, or NaN, is an interval without data. Without a row of a metric there is none of it.

    Raises
    ------
    TelemetryError
        It is no such file.
    """
    frame = _read(source, ("metric", "value"))
    values = pd.to_numeric(frame["value"], errors="coerce")
    _refuse(frame, values.isna() & ~frame["value"].str.lower().isin(_NOTHING), "value", "a value is a number, or empty")
    return {str(name): group.tolist() for name, group in values.groupby(frame["metric"], sort=False)}
