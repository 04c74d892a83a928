"""The README's pictures are there, small, and have words."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_pictures_are_there_with_words():
    """
    Each picture is a file of the repository under 300 kB, and has an alt text that says what it shows.
    """
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert pictures
    for words, path in pictures:
        assert len(words) > 40, path
        assert (ROOT / path).stat().st_size < 300_000, path


def test_notebooks_are_listed():
    """
    The table of notebooks names each.
    """
    text = (ROOT / "README.md").read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in text
