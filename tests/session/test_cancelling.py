"""A weight that is written and not served yet: who ends the wait for that, and what becomes of the weight."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kube_doubles import Namespace

import canarykit as ck
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.errors import PlanError
from canarykit.health import Health
from canarykit.interrupts import interrupted, uninterrupted
from canarykit.protocol import ROLE_HEADER
from canarykit.routers import router_class
from canarykit.routers.objects import Target

PLAN = ck.RolloutPlan.of(5, 25, 50, hold="10s", budget="10min")
ALL_STABLE = ck.TrafficSplit(0)
GONE = Health(False, "ai-stable has 0 of 3 pods ready: it was scaled to 0 by kubectl", True)


class Gateway:
    """Serves one split, of those that a router writes, only when it is let go on, or the wait for that is cancelled."""

    def __init__(self, router, slow):
        self.slow, self.written, self.go_on, self.cut = slow, threading.Event(), threading.Event(), 0
        self.polls = 0
        self.during = lambda: None
        self._confirm = router.confirm
        router.confirm = self.confirm

    def confirm(self, change, *, cancelled=lambda: False):
        """Wait until it is served."""
        if change.split.canary == self.slow and not self.written.is_set():
            self.during()
            self.written.set()
            for _ in range(4000):  # where nobody cancels it, the test fails and does not hang
                self.polls += 1
                if cancelled():
                    self.cut += 1
                    return False
                if self.go_on.wait(0.005):
                    break
        return self._confirm(change, cancelled=cancelled)


@pytest.fixture
def experiment(simulated):
    """An experiment on a simulated cluster, with traffic."""
    return simulated(plan=PLAN)


@pytest.fixture
def slow(experiment):
    """Make a gateway that is slow to serve one split; nobody waits for it in the end."""
    made = []

    def make(split):
        made.append(Gateway(experiment.cluster.router, split))
        return made[-1]

    yield make
    for gateway in made:
        gateway.go_on.set()


@pytest.fixture
def pool(slow):
    """Two threads, whose last wait is over when the test is."""
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def together(slow, pool):
    """Do one thing, and another while the gateway is slow; return what comes of both. It stays slow until both are done."""

    def do(gateway, first, then):
        begun = pool.submit(first)
        try:
            assert gateway.written.wait(10)
            second = pool.submit(then).result(10)
            begun.exception(10)
        finally:
            gateway.go_on.set()
        return begun, second

    return do


@pytest.mark.parametrize("rise", ["shift", "run", "stand in"])
def test_an_abort_does_not_wait_until_a_rise_is_served(experiment, slow, together, rise):
    """
    Traffic returns at once; the rise is no error.
    """
    if rise == "stand in":
        experiment.shift(5)
        experiment.cluster.health = lambda role: GONE if role == "stable" and gateway.cut == 0 else Health()
    gateway = slow({"shift": 25, "run": 5, "stand in": 100}[rise])
    first = {"shift": lambda: experiment.shift(25), "run": experiment.run, "stand in": experiment.advance}[rise]
    begun, ending = together(gateway, first, experiment.abort)
    assert begun.exception(10) is None
    assert gateway.cut == 1
    assert ending.outcome == experiment.ending.outcome == "rolled back"
    assert experiment.cluster.router.observed() == experiment.snapshot().state.split == ALL_STABLE


class Nameless(BaseHTTPRequestHandler):
    """Answers, and names no version until it is told to name stable; tells that it was asked."""

    def do_GET(self):
        self.server.asked.set()
        self.send_response(200)
        self.send_header("content-length", "0")
        if self.server.names.is_set():
            self.send_header(ROLE_HEADER, "stable")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def nameless():
    """A server on this machine whose answers name no version."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Nameless) as server:
        server.asked, server.names = threading.Event(), threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_route_is_written_back_while_a_rise_settles(simulated, nameless, monkeypatch):
    """
    With the router of a cluster: a gateway of which nobody sees what it serves has minutes to settle after a rise.
    """
    namespace, url = Namespace(), f"http://127.0.0.1:{nameless.server_port}"
    router = router_class("gateway-api")(namespace, Target("digits", 80, {}), url=url, gateway="infra/web", settle=60.0)
    monkeypatch.setattr(router, "refusal", lambda found, generation: None)
    for body in router.objects():
        namespace.create(body)
    cluster = SimulatedCluster("good")
    cluster.router = router
    exp = simulated(cluster=cluster, plan=PLAN)
    with ThreadPoolExecutor(2) as pool:
        rise = pool.submit(exp.shift, 25)
        assert nameless.asked.wait(10)
        assert router.observed() == ck.TrafficSplit(25)
        end = pool.submit(exp.abort)
        assert rise.exception(20) is None
        nameless.names.set()
        assert end.result(20).outcome == "rolled back"
    assert router.observed() == ALL_STABLE


