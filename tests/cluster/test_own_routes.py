"""A team's own route under steady traffic: what its users get while the kit deploys, fails, rolls out and leaves."""

import contextlib
import http.client
import threading
import time
from collections import Counter
from dataclasses import replace
from urllib.parse import urlsplit

import cluster_parts as parts
import pytest

import canarykit as ck
from canarykit.clusters.kube.workloads import manifests
from canarykit.clusters.kube.workloads.model_files import model_files
from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.errors import ClusterError, RoutingError
from canarykit.places import managed_places
from canarykit.protocol import ROLE_HEADER
from canarykit.routers.base import apply
from canarykit.routers.rules import NOTE

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway")]


class Users:
    """Ask the gateway for a page of the team's all the time, and count who answers, or with which status nobody does."""

    def __init__(self, host, path="/v2/models/digits", method="GET", headers=None, url=None):
        self.seen, self._headers = Counter(), {"host": host, **(headers or {})}
        self._url = url or parts.gateway()[1]
        self._asked, self._over = (method, path), threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self):
        place = urlsplit(self._url)
        connection = http.client.HTTPConnection(place.hostname, place.port or 80, timeout=10)
        while not self._over.wait(0.01):
            try:
                connection.request(*self._asked, headers=self._headers)
                answer = connection.getresponse()
                answer.read()
                # A version that cannot read what it is sent answers all the same.
                self.seen[answer.getheader(ROLE_HEADER, answer.status) if answer.status < 500 else answer.status] += 1
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.seen[type(error).__name__] += 1
        connection.close()

    @property
    def lost(self):
        """What was answered by no version."""
        return {what: times for what, times in self.seen.items() if what not in ("stable", "canary")}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(15)


def backend(role, weight=None):
    """One backend of the team's route."""
    return {"name": f"digits-{role}", "port": 80, **({} if weight is None else {"weight": weight})}


def rule(*refs, path="/", **more):
    """One rule of the team's route."""
    return {"matches": [{"path": {"type": "PathPrefix", "value": path}, **more}], "backendRefs": list(refs)}


def own_route(client, *rules):
    """Create the team's route; return its host."""
    name, _ = parts.gateway()
    namespace, _, gateway = name.rpartition("/")
    host = f"own.{client.namespace}.test"
    client.create(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "own"},
            "spec": {"parentRefs": [{"name": gateway, "namespace": namespace}], "hostnames": [host], "rules": list(rules)},
        }
    )
    return host


def weights(client, number=0):
    """Weights of a rule of the team's route, by backend."""
    return {ref["name"]: ref["weight"] for ref in client.get("HTTPRoute", "own")["spec"]["rules"][number]["backendRefs"]}


def bring_up(client, service, *roles):
    """Have versions of the team's, as the kit would make them, up behind their Services, and nobody's label on them."""
    models = model_files(service)
    for body in manifests.objects(service, parts.WORKLOAD, models):
        if body["kind"] == "ConfigMap" or body["metadata"]["name"].endswith(roles):
            client.apply(body)
    for role in roles:
        Pods(client, managed_places("digits"), print).wait_ready(role, 1, 60.0)


@contextlib.contextmanager
def losing_nothing(host, **options):
    """Users who ask meanwhile, from when the team's route is served, lose nothing."""
    with Users(host, **options) as first:
        parts.wait_for(lambda: len(first.seen) > 0 and first.seen.total() - sum(first.lost.values()) >= 3, 30.0)
    with Users(host, **options) as users:
        yield users
        time.sleep(1.5)
    assert not users.lost, users.seen
    assert users.seen.total() > 50


@pytest.fixture
def mine(connect):
    """A cluster that splits the team's own route; it knows nothing of its host, and tells into a list."""

    def make(**options):
        told = []
        made = connect(route="own", hostname=None, notify=told.append, **options)
        made.told = told
        return made

    return make


def test_a_failed_deploy_and_a_teardown_take_nothing_from_a_live_route(mine, service_of, admin):
    """
    Both Services are named by the team's route: they and their pods stay, with the reason, and nobody loses a request.
    """
    host = own_route(admin, rule(backend("stable", 1), backend("canary", 0)))
    cluster = mine()
    cluster.deploy(service_of())
    with losing_nothing(host) as users:
        apply(cluster.router, ck.TrafficSplit(30))
        cluster.teardown()
        asked = sum(users.seen.values())
        parts.wait_for(lambda: sum(users.seen.values()) > asked + 50)
        assert weights(admin) == {"digits-stable": 1, "digits-canary": 0}
        assert NOTE not in admin.get("HTTPRoute", "own")["metadata"].get("annotations", {})
        (said,) = [line for line in cluster.told if "stay" in line and "Service" in line]
        assert said.startswith(
            "Services digits-canary and digits-stable and Deployments digits-canary and digits-stable stay, because "
            "HTTPRoute own still leads to them"
        )
        broken = replace(service_of(), canary=ck.Version("v9", image="no.such.registry.test/canary:9"))
        with pytest.raises(ClusterError, match="cannot be pulled"):
            mine(ready_within=10.0).deploy(broken)
        assert weights(admin) == {"digits-stable": 1, "digits-canary": 0}
    assert admin.get("Service", "digits-canary") is not None


