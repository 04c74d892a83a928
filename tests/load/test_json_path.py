"""Where in an answer the value stands that is compared with a label."""

import json

import pytest

from canarykit.errors import PlanError
from canarykit.load.json_path import OPEN_INFERENCE, Missing, parsed, value_at

CHAT = {"choices": [{"message": {"content": "miaow", "a.b": 1}}, {"message": None}], "0": "zero", "": 7, 'q"x': 8, "a\\b": 9}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("choices.0.message.content", "miaow"),
        (r"choices.0.message.a\.b", 1),
        ('choices.0.message."a.b"', 1),
        ('"choices"."0".message.content', "miaow"),
        ("0", "zero"),
        ('""', 7),
        (r'"q\"x"', 8),
        (r"q\"x", 8),
        (r"a\\b", 9),
        (r'"a\\b"', 9),
        (".", CHAT),
    ],
)
def test_paths_lead_to_values(path, value):
    """
    Keys and positions with dots between; dots, quotes and backslashes within keys.
    """
    assert value_at(parsed(path), CHAT) == value


def test_bodies_of_any_kind_have_paths():
    """
    The Open Inference Protocol by default; a list, or a value alone; false and zero are answers.
    """
    assert value_at(parsed(OPEN_INFERENCE), {"outputs": [{"data": [0]}]}) == 0
    assert value_at(parsed("1"), [1, False]) is False
    assert value_at(parsed("."), 3) == 3


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "is a path into the JSON"),
        (None, "is a path into the JSON"),
        (3, "is a path into the JSON"),
        (["label"], "is a path into the JSON"),
        ("a..b", r"from '\.b' on"),
        (".label", r"from '\.label' on"),
        ("label.", "from '' on"),
        ('"label', "from '\"label' on"),
        ('"a"b', "from '\"a\"b' on"),
        ("a\\", r"from '.*' on"),
        ("outputs[0].data[0]", "JSONPath or Python"),
        ("choices[-1].text", "JSONPath or Python"),
        ("choices[*]", "JSONPath or Python"),
        ("body['label']", "JSONPath or Python"),
        ("$.label", "JSONPath or Python"),
    ],
)
def test_what_is_no_path_is_refused(path, says):
    """
    With where it goes wrong, and how paths are written.
    """
    with pytest.raises(PlanError, match=says) as caught:
        parsed(path)
    assert '"choices.0.message.content"' in str(caught.value)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("label", {"outputs": [], "id": 1}, "no answer at 'label': the body has the keys outputs, id"),
        ("label", {}, "no answer at 'label': the body is an object without keys"),
        ("label", [1, 2], "no answer at 'label': the body is a list of 2"),
        ("0", [], "no answer at '0': the body is a list of 0"),
        ("-1", [1], "no answer at '-1': the body is a list of 1"),
        ("99999999999999999999", [1], "the body is a list of 1"),
        ("²", [1], "the body is a list of 1"),
        ("label", "cat", "no answer at 'label': the body is text"),
        ("a.b.c", {"a": {"b": 3}}, "no answer at 'a.b.c': 'a.b' is a number, true or false"),
        ("a.b", {"a": None}, "no answer at 'a.b': 'a' is null"),
        ("label", {"label": None}, "no answer at 'label': null stands there"),
        (".", None, "no answer at '.': null stands there"),
        ('"a.b".c', {"a.b": []}, r"'a\\.b' is a list of 0"),
    ],
)
def test_a_missing_answer_says_what_is_there(path, body, says):
    """
    At the first step that does not go on.
    """
    with pytest.raises(Missing) as caught:
        value_at(parsed(path), body)
    assert says in str(caught.value)


def test_what_is_there_is_said_in_bounded_length():
    """
    Many keys, and long ones with line feeds.
    """
    body = {f"{number}\n" + "x" * 10_000: 1 for number in range(1000)}
    with pytest.raises(Missing) as caught:
        value_at(parsed("label"), json.loads(json.dumps(body)))
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
