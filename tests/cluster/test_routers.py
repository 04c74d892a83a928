"""The contract of all routers, on a real cluster with real traffic."""

import http.client
import itertools
import math
import time
from collections import Counter
from urllib.parse import urlsplit

import cluster_parts as parts
import pytest

from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.errors import ConflictError, RoutingError
from canarykit.model import TrafficSplit
from canarykit.places import managed_places
from canarykit.protocol import ROLE_HEADER
from canarykit.routers import router_class
from canarykit.routers.base import apply
from canarykit.routers.objects import Target

LABELS = {"app.kubernetes.io/managed-by": "canarykit", "app.kubernetes.io/part-of": "digits"}
TARGET = Target("digits", 80, LABELS)
REAL = {"gateway-api": "gateway", "ingress-nginx": "ingress-nginx", "istio": "istio", "replicas": "cluster"}
EXACT = ("gateway-api", "ingress-nginx", "istio")


class Conflicting:
    """An API of which every other write fails, as if someone else had written in between."""

    def __init__(self, api):
        self._api, self._writes = api, itertools.count()
        self.conflicts = 0

    def __getattr__(self, name):
        return getattr(self._api, name)

    def patch(self, *args, **options):
        """Fail, or write."""
        if next(self._writes) % 2 == 0:
            self.conflicts += 1
            raise ConflictError("the object has been modified")
        return self._api.patch(*args, **options)


def istio_gateway(api):
    """Have the Istio gateway listen where the tests expect it."""
    address = urlsplit(parts.ISTIO_URL)
    server = {"port": {"number": address.port, "name": "http", "protocol": "HTTP"}, "hosts": ["*"], "bind": address.hostname}
    api.apply(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "web", "labels": LABELS},
            "spec": {"selector": {"istio": "gateway"}, "servers": [server]},
        }
    )
    return f"{api.namespace}/web"


def make(kind, api, **options):
    """A router of a kind, bound to the running service."""
    host = f"{kind}.{api.namespace}.test"
    if kind == "gateway-api":
        name, url = parts.gateway()
        options = {"url": url, "gateway": name, "hostname": host, **options}
    elif kind == "ingress-nginx":
        options = {"url": parts.ingress(), "hostname": host, **options}
    elif kind == "istio":
        options = {"url": parts.istio(), "gateway": istio_gateway(api), "hostname": host, **options}
    else:
        options = {"pods": 4, **options}
    router = router_class(kind)(api, TARGET, **options)
    for body in router.objects():
        api.apply(body)
    return router


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.real(part)) for kind, part in REAL.items()])
def kind(request):
    """Name of a router that is there."""
    return request.param


@pytest.fixture(autouse=True)
def two_pods_each(running):
    """Give both versions their pods back, when a test has scaled them."""
    yield
    for role in ("stable", "canary"):
        if running.get("Deployment", f"digits-{role}")["spec"]["replicas"] != 2:
            running.patch("Deployment", f"digits-{role}", {"spec": {"replicas": 2}})
    for role in ("stable", "canary"):
        Pods(running, managed_places("digits"), print).wait_ready(role, 2, 60.0)


@pytest.fixture
def router(kind, running):
    """A router of that name; what it added is removed afterwards."""
    made = make(kind, running)
    if kind == "replicas":
        wait_for_address(made)
    yield made
    made.reset()


def wait_for_address(router):
    """Wait until a load balancer has its address."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            return router.url
        except RoutingError:
            time.sleep(0.2)
    raise AssertionError("no address")


def ask(router, count, headers=None):
    """Who answers so many requests, each on a connection of its own."""
    address, seen = urlsplit(router.url), Counter()
    for _ in range(count):
        connection = http.client.HTTPConnection(address.hostname, address.port or 80, timeout=10)
        host = {"host": router.hostname} if router.hostname else {}
        connection.request("GET", "/v2/health/ready", headers={**host, **(headers or {})})
        answer = connection.getresponse()
        answer.read()
        seen[answer.getheader(ROLE_HEADER) if answer.status == 200 else answer.status] += 1
        connection.close()
    return seen


def assert_share(seen, share):
    """The canary's share of the answers is what a draw of that share can be, to five standard deviations."""
    total = seen["stable"] + seen["canary"]
    assert total == sum(seen.values()), seen
    sigma = math.sqrt(total * share * (1 - share))
    assert abs(seen["canary"] - total * share) <= 5 * sigma + (2 if 0 < share < 1 else 0), (seen, share)


