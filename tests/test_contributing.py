"""CONTRIBUTING.md speaks of files that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
FILES = sorted(set(re.findall(r"`([\w/]+\.(?:py|md|yaml|txt|css))`", PAGE)))
FOLDERS = ("canarykit", "tests", "docs", "benchmarks", "deploy", "notebooks")
EVERY = [path.name for path in ROOT.glob("*.*")]
EVERY += [path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_named_is_there(name):
    """
    Whoever looks for a file by the name that the page gives finds it.
    """
    assert any(path == name or path.endswith(f"/{name}") for path in EVERY), name
