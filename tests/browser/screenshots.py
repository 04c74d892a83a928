"""Make the pictures of the README: the panel in a real JupyterLab, and the report of a real rollout."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import chromium
from hands import Hands
from lab import NOTEBOOKS, jupyterlab
from opened import Opened
from playwright.sync_api import expect, sync_playwright

PATIENCE = 180_000


def panel(browser, lab, target):
    """Picture of the first notebook's panel, in the middle of a rollout that goes well."""
    page = browser.new_page()
    page.goto(lab.address(lab.copy(NOTEBOOKS / "01-first-canary.ipynb", rate=120.0)))
    notebook = Opened(page, "01-first-canary.ipynb")
    notebook.look(width=1280, height=1120)
    notebook.run_through("Panel(")
    hands = Hands(page)
    for weight in (25, 50):
        hands.nudge(weight)
        hands.apply(weight)
        expect(hands.share).to_contain_text(re.compile(r"of \d,\d{3} requests"), timeout=PATIENCE)  # enough to draw
    expect(hands.verdict).to_contain_text("pass:", timeout=PATIENCE)
    drawn = hands.chart.get_attribute("src")
    expect(hands.chart).not_to_have_attribute("src", drawn, timeout=PATIENCE)
    hands.panel.scroll_into_view_if_needed()
    page.screenshot(path=target)
    notebook.close()
    page.close()


def report(browser, folder, target):
    """Picture of the first screen of a report."""
    page = browser.new_page(viewport={"width": 1120, "height": 1000})
    page.goto((folder / "report.html").as_uri())
    page.screenshot(path=target)
    page.close()


def main(target):
    """Make both."""
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="canarykit-screenshots-") as name:
        folder = Path(name)
        command = [
            sys.executable,
            "-m",
            "canarykit.cli",
            "report",
            str(NOTEBOOKS / "rollout-report.ipynb"),
            "--die-with-parent",
        ]
        subprocess.run([*command, "--expect", "promoted", "--out", str(folder / "report")], check=True)
        with jupyterlab(folder / "lab") as lab, sync_playwright() as playwright:
            browser = chromium.launch(playwright)
            panel(browser, lab, target / "panel.png")
            report(browser, folder / "report", target / "report.png")
            browser.close()
    for path in sorted(target.glob("*.png")):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