def test_a_split_is_served_when_apply_returns(router):
    """
    Up and down, nothing and everything: the first answers after `apply` are already of the new split.
    """
    for weight in (0, 25, 50, 100, 0):
        took = apply(router, TrafficSplit(weight))
        assert took >= 0
        assert router.observed() == TrafficSplit(weight)
        assert_share(ask(router, 400), weight / 100)


def test_apply_twice_is_apply_once(router):
    """
    The same split again changes nothing.
    """
    for _ in range(2):
        apply(router, TrafficSplit(25))
    assert router.observed() == TrafficSplit(25)


def test_fine_splits_are_served_or_refused(kind, router):
    """
    A tenth of a percent, where weights are per request; pods say which splits they can.
    """
    if kind in EXACT:
        apply(router, TrafficSplit(0.1))
        assert router.observed() == TrafficSplit(0.1)
        apply(router, TrafficSplit(33.3))
        assert_share(ask(router, 500), 0.333)
        with pytest.raises(RoutingError, match="is finer"):
            apply(router, TrafficSplit(1 / 3))
    else:
        with pytest.raises(RoutingError, match=r"25 % and 50 %|25 %"):
            apply(router, TrafficSplit(33.3))


def test_testers_reach_a_version_by_a_header(kind, router):
    """
    Where the router can: the canary answers whoever asks for it, at a weight of 0.
    """
    apply(router, TrafficSplit(0))
    if kind == "replicas":
        with pytest.raises(RoutingError, match="testers"):
            router.need("testers")
        return
    router.need("testers")
    # The split was 0 before, so that `apply` had nothing to wait for; the gateway takes the new route up in a moment.
    end = time.monotonic() + 10
    while ask(router, 1, {ROLE_HEADER: "canary"}) != {"canary": 1}:
        assert time.monotonic() < end
    assert ask(router, 20, {ROLE_HEADER: "canary"}) == {"canary": 20}
    assert ask(router, 20) == {"stable": 20}


def test_conflicts_are_retried(kind, running):
    """
    Every other write fails with 409; the split is set all the same.
    """
    if kind == "replicas":
        return  # a number of pods is written without regard to what was read: there is no conflict
    api = Conflicting(running)
    router = make(kind, api)
    try:
        for weight in (5, 50):
            apply(router, TrafficSplit(weight))
            assert router.observed() == TrafficSplit(weight)
        assert api.conflicts >= 2  # the gateway writes its status now and then, too
    finally:
        router.reset()


def test_a_foreign_edit_is_seen(kind, router, running):
    """
    What someone else writes is what `observed` says.
    """
    apply(router, TrafficSplit(25))
    if kind == "gateway-api":
        refs = "/spec/rules/0/backendRefs"
        parts.edit(running, "HTTPRoute", "digits", {f"{refs}/0/weight": 30, f"{refs}/1/weight": 70})
    elif kind == "ingress-nginx":
        weight = {"nginx.ingress.kubernetes.io/canary-weight": "70"}
        running.patch("Ingress", "digits-canary", {"metadata": {"annotations": weight}})
    elif kind == "istio":
        last = len(running.get("VirtualService", "digits")["spec"]["http"]) - 1
        route = f"/spec/http/{last}/route"
        parts.edit(running, "VirtualService", "digits", {f"{route}/0/weight": 30, f"{route}/1/weight": 70})
    else:
        running.patch("Deployment", "digits-canary", {"spec": {"replicas": 7}})
    assert router.observed() == TrafficSplit(70)


def test_reset_removes_what_was_added(kind, running):
    """
    No object of the router is left.
    """
    router = make(kind, running)
    if kind == "replicas":
        wait_for_address(router)
    names = [(body["kind"], body["metadata"]["name"]) for body in router.objects()]
    apply(router, TrafficSplit(25))
    router.reset()
    assert [running.get(*name) for name in names] == [None] * len(names)
    router.reset()  # and again