def test_the_canary_joins_a_live_route_and_leaves_it(mine, service_of, admin, experiment):
    """
    The route names stable alone, as the advice says: the canary's backend comes when its pods are ready, goes before its
    Service does, and a whole rollout with a promotion loses nothing, with a readiness path that each version has for itself.
    """
    service = service_of()
    service = replace(service, canary=replace(service.canary, ready="/v2/models/digits/ready"))
    bring_up(admin, service, "stable")
    host = own_route(admin, rule(backend("stable")))
    with losing_nothing(host) as users:
        exp = experiment(service, mine(), guardrails=[ck.metrics.error_rate()])
        exp.deploy()
        assert weights(admin) == {"digits-stable": 100, "digits-canary": 0}
        exp.send(50)
        ending = exp.run(ck.RolloutPlan.of(50, hold="2s", min_requests=10, budget="2min"))
        assert ending.outcome == "promoted", str(ending)
        exp.teardown()
        assert weights(admin) == {"digits-stable": 1}
        assert admin.get("Service", "digits-canary") is None
        assert admin.get("Deployment", "digits-canary") is None
    assert users.seen["canary"] > 20


def test_a_canary_that_never_comes_up_is_never_in_a_live_route(mine, service_of, admin):
    """
    The deployment fails: what it made of the canary is gone, and stable, which the route names, stays.
    """
    service = replace(service_of(), canary=ck.Version("v9", image="no.such.registry.test/canary:9"))
    bring_up(admin, service_of(), "stable")
    host = own_route(admin, rule(backend("stable")))
    before = admin.get("HTTPRoute", "own")["spec"]
    with losing_nothing(host):
        with pytest.raises(ClusterError, match="cannot be pulled"):
            mine(ready_within=10.0).deploy(service)
        assert admin.get("HTTPRoute", "own")["spec"] == before
        assert admin.get("Service", "digits-canary") is None
    assert admin.get("Service", "digits-stable") is not None


def test_a_rule_for_testers_stays_as_it_is(mine, service_of, admin):
    """
    It names both versions and gives the canary everything, by a header of the team's: through deploy, shift and teardown.
    """
    testers = rule(backend("stable", 0), backend("canary", 100), headers=[{"name": "x-beta", "value": "1"}])
    bring_up(admin, service_of(), "stable", "canary")
    host = own_route(admin, testers, rule(backend("stable", 95), backend("canary", 5)))
    with losing_nothing(host), losing_nothing(host, headers={"x-beta": "1"}) as beta:
        cluster = mine()
        cluster.deploy(service_of())
        for weight in (0, 40):
            apply(cluster.router, ck.TrafficSplit(weight))
            assert cluster.router.observed() == ck.TrafficSplit(weight)
            assert weights(admin, 0) == {"digits-stable": 0, "digits-canary": 100}
        cluster.teardown()
        assert weights(admin, 0) == {"digits-stable": 0, "digits-canary": 100}
        assert weights(admin, 1) == {"digits-stable": 100, "digits-canary": 0}
    assert set(beta.seen) == {"canary"}


@pytest.mark.real("ingress-nginx")
def test_a_teams_ingress_keeps_its_users(mine, service_of, admin):
    """
    Its class is in the old annotation and it rewrites paths: the canary's Ingress is served alike, and leaves no trace.
    """
    bring_up(admin, service_of(), "stable")
    host = f"own.{admin.namespace}.test"
    stable = {"service": {"name": "digits-stable", "port": {"number": 80}}}
    path = {"path": "/chat(/|$)(.*)", "pathType": "ImplementationSpecific", "backend": stable}
    nginx = "nginx.ingress.kubernetes.io"
    annotations = {"kubernetes.io/ingress.class": "nginx", f"{nginx}/use-regex": "true", f"{nginx}/rewrite-target": "/$2"}
    admin.create(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "own", "annotations": annotations},
            "spec": {"rules": [{"host": host, "http": {"paths": [path]}}]},
        }
    )
    with losing_nothing(host, path="/chat/v2/models/digits", url=parts.ingress()) as users:
        cluster = mine(router="ingress-nginx", url=parts.ingress())
        cluster.deploy(service_of())
        apply(cluster.router, ck.TrafficSplit(40))
        parts.wait_for(lambda: users.seen["canary"] >= 20, 20.0)
        cluster.teardown()
    assert admin.get("Ingress", "digits-canary") is None
    assert admin.get("Deployment", "digits-canary") is None
    assert admin.get("Deployment", "digits-stable") is not None


