"""Accessibility by axe, of what is ours."""

from axe_playwright_python.sync_playwright import Axe


def violations(page, within=None):
    """What axe finds, in words: nothing, if all is well.

    Parameters
    ----------
    page : playwright.sync_api.Page
        Anything.
    within : str, optional
        Only elements inside what this CSS selector finds: what is around them is JupyterLab's.
    """
    options = {"resultTypes": ["violations"]}
    if within is not None:
        assert page.locator(within).count(), f"there is no {within}"
        options["rules"] = {name: {"enabled": False} for name in ("region", "page-has-heading-one")}  # of whole pages
    found = Axe().run(page, within and {"include": [[within]]}, options)
    return found.generate_report() if found.violations_count else ""