def test_teardown_does_not_wait_until_a_rise_is_served(experiment, slow, together):
    """
    Nobody needs it any more.
    """
    gateway = slow(25)
    begun, _ = together(gateway, lambda: experiment.shift(25), experiment.teardown)
    assert begun.exception(10) is None
    assert gateway.cut == 1


def test_stable_is_not_replaced_before_the_canary_was_seen_to_have_everything(experiment, slow, together, monkeypatch):
    """
    An abort that comes until then overtakes the promotion.
    """
    replaced = []
    monkeypatch.setattr(experiment.cluster, "promote", lambda cancelled: replaced.append("stable") or True)
    experiment.shift(50)
    begun, ending = together(slow(100), experiment.promote, experiment.abort)
    with pytest.raises(PlanError, match="nothing was promoted: an abort or a signal came before"):
        begun.result(10)
    assert (replaced, ending.outcome) == ([], "rolled back")
    assert experiment.cluster.router.observed() == ALL_STABLE


def test_a_second_abort_does_not_cut_short_the_return_to_stable(experiment, slow, pool):
    """
    What the first one says of the return was seen.
    """
    experiment.shift(25)
    gateway = slow(0)
    first = pool.submit(experiment.abort)
    assert gateway.written.wait(10)
    second = pool.submit(experiment.abort)
    before = gateway.polls
    while gateway.polls < before + 2 and not gateway.cut:
        assert not second.done()
    gateway.go_on.set()
    assert first.result(10) == second.result(10)
    assert gateway.cut == 0


def test_a_promotion_that_was_warming_up_writes_nothing_over_an_abort(experiment, slow, pool, monkeypatch):
    """
    The abort has written 0 %, and waits until that is served: the canary does not get everything in between.
    """
    experiment.shift(50)
    gateway, warm, go_on = slow(0), experiment.cluster.ensure_capacity, threading.Event()
    begun = threading.Event()

    def held(role, share):
        if role == "canary":
            begun.set()
            assert go_on.wait(10)
        warm(role, share)

    monkeypatch.setattr(experiment.cluster, "ensure_capacity", held)
    promotion = pool.submit(experiment.promote)
    assert begun.wait(10)
    ending = pool.submit(experiment.abort)
    assert gateway.written.wait(10)
    go_on.set()
    with pytest.raises(PlanError, match="all traffic is being returned to stable, so 100 % is not given"):
        promotion.result(10)
    assert experiment.cluster.router.observed() == ALL_STABLE
    gateway.go_on.set()
    assert ending.result(10).outcome == "rolled back"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("weight", [5, 25])
def test_a_signal_ends_the_wait_of_a_plan(experiment, slow, name, weight):
    """
    Traffic returns to stable, and the rollout ends by the signal.
    """
    gateway = slow(weight)
    gateway.during = lambda: signal.raise_signal(getattr(signal, name))
    if name == "SIGINT":
        experiment.run()
    else:
        with pytest.raises(SystemExit):
            experiment.run()
    assert gateway.cut == 1
    assert experiment.cluster.router.observed() == ALL_STABLE
    assert experiment.ending.sentence.startswith("interrupted after" if name == "SIGINT" else "ended by SIGTERM after")


def test_an_interrupted_shift_leaves_its_weight_and_counts_anew(experiment, slow):
    """
    It is written, and may be served at any moment: the requests until the next look are of nobody knows which weight.
    """
    gateway = slow(25)
    gateway.during = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        experiment.shift(25)
    assert gateway.cut == 1
    assert experiment.cluster.router.observed() == experiment.snapshot().state.split == ck.TrafficSplit(25)
    experiment.cluster.clock.sleep(5)
    experiment.poll()
    assert not any(experiment.snapshot().state.served)
    experiment.cluster.clock.sleep(5)
    experiment.poll()
    assert all(experiment.snapshot().state.served)


def test_a_signal_that_is_deferred_is_known_until_it_takes_effect():
    """
    Within an inner step as well, in the main thread alone, and not before it came.
    """
    seen = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        seen.append(interrupted())
        signal.raise_signal(signal.SIGINT)
        with uninterrupted():
            seen.append(interrupted())
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(interrupted).result())
        seen.append(interrupted())
    assert [*seen, interrupted()] == [False, True, False, True, False]
