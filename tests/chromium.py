"""The Chromium of this machine: Playwright's own builds need a download, a distribution's is there or easily installed."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")


def path():
    """Where it is, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def launch(playwright):
    """Start it, headless.

    Parameters
    ----------
    playwright : playwright.sync_api.Playwright
        Started by the caller.
    """
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # which Chromium refuses to root
    return playwright.chromium.launch(executable_path=path(), args=["--disable-dev-shm-usage", *sandbox])
