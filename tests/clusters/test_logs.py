"""What is quoted of a server's log: its own last words, whole, however much was written since."""

import pytest

from canarykit.clusters.local.logs import not_about, tail, those

ASKED = '127.0.0.1 - - [26/Nov/2026 06:00:00] "GET /healthz HTTP/1.1" 503 -\n'


def test_what_a_server_said_is_found_before_any_number_of_our_questions(tmp_path):
    """
    A minute of them is more than 16 KB.
    """
    log = tmp_path / "stable-0.log"
    log.write_text("loading\nno such model\n" + ASKED * 2_000)
    assert those(log, not_about("/healthz"), 60) == ["loading", "no such model"]


def test_only_the_last_lines_are_kept(tmp_path):
    """
    Of a log of any length, and of a line of any length; a line's rest is no line of its own.
    """
    log = tmp_path / "stable-0.log"
    log.write_text("".join(f"line {number}\n" for number in range(5_000)) + "x" * 20_000 + "\nlast")
    *before, long, last = those(log, lambda line: True, 4)
    assert before == ["line 4998", "line 4999"]
    assert last == "last"
    assert set(long) == {"x"}
    assert len(long) <= 4_096
    assert those(tmp_path / "none.log", lambda line: True, 4) == []


def test_a_tail_begins_with_a_whole_line(tmp_path):
    """
    What is read of a long log begins somewhere within a line.
    """
    log = tmp_path / "stable-0.log"
    log.write_text(ASKED * 1_000)
    assert set(tail(log, 10_000).splitlines()) == {ASKED.strip()}
    log.write_text("x" * 20_000)
    assert set(tail(log)) == {"x"}


@pytest.mark.parametrize(
    ("path", "line", "about"),
    [
        ("/", '"GET / HTTP/1.1" 200', True),
        ("/", "GET /", True),
        ("/", '"GET /predict HTTP/1.1" 500', False),
        ("/", "failed: GET /models/v1: no such file", False),
        ("/healthz", '"GET /healthz HTTP/1.1" 503', True),
        ("/healthz", "'GET /healthz'", True),
        ("/healthz", '"GET /healthz?full=1 HTTP/1.1" 503', True),
        ("/healthz", '"GET /healthz/model HTTP/1.1" 500', False),
        ("/a.b", '"GET /a+b HTTP/1.1" 500', False),
        ("/healthz", '"TARGET /healthz HTTP/1.1"', False),
    ],
)
def test_lines_about_the_ready_path_are_those_about_just_that_path(path, line, about):
    """
    With "/" as the ready path, an error about another GET is still quoted.
    """
    assert not_about(path)(line) is not about
