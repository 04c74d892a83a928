"""Right and wrong answers, a source beside the one that counts the requests."""

from types import SimpleNamespace

import numpy as np
import pytest

from canarykit.model import TrafficSplit, Window
from canarykit.telemetry.labels import LabelledAnswers


def window(**facts):
    """A window with one request of each version."""
    return Window(0.0, 1.0, TrafficSplit(50), **{"counts": {"outcome": np.array([[1, 0], [1, 0]])}, **facts})


def said(*answers):
    """Answers as a sender has them."""
    return [SimpleNamespace(role=role, right=right, sent=float(sent)) for role, right, sent in answers]


def test_only_answers_of_this_weight_with_a_label_and_a_version_count():
    """
    Once labels were seen, their absence is zero.
    """
    labels = LabelledAnswers()
    labels.begin(100.0)
    labels.take(
        said(("stable", True, 101), ("canary", False, 101), ("", True, 101), ("stable", None, 101), ("stable", True, 99))
    )
    assert labels.added_to(window()).counts["answers"].tolist() == [[1, 0], [0, 1]]
    assert labels.added_to(window()).counts["answers"].tolist() == [[0, 0], [0, 0]]


def test_without_labels_there_is_no_table_of_answers():
    """
    Missing labels are missing, not zero, and the note says so.
    """
    labels = LabelledAnswers()
    labels.take(said(("stable", None, 1)))
    added = labels.added_to(window(note="no request reached the gateway"))
    assert "answers" not in added.counts
    assert added.note == "no request reached the gateway; no labels have arrived"
    labels.take(said(("stable", True, 1)))
    assert labels.added_to(window()).note == ""


@pytest.mark.parametrize("empty", [{"waiting": True}, {"counts": {}, "left_out": 9}], ids=["waits", "left out"])
def test_answers_wait_for_a_window_that_has_counts(empty):
    """
    They are in the next one, each once.
    """
    labels = LabelledAnswers()
    labels.take(said(("stable", True, 1)))
    assert "answers" not in labels.added_to(window(**empty)).counts
    labels.take(said(("canary", False, 2)))
    assert labels.added_to(window()).counts["answers"].tolist() == [[1, 0], [0, 1]]


def test_another_weight_begins_anew():
    """
    Answers that were not in a window yet are of the weight before.
    """
    labels = LabelledAnswers()
    labels.take(said(("stable", True, 1)))
    labels.begin(5.0)
    labels.take(said(("stable", True, 4), ("canary", True, 6)))
    assert labels.added_to(window()).counts["answers"].tolist() == [[0, 0], [1, 0]]


def test_a_source_that_counts_answers_itself_is_left_alone():
    """
    As the simulated cluster does.
    """
    counts = {"outcome": np.array([[1, 0], [1, 0]]), "answers": np.array([[5, 0], [5, 1]])}
    assert LabelledAnswers().added_to(window(counts=counts)).counts["answers"].tolist() == [[5, 0], [5, 1]]
