"""An experiment on the simulated cluster, a view that only remembers, and patience."""

import threading
import time

import pytest

import canarykit as ck


class FakeView:
    """Remembers what it was shown; can be slow."""

    def __init__(self, clicked):
        self.clicked, self.shown = clicked, []

    def show(self, state):
        self.shown.append(state)


@pytest.fixture
def until():
    """Wait for something that another thread does; fail with what is shown when it takes too long."""

    def wait(condition, panel=None, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, panel and panel.state
            time.sleep(0.01)

    return wait


@pytest.fixture
def experiment(simulated):
    """Make an experiment on a simulated cluster, with traffic."""
    return simulated


@pytest.fixture
def panel_of():
    """Make a panel with a fake view (or real widgets); it ends with the test."""
    made = []

    def make(exp, view=FakeView):
        panel = ck.Panel(exp)
        if view is not None:
            panel._view = view(panel.do)
        made.append(panel)
        return panel

    yield make
    for panel in made:
        panel.stop()


@pytest.fixture
def held_up(monkeypatch):
    """Make a cluster's canary answer only when told to: whatever gives it weight waits."""

    def hold(cluster):
        gate = threading.Event()
        warm = cluster.ensure_capacity
        monkeypatch.setattr(
            cluster, "ensure_capacity", lambda role, share: (role == "canary" and gate.wait(20), warm(role, share))[1]
        )
        return gate

    return hold