@pytest.mark.real("istio")
def test_a_teams_virtual_service_keeps_its_testers(mine, service_of, admin):
    """
    A route for testers stays, the canary joins the other one, which names stable by its full name, and leaves it.
    """
    from test_routers import istio_gateway

    bring_up(admin, service_of(), "stable", "canary")
    host, where = f"own.{admin.namespace}.test", f"{admin.namespace}.svc.cluster.local"
    stable = {"destination": {"host": f"digits-stable.{where}", "port": {"number": 80}}}
    beta = {"destination": {"host": "digits-canary", "port": {"number": 80}}}
    routes = [
        {"match": [{"headers": {"x-beta": {"exact": "1"}}}], "route": [{**stable, "weight": 0}, {**beta, "weight": 100}]},
        {"match": [{"uri": {"prefix": "/v2"}}], "route": [stable], "timeout": "5s"},
    ]
    spec = {"hosts": [host], "gateways": [istio_gateway(admin)], "http": routes}
    admin.create({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "own"}, "spec": spec})
    before = admin.get("VirtualService", "own")["spec"]["http"]
    asked = {"url": parts.istio()}
    with losing_nothing(host, **asked) as users, losing_nothing(host, headers={"x-beta": "1"}, **asked) as testers:
        cluster = mine(router="istio", url=parts.istio())
        cluster.deploy(service_of())
        for weight in (40, 100):
            apply(cluster.router, ck.TrafficSplit(weight))
            assert admin.get("VirtualService", "own")["spec"]["http"][0] == before[0]
        parts.wait_for(lambda: users.seen["canary"] >= 20, 20.0)
        cluster.teardown()
    assert admin.get("VirtualService", "own")["spec"]["http"] == before
    assert set(testers.seen) == {"canary"}


def test_a_route_that_cannot_be_split_is_refused_before_anything_is_written(mine, service_of, admin):
    """
    By `plan` and by `deploy`, with the order in which no request is lost.
    """
    own_route(admin, rule({"name": "chat", "port": 80}))
    for call in (mine().plan, mine().deploy):
        with pytest.raises(RoutingError, match=r"has no rule with both backends .* To lose no request, first bring up"):
            call(service_of())
    assert parts.left_behind(admin) == []


def test_a_probe_that_is_turned_away_undoes_nothing(mine, service_of, admin):
    """
    The team's route takes POST at one path alone, at which nobody is ready: that is told once, weights move all the same.
    """
    bring_up(admin, service_of(), "stable")
    path = "/v2/models/digits/infer"
    only = {"path": {"type": "Exact", "value": path}, "method": "POST"}
    host = own_route(admin, {"matches": [only], "backendRefs": [backend("stable")]})
    with losing_nothing(host, path=path, method="POST") as users:
        cluster = mine()
        cluster.deploy(service_of())
        apply(cluster.router, ck.TrafficSplit(50))
        parts.wait_for(lambda: users.seen["canary"] >= 20, 20.0)
        cluster.teardown()
    (said,) = [line for line in cluster.told if "nobody sees from here" in line]
    assert f"{path} (host {host}) with status 404" in said


def test_the_kits_own_route_lets_nobody_in_beside(connect, service_of, admin):
    """
    No header leads to the canary where testers are off; a value of one's own does while the rollout lasts; nobody reads the
    servers' metrics from outside.
    """
    url = parts.gateway()[1]

    def ask(cluster, path, **headers):
        place = urlsplit(url)
        connection = http.client.HTTPConnection(place.hostname, place.port or 80, timeout=10)
        connection.request("GET", path, headers={"host": cluster.router.hostname, **headers})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, answer.getheader(ROLE_HEADER)

    cluster = connect(testers="k3y-of-ours")
    cluster.deploy(service_of())
    parts.wait_for(lambda: ask(cluster, "/v2", **{ROLE_HEADER: "k3y-of-ours"}) == (200, "canary"))
    assert ask(cluster, "/v2", **{ROLE_HEADER: "canary"}) == (200, "stable")
    assert ask(cluster, "/metrics")[0] == 404
    cluster.holding.save_state(phase="rolled back")
    parts.wait_for(lambda: ask(cluster, "/v2", **{ROLE_HEADER: "k3y-of-ours"}) == (200, "stable"))
    cluster.release()
    again = connect(testers=False)
    again.deploy(service_of())
    assert len(admin.get("HTTPRoute", "digits")["spec"]["rules"]) == 1
    again.teardown()
