"""Descriptions in docstrings say what a thing is."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "canarykit"
VAGUE = re.compile(r"\s+(Of|As of|As in|What|Beside|Whoever)\b")


def vague(text):
    """Line numbers of descriptions, indented below a name and its type, that begin with a word that names nothing."""
    lines = text.splitlines()
    indents = [len(line) - len(line.lstrip()) for line in lines]
    return [at + 1 for at in range(1, len(lines)) if VAGUE.match(lines[at]) and indents[at] == indents[at - 1] + 4]


def test_a_vague_description_is_found():
    """
    The check itself finds what it is for, and nothing else.
    """
    assert vague("    name : str\n        Of the route.\n    path : str\n        Path of the route.\n") == [2]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_descriptions_name_the_thing(path):
    """
    "Name of the route.", never "Of the route.": no description begins with Of, As of, As in, What, Beside or Whoever.
    """
    assert vague(path.read_text()) == []
