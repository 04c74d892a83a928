"""A real JupyterLab, a real Chromium, and what neither may do."""

import os
import re

import chromium
import pytest
from lab import ROOT, jupyterlab
from opened import Opened

PICTURES = ROOT / "build" / "screenshots"
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
"""Chromium's own: it drops all connections when any network interface comes or goes, such as a container's."""
BENIGN = "Could not restore the debugger state: Canceled future"
"""JupyterLab's own, when a notebook is closed soon after it was opened."""
_LOCAL = re.compile(r"(https?://(127\.0\.0\.1|localhost):\d+/|file:|data:|blob:|about:)")
_OPEN = "path => jupyterapp.commands.execute('docmanager:open', {path}).then(() => null)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Take a screenshot of a test that failed."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.failed and call.when == "call" and page is not None:
        report.sections.append(("Screenshot", str(_picture(page, f"failed-{item.name}"))))
    return report


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A JupyterLab for all tests of this folder; notebooks in it are copies."""
    with jupyterlab(tmp_path_factory.mktemp("jupyter") / "lab") as running:
        yield running


@pytest.fixture(scope="module")
def context():
    """Headless Chromium that reaches this machine only.

    It ends with each module: as long as Playwright runs, no other test of the process could run a loop of its own.
    """
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        expect.set_options(timeout=20_000)
        browser = chromium.launch(playwright)
        context = browser.new_context()
        context.set_default_timeout(60_000)
        context.route(lambda url: not _LOCAL.match(url), lambda route: route.abort())
        yield context
        browser.close()


@pytest.fixture(scope="module")
def tab(context):
    """One tab for a module, so that JupyterLab loads once; its console errors; whom it asked beside this machine."""
    page = context.new_page()
    errors, strangers = [], []
    page.on("console", lambda message: message.type == "error" and errors.append(f"{message.text} ({message.location['url']})"))
    page.on("pageerror", lambda error: errors.append(f"{error.message}\n{error.stack}"))
    page.on("request", lambda sent: _LOCAL.match(sent.url) or strangers.append(sent.url))
    return page, errors, strangers


@pytest.fixture
def page(tab):
    """The tab; at the end of a test its console must show no error, and it must have asked nobody but this machine."""
    page, errors, strangers = tab
    errors.clear()
    strangers.clear()
    yield page
    assert _ours(errors) == []
    assert strangers == []


@pytest.fixture
def open_notebook(page, lab):
    """Open a notebook of the server's folder; its kernel ends with the test."""
    opened = []

    def open_(name):
        if page.url.startswith(f"{lab.url}lab"):
            page.evaluate(_OPEN, name)
        else:
            page.goto(lab.address(name))
        opened.append(Opened(page, name))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


@pytest.fixture
def picture(page):
    """Take a screenshot of the page, or of a part of it, when CANARYKIT_SCREENSHOTS asks for them."""

    def take(name, of=None):
        if os.environ.get("CANARYKIT_SCREENSHOTS"):
            _picture(of or page, name)

    return take


def _ours(errors):
    """Those errors of the console that are neither Chromium's nor JupyterLab's own."""
    known = [NETWORK_CHANGED, BENIGN]
    if any(NETWORK_CHANGED in error for error in errors):
        known.append("Failed to fetch")  # what was under way then
    return [error for error in errors if not any(pattern in error for pattern in known)]


def _picture(of, name):
    path = PICTURES / f"{re.sub(r'[^a-zA-Z0-9._-]+', '-', name).strip('-')}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    of.screenshot(path=path)
    return path