@pytest.mark.real("gateway")
def test_a_users_own_httproute_keeps_all_but_its_weights(running):
    """
    Foreign rules, filters and backends survive a whole rollout; only our two weights change.
    """
    name, url = parts.gateway()
    namespace, _, gateway = name.rpartition("/")
    host = f"own.{running.namespace}.test"
    backend = {"name": "digits-stable", "port": 80}
    header = {"name": "x-team", "value": "search"}
    own = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "own", "labels": {"team": "search"}},
        "spec": {
            "parentRefs": [{"name": gateway, "namespace": namespace}],
            "hostnames": [host],
            "rules": [
                {"matches": [{"path": {"type": "PathPrefix", "value": "/admin"}}], "backendRefs": [backend]},
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [header]}}],
                    "backendRefs": [{**backend, "weight": 1}, {"name": "digits-canary", "port": 80, "weight": 0}],
                },
            ],
        },
    }
    running.create(own)
    try:
        router = router_class("gateway-api")(running, TARGET, url=url, hostname=host, name="own")
        assert router.objects() == []
        before = running.get("HTTPRoute", "own")
        for weight in (10, 60):
            apply(router, TrafficSplit(weight))
            assert_share(ask(router, 200), weight / 100)
        router.reset()
        after = running.get("HTTPRoute", "own")
        assert router.observed() == TrafficSplit(0)
        for found in (before, after):
            for ref in found["spec"]["rules"][1]["backendRefs"]:
                del ref["weight"]
        assert after["spec"] == before["spec"]
        assert after["metadata"]["labels"] == {"team": "search"}
    finally:
        running.delete("HTTPRoute", "own")


@pytest.mark.real("gateway")
def test_a_gateway_that_does_not_accept_says_so(running):
    """
    The gateway's own sentence is in the error, and nothing hangs.
    """
    url = parts.gateway()[1]
    router = router_class("gateway-api")(
        running, TARGET, url=url, gateway=f"{running.namespace}/nobody", hostname="nobody.test", within=3.0
    )
    for body in router.objects():
        running.apply(body)
    try:
        with pytest.raises(RoutingError, match="no gateway has taken it up"):
            apply(router, TrafficSplit(5))
    finally:
        router.reset()


@pytest.mark.real("gateway")
def test_a_mirror_loses_no_traffic_for_longer_than_it_must(running):
    """
    A gateway that cannot mirror, as Traefik for an HTTPRoute, is found out, and the route answers when the error is raised.
    """
    router = make("gateway-api", running)
    try:
        apply(router, TrafficSplit(0))
        refused = ""
        try:
            router.mirror(100)
        except RoutingError as error:
            refused = str(error)
        mirrors = "filters" in running.get("HTTPRoute", "digits")["spec"]["rules"][0]
        assert mirrors != ("this gateway cannot mirror" in refused), refused
        assert ask(router, 20) == {"stable": 20}
    finally:
        router.reset()


@pytest.mark.real("istio")
def test_istio_mirrors(running):
    """
    A copy of the requests reaches the canary, whose answers nobody sees.
    """
    router = make("istio", running)
    try:
        apply(router, TrafficSplit(0))
        router.mirror(100)
        assert "mirror" in running.get("VirtualService", "digits")["spec"]["http"][-1]
        assert ask(router, 20) == {"stable": 20}
        router.mirror(0)
        assert "mirror" not in running.get("VirtualService", "digits")["spec"]["http"][-1]
    finally:
        router.reset()


@pytest.mark.real("kserve")
@pytest.mark.parametrize("plain", [False, True])
def test_kserve_is_asked_and_not_believed(running, plain):
    """
    The percentage is written; without a word of KServe's controller that it serves it, that is an error.

    No controller runs here: the test writes the status that it would write, and so shows that it is read.
    """
    spec = {"predictor": {"model": {"modelFormat": {"name": "sklearn"}}}}
    if plain:
        spec["canary"] = [{"trafficPercent": 0}]
    running.apply(
        {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "digits"}, "spec": spec}
    )
    router = router_class("kserve")(running, TARGET, url="http://127.0.0.1:1", name="digits", within=1.0)
    try:
        with pytest.raises(RoutingError, match="no KServe controller has taken it up"):
            apply(router, TrafficSplit(20))
        assert router.observed() == TrafficSplit(20)
        with pytest.raises(RoutingError, match="whole percents"):
            apply(router, TrafficSplit(0.5))
        generation = running.get("InferenceService", "digits")["metadata"]["generation"]
        running.patch("InferenceService", "digits", {"status": {"observedGeneration": generation}}, sub="status")
        with pytest.raises(RoutingError, match="ignores the percentage"):
            apply(router, TrafficSplit(20))
        traffic = [{"latestRevision": True, "percent": 20}, {"percent": 80}]
        status = {"observedGeneration": generation, "components": {"predictor": {"traffic": traffic}}}
        running.patch("InferenceService", "digits", {"status": status}, sub="status")
        assert apply(router, TrafficSplit(20)) >= 0
    finally:
        running.delete("InferenceService", "digits")
