"""What people import is there, documented, and nothing else is promised."""

import importlib
import inspect
import pkgutil

import pytest

import canarykit

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(canarykit.__path__, "canarykit.") if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", canarykit.__all__)
def test_public_names_are_there_and_documented(name):
    """
    Each public name loads and says what it is.
    """
    assert inspect.getdoc(getattr(canarykit, name))


def test_unknown_names_are_refused():
    """
    A name that is not there says so.
    """
    with pytest.raises(AttributeError, match="nothing"):
        _ = canarykit.nothing
    assert set(canarykit.__all__) <= set(dir(canarykit))


@pytest.mark.parametrize("name", MODULES)
def test_all_is_true_and_documented(name):
    """
    `__all__` names what exists; public functions and classes have docstrings.
    """
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", []):
        thing = getattr(module, public)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name}.{public}"


def test_every_error_is_a_canary_error():
    """
    One except clause catches all that the kit raises on purpose.
    """
    for name in canarykit.errors.__all__:
        assert issubclass(getattr(canarykit.errors, name), canarykit.errors.CanaryError)
