"""An abort on a real cluster takes effect at once, whatever is being waited for; users get answers of stable alone."""

import threading
import time
import urllib.request
from collections import Counter

import accounts
import cluster_parts as parts
import pytest
from cluster_parts import wait_for

import canarykit as ck
from canarykit.errors import PlanError
from canarykit.protocol import ROLE_HEADER

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway")]

AT_ONCE = 1.0
"""Seconds after `abort()` is called, within which all traffic is back on stable."""


class Users:
    """Ask again and again, on connections of their own; remember who answered when."""

    def __init__(self, url, host=None):
        self._url, self._host, self.seen, self._over = url, host, [], threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self):
        while not self._over.is_set():
            request = urllib.request.Request(f"{self._url}/v2/health/ready", headers={"host": self._host} if self._host else {})
            begun = time.monotonic()
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    who = answer.headers[ROLE_HEADER]
            except OSError as error:
                who = str(error)
            self.seen.append((begun, who))
            time.sleep(0.005)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()

    def after(self, moment):
        """Who answered the requests that began after a moment."""
        return Counter(who for begun, who in self.seen if begun > moment)


@pytest.fixture
def full(admin):
    """Let no more pods into the namespace than there are."""

    def fill():
        pods = len(admin.list("Pod"))
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "full"},
            "spec": {"hard": {"pods": str(pods)}},
        }
        accounts.create(admin, quota)
        path = f"/api/v1/namespaces/{admin.namespace}/resourcequotas/full"
        wait_for(lambda: '"hard":{"pods"' in admin._exchange("GET", path, None, {})[1].split('"status":')[1])

    return fill


def abort_during(exp, rise, users):
    """Begin something that waits, abort it, and return the ending, when it was asked for, and what became of the rise."""
    raised = []

    def begin():
        try:
            rise()
        except PlanError as error:
            raised.append(error)

    thread = threading.Thread(target=begin)
    thread.start()
    time.sleep(2.0)
    assert thread.is_alive(), "it does not wait for anything"
    asked = time.monotonic()
    ending = exp.abort()
    time.sleep(3 * AT_ONCE)
    thread.join(30)
    assert not thread.is_alive()
    assert set(users.after(asked + AT_ONCE)) == {"stable"}, users.seen[-20:]
    return ending, raised


def test_an_abort_ends_the_wait_for_a_pod_that_never_starts(connect, service_of, experiment, full):
    """
    Pods are the split: the quota lets none of the canary's start.
    """
    cluster = connect(router="replicas")
    exp = experiment(service_of(replicas=2), cluster)
    exp.deploy()
    exp.shift(25)
    full()
    with Users(cluster.url) as users:
        ending, _ = abort_during(exp, lambda: exp.shift(50), users)
    assert ending.outcome == "rolled back"
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)


def test_an_abort_ends_the_wait_for_a_route_that_is_never_accepted(connect, service_of, experiment, monkeypatch):
    """
    The weight is written, and the gateway serves it; nobody says so for a minute.
    """
    cluster = connect()
    exp = experiment(service_of(), cluster)
    exp.deploy()
    real = cluster.router.refusal
    hostname = cluster.router.hostname
    exp.shift(25)
    monkeypatch.setattr(cluster.router, "_within", 60.0)
    refused = lambda found, generation: "not accepted yet" if cluster.router.split_in(found).canary else real(found, generation)  # noqa: E731
    monkeypatch.setattr(cluster.router, "refusal", refused)
    with Users(cluster.url, hostname) as users:
        ending, _ = abort_during(exp, lambda: exp.shift(50), users)
    assert ending.outcome == "rolled back"
    assert exp.snapshot().state.split == ck.TrafficSplit(0)


@pytest.fixture
def paused(admin):
    """Have no pod of stable replaced, as when nodes are full: a paused Deployment waits for ever."""

    def pause():
        admin.patch("Deployment", "digits-stable", {"spec": {"paused": True}})

    return pause


def test_an_abort_ends_a_promotion_and_undoes_it(connect, service_of, experiment, admin, paused):
    """
    Stable's pods are not replaced: the old ones serve again, and its Deployment is what it was.
    """
    cluster = connect()
    service = service_of(replicas=2)
    exp = experiment(service, cluster)
    exp.deploy()
    exp.shift(50)
    before = admin.get("Deployment", "digits-stable")["spec"]["template"]
    paused()
    with Users(cluster.url, cluster.router.hostname) as users:
        ending, raised = abort_during(exp, exp.promote, users)
    assert "the promotion was ended" in str(raised[0])
    assert ending.outcome == "rolled back"
    assert ending.sentence.endswith("stable is v1 as before")
    assert admin.get("Deployment", "digits-stable")["spec"]["template"] == before


def test_a_canary_that_dies_ends_its_promotion(connect, service_of, experiment, admin, paused):
    """
    It has all traffic while stable waits for pods: traffic returns without anybody's doing.
    """
    cluster = connect()
    exp = experiment(service_of(replicas=2), cluster)
    exp.deploy()
    exp.shift(50)
    paused()

    def kill():
        time.sleep(3.0)
        admin.patch("Deployment", "digits-canary", {"spec": {"replicas": 0}})

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(PlanError, match="the promotion was ended: rolled back"):
        exp.promote()
    killer.join()
    assert exp.ending.sentence.startswith("canary: digits-canary has 0 of 2 pods")
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)
    assert parts.left_behind(admin)
