"""The report as a page: from disk, with no network, for everyone, on a telephone and on paper."""

import json
import os
import subprocess
import sys
from typing import get_args

import pytest
from axe import violations
from lab import NOTEBOOKS

from canarykit.model import Outcome
from canarykit.report.page import page as page_of

pytestmark = [pytest.mark.real("browser"), pytest.mark.real("jupyter")]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Folder of a report; simulated, because its page is laid out like any other.

    Made in a process of its own: Playwright keeps ours from running a loop.
    """
    folder = tmp_path_factory.mktemp("report")
    command = [sys.executable, "-m", "canarykit.cli", "report", str(NOTEBOOKS / "rollout-report.ipynb"), "--die-with-parent"]
    subprocess.run([*command, "-p", "where", "simulated", "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture
def opened(page, context, report):
    """The page, opened from disk with no network at all."""
    context.set_offline(True)
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    page.goto((report / "report.html").as_uri())
    page.wait_for_load_state("networkidle")
    yield page
    context.set_offline(False)
    assert [url for url in sent if not url.startswith("data:")] == [(report / "report.html").as_uri()]


def test_the_verdict_is_read_first(opened, picture):
    """
    Opened from disk, with no network: the verdict is on the first screen, and nothing is asked for.
    """
    opened.set_viewport_size({"width": 1280, "height": 800})
    picture("report-1280")
    verdict = opened.get_by_role("region", name="Verdict")
    assert "promoted" in verdict.inner_text()
    assert verdict.bounding_box()["y"] < 200
    assert opened.get_by_text("requests lost").bounding_box()["y"] < 800


def test_every_picture_has_words(opened):
    """
    Each image is loaded, and says in words what it shows.
    """
    images = opened.locator("img").all()
    assert images
    for image in images:
        assert len(image.get_attribute("alt")) > 40
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")


@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_its_window(opened, width, picture):
    """
    No line and no table makes the page wider than the window; what is wider scrolls in a place of its own.
    """
    opened.set_viewport_size({"width": width, "height": 900})
    picture(f"report-fits-{width}")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    image = opened.locator("img").first
    assert image.bounding_box()["width"] >= min(width, 680), "too small to be read"


@pytest.mark.parametrize("width", [1280, 400])
def test_axe_finds_nothing(opened, width):
    """
    Labels, contrast, headings, keyboard: no violation.
    """
    opened.set_viewport_size({"width": width, "height": 900})
    assert violations(opened) == ""


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_axe_finds_nothing_however_it_ended(page, report, tmp_path, outcome):
    """
    The colours of every outcome can be read.
    """
    found = json.loads((report / "verdict.json").read_text())
    changed = tmp_path / "report.html"
    changed.write_text(page_of(report / "rollout-report.ipynb", found | {"outcome": outcome, "sentence": "so\nit ended"}))
    page.goto(changed.as_uri())
    assert outcome in page.get_by_role("region", name="Verdict").inner_text()
    assert violations(page) == ""


def test_it_can_be_scrolled_with_the_keyboard(opened):
    """
    On a narrow screen, what scrolls sideways can be reached with Tab and moved with the arrow keys.
    """
    opened.set_viewport_size({"width": 400, "height": 900})
    scrolling = opened.locator(".wide").first
    for _ in range(20):
        opened.keyboard.press("Tab")
        if scrolling.evaluate("element => element === document.activeElement"):
            break
    opened.keyboard.press("ArrowRight")
    opened.wait_for_function("document.activeElement.classList.contains('wide') && document.activeElement.scrollLeft > 0")


def test_it_is_right_on_paper(opened, tmp_path, picture):
    """
    As PDF it has few pages; on paper the sheet's width holds everything, and nothing is cut off.
    """
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": 680, "height": 1000})  # A4 between margins
    picture("report-print")
    for wide in opened.locator(".wide").all():
        assert wide.evaluate("element => element.scrollWidth <= element.clientWidth + 1"), wide.inner_text()[:80]
    pdf = opened.pdf(path=tmp_path / "report.pdf", format="A4", prefer_css_page_size=True)
    assert 1 <= pdf.count(b"/Type /Page\n") <= 3
    opened.emulate_media(media="screen")


def test_others_cannot_read_it(report):
    """
    What a rollout records is its user's own.
    """
    assert os.stat(report / "report.html").st_mode & 0o077 == 0
