"""Counts from a file, through the command that people type."""

import json
import math
import re

import numpy as np
import pytest
from click.testing import CliRunner

from canarykit.cli import main

EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, math.inf)


def run(*arguments):
    """Run the command; return its exit code, output and errors."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


def judged(*arguments):
    """Its JSON."""
    code, out, err = run("judge", *arguments, "--json")
    assert code in (0, 10, 20, 30), err
    return json.loads(out)


@pytest.fixture
def csv(tmp_path):
    """Write rows below the usual header, or below another."""

    def write(rows, header="window,version,cell,count"):
        path = tmp_path / "counts.csv"
        lines = [row if isinstance(row, str) else ",".join(map(str, row)) for row in rows]
        path.write_text("\n".join([*([header] if header else []), *lines]) + "\n")
        return path

    return write


def rates(windows, stable, canary, *, share=0.2, seed=0, extra=()):
    """Rows of 100 requests a window with two error rates."""
    rng = np.random.default_rng(seed)
    for window in range(windows):
        n = int(rng.binomial(100, share))
        for version, requests, rate in (("stable", 100 - n, stable), ("canary", n, canary)):
            errors = int(rng.binomial(requests, rate))
            yield (window, version, "ok", requests - errors, *extra)
            yield (window, version, "error", errors, *extra)


def cells(windows, draw, seed=0):
    """Rows of any kind: draw(rng, version, requests) gives cell -> count."""
    rng = np.random.default_rng(seed)
    for window in range(windows):
        for version, requests in (("stable", 80), ("canary", 20)):
            for cell, count in draw(rng, version, requests).items():
                yield (window, version, cell, count)


def durations(slow):
    """Draw lognormal durations into Prometheus' classic buckets, the canary's times `slow`."""

    def draw(rng, version, requests):
        values = 0.1 * (slow if version == "canary" else 1) * np.exp(0.6 * rng.standard_normal(requests))
        return dict(zip(EDGES, np.bincount(np.searchsorted(EDGES, values), minlength=len(EDGES)), strict=True))

    return draw


def test_the_published_mixture(csv):
    """
    The numbers of the one formula come out of a file: 7 canary and 20 stable errors at 10 %.
    """
    rows = [
        (1, "canary", "error", 7, 10),
        (1, "canary", "ok", 93, 10),
        (1, "stable", "error", 20, 10),
        (1, "stable", "ok", 880, 10),
    ]
    path = csv(rows, "window,version,cell,count,weight")
    for split in ("known", "realised"):
        found = judged(path, "--split", split)["metrics"]["error rate"]
        assert found["log_e"] == pytest.approx(2.0191092399, abs=1e-9)
        assert found["e"] == pytest.approx(math.exp(2.0191092399))
        assert found["alarm_at"] == pytest.approx(20)
        assert found["counts"] == {"stable": {"events": 20, "requests": 900}, "canary": {"events": 7, "requests": 100}}


def test_a_bad_canary_fails_and_an_equal_one_passes(csv):
    """
    Exit code, word and sentence agree; what is decided needs nothing more.
    """
    code, out, _ = run("judge", csv(rates(200, 0.01, 0.04)))
    assert code == 10 and out.startswith("fail: the canary's error rate is")
    found = judged(csv(rates(1500, 0.01, 0.01)))
    assert found["verdict"] == found["metrics"]["error rate"]["verdict"] == "pass"
    assert found["metrics"]["error rate"]["still_needed"] is None
    low, high = found["metrics"]["error rate"]["interval"]
    assert low < 1 < high < 1.5
    undecided = judged(csv(rates(20, 0.01, 0.01)))["metrics"]["error rate"]
    assert undecided["verdict"] == "inconclusive" and undecided["still_needed"] > 1000


def test_margins_ceilings_and_levels_are_options(csv):
    """
    A wider margin or a ceiling clears sooner; a stated effect and a larger alpha alarm sooner.
    """
    few = csv(rates(150, 0.001, 0.001, share=0.5))
    assert judged(few)["verdict"] == "inconclusive"
    assert judged(few, "--ceiling", 0.005)["verdict"] == "pass"
    worse = csv(rates(60, 0.01, 0.02, share=0.5))
    plain, stated = judged(worse), judged(worse, "--mde", 2)
    assert stated["metrics"]["error rate"]["log_e"] > plain["metrics"]["error rate"]["log_e"]
    assert judged(worse, "--alpha", 0.2)["metrics"]["error rate"]["alarm_at"] == pytest.approx(5)
    assert judged(worse, "--tolerate", 3, "--margin", 5)["metrics"]["error rate"]["log_e"] < 0
    assert run("judge", worse, "--margin", 0.5)[0] == 2


def test_histograms_with_classic_buckets(csv):
    """
    Buckets wider than the tolerated slowdown still tell a slow canary from an equal one.
    """
    slow = judged(csv(cells(150, durations(2.0))), "--kind", "histogram")["metrics"]["latency"]
    assert slow["verdict"] == "fail" and slow["interval"][0] < 2 < slow["interval"][1]
    assert judged(csv(cells(150, durations(1.0))), "--kind", "histogram")["verdict"] == "pass"
    slightly = csv(cells(300, durations(1.1)))
    assert judged(slightly, "--kind", "histogram")["verdict"] != "fail"
    assert judged(slightly, "--kind", "histogram", "--tolerate", 1)["verdict"] == "fail"


def test_classes_and_scores(csv):
    """
    Predictions that shift and scores that fall are failed; equal ones are passed.
    """

    def names(shares):
        return lambda rng, version, n: dict(zip("abc", rng.multinomial(n, shares[version]), strict=True))

    def scores(mean):
        def draw(rng, version, n):
            values = rng.binomial(10, mean[version], n) / 10
            return {level / 10: int((values == level / 10).sum()) for level in range(11)}

        return draw

    equal, moved = (
        {"stable": (0.5, 0.3, 0.2), "canary": (0.5, 0.3, 0.2)},
        {"stable": (0.5, 0.3, 0.2), "canary": (0.3, 0.3, 0.4)},
    )
    assert judged(csv(cells(100, names(moved))), "--kind", "classes")["verdict"] == "fail"
    assert judged(csv(cells(400, names(equal))), "--kind", "classes")["verdict"] == "pass"
    lower = judged(csv(cells(100, scores({"stable": 0.8, "canary": 0.7}))), "--kind", "score")["metrics"]["score"]
    assert lower["verdict"] == "fail" and lower["effect"] < -0.05
    assert judged(csv(cells(300, scores({"stable": 0.8, "canary": 0.8}))), "--kind", "score")["verdict"] == "pass"


def test_several_metrics_in_one_file(csv):
    """
    Each metric has its verdict, and numbers may be set for one of them.
    """
    good, bad = rates(300, 0.01, 0.01, extra=("timeouts",)), rates(300, 0.01, 0.04, seed=1, extra=("errors",))
    path = csv([*good, *bad], "window,version,cell,count,metric")
    found = judged(path)
    assert found["verdict"] == "fail" and "errors" in found["sentence"]
    assert found["metrics"]["errors"]["verdict"] == "fail" and found["metrics"]["timeouts"]["verdict"] != "fail"
    assert judged(path, "--tolerate", "errors=8", "--margin", "errors=9")["verdict"] != "fail"
    code, _, err = run("judge", path, "--margin", "nonsense=2")
    assert code == 2 and "timeouts, errors" in err


def test_mirrored_requests_count_where_one_version_failed(csv):
    """
    Both versions answered the same requests: their labels are a fair coin under "no difference".
    """
    rows = [(1, "stable", "error", 10), (1, "stable", "ok", 490), (1, "canary", "error", 40), (1, "canary", "ok", 460)]
    found = judged(csv(rows), "--split", "mirrored")["metrics"]["error rate"]
    assert found["verdict"] == "fail"
    assert found["effect"] == pytest.approx(4, rel=0.02)


def test_windows_that_compare_nothing_are_counted(csv):
    """
    A window with one idle version is kept, counted and said; it changes no evidence.
    """
    rows = list(rates(100, 0.01, 0.02))
    idle = [(900 + i, "stable", cell, 50) for i in range(3) for cell in ("ok", "error")]
    plain, more = judged(csv(rows)), judged(csv(rows + idle))
    assert (plain["uninformative_windows"], more["uninformative_windows"], more["windows"]) == (0, 3, 103)
    assert plain["metrics"]["error rate"]["log_e"] == more["metrics"]["error rate"]["log_e"]
    assert "3 of 103 windows compare nothing" in run("judge", csv(rows + idle))[1]
    apart = csv([(1, "stable", "ok", 90), (1, "stable", "error", 9), (2, "canary", "ok", 90), (2, "canary", "error", 9)])
    code, out, _ = run("judge", apart)
    assert code == 30 and "in no window did both versions serve: 198 requests compare nothing" in out


def test_rows_may_come_in_any_order_and_add_up(csv):
    """
    Numbered windows are sorted, and rows of the same cell are summed.
    """
    rows = list(rates(60, 0.01, 0.03))
    shuffled = [rows[i] for i in np.random.default_rng(5).permutation(len(rows))]
    halves = [(w, v, c, part) for w, v, c, n in rows for part in (n // 2, n - n // 2)]
    found = [judged(csv(variant)) for variant in (rows, shuffled, halves)]
    assert found[0] == found[1] == found[2]


GOOD = [("1", v, c, 50) for v in ("stable", "canary") for c in ("ok", "error")]


@pytest.mark.parametrize(
    ("rows", "header", "options", "said"),
    [
        ([*GOOD, (2, "stable", "ok", -1)], None, (), "line 6: counts must be whole numbers.*'-1'"),
        ([*GOOD, (2, "stable", "ok", 1.5)], None, (), "line 6: counts must be whole numbers.*'1.5'"),
        ([*GOOD, (2, "stable", "ok", "NaN")], None, (), "line 6: count is empty or NaN"),
        ([*GOOD, (2, "stable", "ok", "inf")], None, (), "line 6: count must be a number"),
        ([*GOOD, (2, "stable", "ok", "many")], None, (), "line 6: count must be a number, not 'many'"),
        ([*GOOD, (2, "stable", "", 3)], None, (), "line 6: cell is empty"),
        (GOOD[:2], None, (), "no row of canary"),
        (GOOD[2:], None, (), "no row of stable"),
        ([*GOOD, (2, "beta", "ok", 3)], None, (), "line 6: a version is stable or canary, not 'beta'"),
        ([*GOOD, (2, "stable", "timeout", 3)], None, (), "line 6: the cells of a rate are ok and error, not 'timeout'"),
        (GOOD, None, ("--kind", "histogram"), "line 2: the cell of a histogram is its bucket's upper edge.*'ok'"),
        (GOOD, None, ("--kind", "score"), "line 2: the cell of a score is a number from 0 to 1"),
        ([(1, v, c, 5) for v in ("stable", "canary") for c in (0.1, "inf")]
         + [(2, v, c, 5) for v in ("stable", "canary") for c in (0.2, "inf")],
         None, ("--kind", "histogram"), "window 1 has no bucket 0.2.*must not change midway"),
        ([(*row, 0) for row in GOOD], "window,version,cell,count,weight", (), "window 1 has weight 0 and requests of both"),
        ([(*row, 100) for row in GOOD], "window,version,cell,count,weight", (), "window 1 has weight 100"),
        ([(*row, 101) for row in GOOD], "window,version,cell,count,weight", (), "0 to 100 percent"),
        ([(*row, i) for i, row in enumerate(GOOD)], "window,version,cell,count,weight", (), "weights 0 and 3"),
        (GOOD, None, ("--split", "known"), "needs the column weight"),
        ([], None, (), "no rows below the header"),
        ([], "", (), "is empty"),
        (["a sentence, and another", "not a table"], "", (), "missing: window, version, cell, count"),
        ([(1, "stable", 5)], "window,version,count", (), "missing: cell"),
        ([(1, "stable", "ok", 1), "1,stable,ok,1,1,1"], None, (), "not a CSV file"),
    ],
)  # fmt: skip
def test_bad_input_is_named(csv, rows, header, options, said):
    """
    The error says what is wrong and where; nothing is judged.
    """
    path = csv(rows, "window,version,cell,count" if header is None else header)
    if header == "" and not rows:
        path.write_text("")
    code, out, err = run("judge", path, *options)
    assert code in (1, 2) and out == ""
    assert "canarykit: " in err and "Traceback" not in err
    assert re.search(said, err), err


def summed(rows):
    """Rows of buckets as Prometheus writes them: each counts all below it, and the last is +Inf."""
    totals = {}
    for window, version, edge, count in rows:
        totals[window, version] = totals.get((window, version), 0) + count
        yield window, version, "+Inf" if edge == math.inf else f"{edge:g}", totals[window, version]


def test_cumulative_buckets_are_asked_about(csv):
    """
    The field's case, a canary that is twice as slow: refused with what to do, and judged rightly either way one does it.
    """
    alone = list(cells(60, durations(2.0)))
    cumulative = list(summed(alone))
    right = judged(csv(alone), "--kind", "histogram")
    assert right["verdict"] == "fail"
    code, out, err = run("judge", csv(cumulative), "--kind", "histogram")
    assert (code, out) == (1, "")
    assert re.search("look like Prometheus' buckets.*name the column le.*--cumulative.*--not-cumulative", err)
    assert judged(csv(cumulative, "window,version,le,count"), "--kind", "histogram") == right
    assert judged(csv(cumulative), "--kind", "histogram", "--cumulative") == right
    taken = judged(csv(cumulative), "--kind", "histogram", "--not-cumulative")["metrics"]["latency"]["counts"]
    assert taken["stable"]["requests"] > 2 * right["metrics"]["latency"]["counts"]["stable"]["requests"]


@pytest.mark.parametrize(("windows", "scale"), [(1, 0.01), (1, 1.0), (2, 8.0), (20, 8.0)])
def test_few_windows_and_fast_or_slow_services_are_asked_about_too(csv, windows, scale):
    """
    Cumulative buckets are known as such in one window, and wherever in them the requests are.
    """

    def draw(rng, version, requests):
        values = scale * np.exp(0.6 * rng.standard_normal(requests * 10))
        return dict(zip(EDGES, np.bincount(np.searchsorted(EDGES, values), minlength=len(EDGES)), strict=True))

    code, _, err = run("judge", csv(summed(cells(windows, draw))), "--kind", "histogram")
    assert code == 1 and "look like Prometheus' buckets" in err


@pytest.mark.parametrize("other", [lambda row: row[1] == "stable", lambda row: row[0] < 20])
def test_files_put_together_from_both_forms_are_asked_about(csv, other):
    """
    One version exported in the one form and one in the other, or some windows: the query was changed midway.
    """
    alone, cumulative = list(cells(60, durations(1.0))), list(summed(cells(60, durations(1.0))))
    rows = [theirs if other(ours) else ours for ours, theirs in zip(alone, cumulative, strict=True)]
    code, _, err = run("judge", csv(rows), "--kind", "histogram")
    assert code == 1 and "look like Prometheus' buckets" in err


def test_few_buckets_are_asked_about_when_the_last_two_are_equal(csv):
    """
    Three edges of a FastAPI service, in many windows: real buckets alone would differ.
    """
    edges = (0.1, 0.5, 1, math.inf)

    def draw(rng, version, requests):
        values = 0.1 * np.exp(0.6 * rng.standard_normal(requests))
        return dict(zip(edges, np.bincount(np.searchsorted(edges, values), minlength=len(edges)), strict=True))

    code, _, err = run("judge", csv(summed(cells(20, draw))), "--kind", "histogram")
    assert code == 1 and "look like Prometheus' buckets" in err


@pytest.mark.parametrize(
    "row",
    [
        {0.1: 2, 0.5: 10, 1: 20, math.inf: 68},  # few edges, and a service that is slower than all of them
        dict.fromkeys(EDGES, 0) | {10: 400, math.inf: 600},  # most requests beyond the last edge
        dict.fromkeys(EDGES, 0) | {0.1: 1, 0.25: 1, 0.5: 2},  # one request here and there
        dict.fromkeys(EDGES, 0) | {math.inf: 30},  # nothing but timeouts: the same in both ways of counting
        dict.fromkeys(EDGES, 0) | {0.5: 5, 1: 10, 2.5: 20, 5: 40, 10: 80},  # exponential edges below the slowest
    ],
)
def test_buckets_that_count_alone_are_not_asked_about(csv, row):
    """
    Few edges, small counts and slow services rise along the edges, too, and are no sums.
    """
    rows = [(window, version, *cell) for window in range(20) for version in ("stable", "canary") for cell in row.items()]
    assert run("judge", csv(rows), "--kind", "histogram")[0] in (0, 10, 20, 30)


@pytest.mark.parametrize("infinity", ["inf", "+Inf", "Inf", "+inf", "Infinity", "+Infinity", "INF"])
def test_infinity_has_many_names(csv, infinity):
    """
    Those of Prometheus, Python and Grafana are the same edge, also within one file.
    """
    rows = list(cells(20, durations(1.0)))
    named = [(w, v, infinity if e == math.inf and w % 2 else e, n) for w, v, e, n in rows]
    assert judged(csv(named), "--kind", "histogram") == judged(csv(rows), "--kind", "histogram")


@pytest.mark.parametrize("edges", [["0.0"], ["0"], ["-1", "0"], ["-Inf", "0"], ["-0.5"]])
@pytest.mark.parametrize("header", ["cell", "le"])
def test_an_edge_of_zero_is_merged_into_the_next(csv, edges, header):
    """
    The field's case, OpenTelemetry's first boundary, and negative ones: nothing lasts that long, and the verdict is the same.
    """
    rows = list(cells(40, durations(2.0)))
    made = summed(rows) if header == "le" else rows
    zeros = [(w, v, edge, 0) for w in range(40) for v in ("stable", "canary") for edge in edges]
    header = f"window,version,{header},count"
    found = judged(csv([*zeros, *made], header), "--kind", "histogram")
    assert found == judged(csv(rows), "--kind", "histogram")


def test_what_was_counted_at_zero_is_not_lost(csv):
    """
    A duration of 0 s is in the first bucket above.
    """
    rows = list(cells(40, durations(1.0)))
    first = EDGES[0]
    at_zero = [(w, v, edge, n + 3 if edge == first else n) for w, v, edge, n in rows]
    apart = [*rows, *((w, v, "0.0", 3) for w in range(40) for v in ("stable", "canary"))]
    assert judged(csv(apart), "--kind", "histogram") == judged(csv(at_zero), "--kind", "histogram")


BUCKETS = [(1, v, e, n) for v in ("stable", "canary") for e, n in ((0.1, 5), (0.5, 9), (1, 9), ("+Inf", 12))]


@pytest.mark.parametrize(
    ("rows", "column", "options", "said"),
    [
        ([*BUCKETS, (1, "canary", 0.5, -6)], "le", (), "line 10: counts must be whole numbers"),
        ([row if row[2] != 0.5 or row[1] == "stable" else (*row[:3], 4) for row in BUCKETS], "le", (),
         "window 1: 5 requests of canary up to 0.1, and only 4 up to 0.5: .*never fall"),
        ([row for row in BUCKETS if row[1:3] != ("canary", 1)], "le", (), "9 requests of canary up to 0.5, and only 0 up to 1"),
        ([row for row in BUCKETS if row[2] != "+Inf"], "le", (), r"no bucket \+Inf, so requests above 1 are missing"),
        ([row for row in BUCKETS if row[2] != "+Inf"], "cell", ("--cumulative",), r"no bucket \+Inf"),
        (BUCKETS, "le", ("--kind", "rate"), "judge it as a histogram, not as rate"),
        (GOOD, "cell", ("--kind", "rate", "--cumulative"), "judge it as a histogram, not as rate"),
        ([(*row[:2], "fast", row[3]) for row in BUCKETS], "le", (), r"line 2: .*not 'fast' \(column le\)"),
        ([*BUCKETS, (2, "stable", 0.1, 17.03)], "le", (), r"line 10: .*increase\(\) .* extrapolate.*not '17.03'"),
        ([(1, v, e, 5) for v in ("stable", "canary") for e in (-1, 0, "inf")], "cell", (), "needs two buckets above 0"),
    ],
)  # fmt: skip
def test_bad_buckets_are_named(csv, rows, column, options, said):
    """
    What falls, what is missing, what Prometheus has extrapolated: where, and what to do.
    """
    code, out, err = run("judge", csv(rows, f"window,version,{column},count"), "--kind", "histogram", *options)
    assert code in (1, 2) and out == ""
    assert re.search(said, err), err


def test_totals_since_the_start_of_a_server_are_asked_about(csv):
    """
    Raw counters, which never fall, would count each request once in every window after it.
    """
    totals, rows = {}, []
    for window, version, cell, count in rates(30, 0.05, 0.05):
        totals[version, cell] = totals.get((version, cell), 0) + count
        rows.append((window, version, cell, totals[version, cell]))
    code, out, err = run("judge", csv(rows))
    assert (code, out) == (1, "")
    assert "look like totals of a counter since its start" in err
    assert judged(csv(rows), "--not-cumulative")["windows"] == 30
    buckets, totals = [], {}
    for window, version, edge, count in summed(cells(30, durations(1.0))):
        totals[version, edge] = totals.get((version, edge), 0) + count
        buckets.append((window, version, edge, totals[version, edge]))
    code, _, err = run("judge", csv(buckets, "window,version,le,count"), "--kind", "histogram")
    assert code == 1 and "totals of a counter" in err


@pytest.mark.parametrize(
    "counts",
    [
        [100] * 40,  # an example that somebody wrote by hand
        [10 * (window + 1) for window in range(8)],  # a rollout that is given more and more traffic
        [100 + 7 * (window % 5) for window in range(40)],
    ],
)
def test_windows_that_count_alone_are_not_asked_about(csv, counts):
    """
    Equal windows, a few that rise, and ups and downs are no totals.
    """
    rows = [(w, v, c, n) for w, n in enumerate(counts) for v in ("stable", "canary") for c in ("ok", "error")]
    assert run("judge", csv(rows))[0] in (0, 10, 20, 30)


def test_a_binary_file_is_no_counts(tmp_path):
    """
    A file of bytes is refused in a sentence.
    """
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(range(256)) * 20)
    code, _, err = run("judge", path)
    assert code == 1 and "canarykit: " in err


def test_kayenta_on_the_command_line(tmp_path):
    """
    A configuration and two files of series give Kayenta's verdict, in words and as JSON.
    """
    config = {
        "metrics": [
            {"name": "latency", "groups": ["speed"], "analysisConfigurations": {"canary": {"direction": "increase"}}},
            {"name": "errors", "groups": ["errors"], "analysisConfigurations": {"canary": {"nanStrategy": "replace"}}},
        ],
        "classifier": {"groupWeights": {"speed": 60}, "scoreThresholds": {"pass": 75, "marginal": 50}},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name, shift in (("stable", 0), ("canary", 50)):
        rows = [f"latency,{100 + i + shift}" for i in range(20)] + ["errors,", "errors,NaN"]
        (tmp_path / f"{name}.csv").write_text("\n".join(["metric,value", *rows]))
    files = ("--kayenta", tmp_path / "config.json", "--stable", tmp_path / "stable.csv", "--canary", tmp_path / "canary.csv")
    found = judged(*files)
    assert found["metrics"]["latency"] | {"reason": ""} == {"classification": "High", "critical": False, "reason": ""}
    assert found["groups"] == {"speed": {"score": 0.0}, "errors": {"score": 100.0}}
    assert (found["score"], found["classification"]) == (40.0, "Fail")
    code, out, _ = run("judge", *files)
    assert code == 10 and out.startswith("Fail: score 40")
    assert judged(*files, "--tolerance", 2)["classification"] == "Pass"
    assert run("judge", *files[:4])[0] == 2
    assert run("judge")[0] == 2
    (tmp_path / "stable.csv").write_text("metric,value\nlatency,fast\n")
    code, _, err = run("judge", *files)
    assert code == 1 and "line 2: a value is a number, or empty" in err


def test_kayentas_thresholds_may_stand_beside_its_configuration(tmp_path):
    """
    In a request, as JSON or YAML, or on the command line, which wins; nowhere, they are asked for.
    """
    metrics = "metrics:\n- {name: latency, groups: [speed]}\n- {name: errors, groups: [errors]}\n"
    classifier = "classifier: {groupWeights: {speed: 30}}\n"
    (tmp_path / "config.yaml").write_text(metrics + classifier)
    config = {"metrics": [{"name": "latency", "groups": ["speed"]}, {"name": "errors", "groups": ["errors"]}]}
    request = {"canaryConfig": config | {"classifier": {"groupWeights": {"speed": 30}}}}
    request["executionRequest"] = {"thresholds": {"pass": 95, "marginal": 75}}
    (tmp_path / "request.json").write_text(json.dumps(request))
    for name, shift in (("stable", 0), ("canary", 50)):
        rows = [f"latency,{100 + i + shift}" for i in range(20)] + [f"errors,{i % 2}" for i in range(20)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["metric,value", *rows]))
    series = ("--stable", tmp_path / "stable.csv", "--canary", tmp_path / "canary.csv")
    assert judged("--kayenta", tmp_path / "request.json", *series)["classification"] == "Fail"
    assert run("judge", "--kayenta", tmp_path / "request.json", *series, "--pass", 70)[0] == 2  # below the marginal one
    assert (
        judged("--kayenta", tmp_path / "request.json", *series, "--pass", 80, "--marginal", 60)["classification"] == "Marginal"
    )
    assert judged("--kayenta", tmp_path / "config.yaml", *series, "--pass", 70, "--marginal", 60)["classification"] == "Pass"
    code, out, err = run("judge", "--kayenta", tmp_path / "config.yaml", *series)
    assert (code, out) == (2, "")
    assert "say it with --pass and --marginal" in err


@pytest.mark.parametrize(
    ("rules", "rows", "word", "classification", "code"),
    [
        ({}, [], "Nodata", "Fail", 10),  # half of the metrics are silent
        ({}, ["latency,5"], "Nodata", "Fail", 10),
        ({"mustHaveData": True}, ["latency,5"], "NodataFailMetric", "Fail", 10),
        ({"critical": True}, ["latency,5"], "Nodata", "Fail", 10),
        ({"nanStrategy": "replace"}, ["latency,5"], "Pass", "Pass", 0),
        ({"nanStrategy": "remove"}, ["latency,5", "errors,"], "Nodata", "Fail", 10),
    ],
)
def test_a_version_without_rows_is_kayentas_nodata(tmp_path, rules, rows, word, classification, code):
    """
    Of one metric or of all: its rules for silence decide, and nothing is an error.
    """
    metrics = [{"name": "latency", "groups": ["a"]}, {"name": "errors", "groups": ["b"]}]
    metrics[1]["analysisConfigurations"] = {"canary": rules}
    (tmp_path / "config.json").write_text(json.dumps({"metrics": metrics, "classifier": {"groupWeights": {"a": 50}}}))
    (tmp_path / "stable.csv").write_text("metric,value\nlatency,5\nerrors,1\nerrors,2\n")
    (tmp_path / "canary.csv").write_text("\n".join(["metric,value", *rows]) + "\n")
    files = ("--kayenta", tmp_path / "config.json", "--stable", tmp_path / "stable.csv", "--canary", tmp_path / "canary.csv")
    found = judged(*files, "--pass", 95, "--marginal", 75)
    assert found["metrics"]["errors"]["classification"] == word
    assert found["classification"] == classification
    assert run("judge", *files, "--pass", 95, "--marginal", 75)[0] == code


def test_power_on_the_command_line():
    """
    The plan says requests and time at each weight, at the best one and mirrored; nonsense is refused.
    """
    code, out, _ = run("power", "--rate", "2/s", "--weight", 5, "--base", 0.01, "--effect", 2)
    assert code == 0 and "at 5 %: about 20,000 requests, 2.7 h" in out and "mirrored" in out
    found = json.loads(run("power", "--rate", "120/min", "--weight", 20, "--base", 0.01, "--effect", 2, "--json")[1])
    assert found["steps"][0]["requests"] == pytest.approx(1.2 * 5053.157, rel=1e-6)
    assert found["steps"][0]["seconds"] == pytest.approx(0.6 * 5053.157, rel=1e-6)
    assert found["soonest"]["seconds"] < found["steps"][0]["seconds"]
    for bad in (("--rate", "fast"), ("--rate", "0/s"), ("--weight", 0), ("--base", 2), ("--effect", 1)):
        options = {"--rate": "2/s", "--weight": 5, "--base": 0.01, "--effect": 2} | dict([bad])
        code, _, err = run("power", *[part for option in options.items() for part in option])
        assert code == 2 and err.startswith("canarykit: ")


def test_dispersion_and_limit_are_options(csv):
    """
    Evidence of a file is taken to the power of 1/φ when φ is said or estimated; a broken stable is no reference.
    """
    worse = csv(rates(60, 0.01, 0.02, share=0.5))
    plain, halved = judged(worse), judged(worse, "--dispersion", 2)
    assert halved["metrics"]["error rate"]["log_e"] == pytest.approx(plain["metrics"]["error rate"]["log_e"] / 2)
    estimated = judged(worse, "--dispersion", "estimated")
    assert 0 < estimated["metrics"]["error rate"]["log_e"] <= plain["metrics"]["error rate"]["log_e"]
    assert run("judge", worse, "--dispersion", "much")[0] == 2
    broken = csv(rates(300, 0.4, 0.4, share=0.5))
    found = judged(broken)
    assert found["verdict"] == "no data"
    assert "stable is bad in 4" in found["sentence"]
    assert judged(broken, "--limit", 0.6)["verdict"] == "pass"
