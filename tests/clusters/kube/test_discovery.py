"""Which gateway, where, and what an address of a cluster may say."""

from collections.abc import Callable
from typing import Literal

import pytest

import canarykit as ck
from canarykit.clusters.kube import cluster as kube
from canarykit.clusters.kube.binding import bind, target_of
from canarykit.clusters.kube.discovery import gateway_of, url_of
from canarykit.clusters.options import options_of, read_options
from canarykit.errors import ClusterError, PlanError, RoutingError


def gateway(name="web", *, addresses=("10.0.0.7",), listeners=(("HTTP", 80),)):
    """A Gateway as the API server returns it."""
    return {
        "metadata": {"name": name, "namespace": "infra"},
        "spec": {"listeners": [{"protocol": protocol, "port": port} for protocol, port in listeners]},
        "status": {"addresses": [{"value": value} for value in addresses]},
    }


def test_the_only_gateway_is_taken():
    """
    Or the one that was asked for, seen or not.
    """
    one, two = gateway("one"), gateway("two")
    assert gateway_of([one], None) == ("infra/one", one)
    assert gateway_of([one, two], "infra/two") == ("infra/two", two)
    assert gateway_of([], "infra/hidden") == ("infra/hidden", None)


def test_a_gateway_that_is_not_there_is_said_not_to_be():
    """
    Whoever sees others would see it.
    """
    with pytest.raises(RoutingError, match="there is no Gateway infra/nope to be seen here, only infra/one, infra/two"):
        gateway_of([gateway("one"), gateway("two")], "infra/nope")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([], "no Gateway is to be seen here: name the one"),
        ([gateway("b"), gateway("a")], r'several Gateways are to be seen here \(infra/a, infra/b\).*gateway="namespace/name"'),
    ],
)
def test_none_or_several_have_to_be_named(found, says):
    """
    No guess where traffic of people goes.
    """
    with pytest.raises(RoutingError, match=says):
        gateway_of(found, None)


@pytest.mark.parametrize(
    ("found", "url"),
    [
        (None, None),
        (gateway(), "http://10.0.0.7"),
        (gateway(listeners=(("TCP", 5432), ("HTTPS", 443))), "https://10.0.0.7:443"),
        (gateway(listeners=(("HTTP", 8080),)), "http://10.0.0.7:8080"),
        (gateway(addresses=("fd00::7",)), "http://[fd00::7]"),
        (gateway(addresses=()), None),
        (gateway(listeners=(("TCP", 5432),)), None),
        ({"metadata": {}, "spec": {}}, None),
    ],
)
def test_the_address_of_a_gateway(found, url):
    """
    Of its first listener for HTTP; None when it does not say.
    """
    assert url_of(found) == url


# Binding ----------------------------------------------------------------------------------------------------------------


class Client:
    """A namespace whose user may or may not see Gateways."""

    namespace = "ns"

    def __init__(self, gateways):
        self._gateways = gateways

    def list(self, kind, selector="", *, everywhere=False, fields=""):
        """Gateways of all namespaces, for who may."""
        if self._gateways is None:
            raise ClusterError("no permission")
        return self._gateways


def bound(client, **asked):
    """A router of a service, of what was asked."""
    everything = {"router": "gateway-api", "url": None, "gateway": None, "hostname": None, "route": None}
    everything |= {"testers": True, "settle": 1.0, **asked}
    ready = {"stable": "/healthz", "canary": "/healthz"}
    return bind(client, "digits", everything, port=80, pod_port=8080, replicas=2, ready=ready)


def test_a_router_is_bound_to_the_gateway_that_is_there():
    """
    Address and name from the Gateway; the route is the kit's unless the user's is named.
    """
    router = bound(Client([gateway()]), hostname="ai.example.com")
    assert (router.url, router.name, router.hostname) == ("http://10.0.0.7", "digits", "ai.example.com")
    assert router.objects()[0]["spec"]["parentRefs"] == [{"name": "web", "namespace": "infra"}]
    assert bound(Client([gateway()]), route="own").objects() == []


def test_a_user_who_may_not_see_gateways_says_both():
    """
    Then the name and the address are asked for, one after the other.
    """
    with pytest.raises(RoutingError, match="no Gateway is to be seen here"):
        bound(Client(None))
    with pytest.raises(PlanError, match=r"where the gateway of router gateway-api is reached: give url="):
        bound(Client(None), gateway="infra/web")
    assert bound(Client(None), gateway="infra/web", url="http://ai.example.com").url == "http://ai.example.com"
    with pytest.raises(PlanError, match="router istio is reached: give url="):
        bound(Client(None), router="istio")


def test_replicas_need_no_gateway():
    """
    Twice as many pods as a version has, behind one Service.
    """
    (service,) = bound(Client(None), router="replicas").objects()
    assert service["spec"]["ports"][0]["targetPort"] == 8080
    assert bound(Client(None), router="replicas")._pods == 4


# Addresses --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """What clients of a cluster are made with."""
    seen = []

    class Made:
        def __init__(self, context, namespace, *, notify):
            seen.append((context, namespace))
            self.namespace = namespace

    monkeypatch.setattr(kube, "Client", Made)
    return seen


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("kube", (None, "ai-services")),
        ("kube:", (None, "ai-services")),
        ("kube:prod", ("prod", "ai-services")),
        ("kube:prod/search", ("prod", "search")),
        ("kube:/search", (None, "search")),
        ("kube:arn:aws:eks:eu:1:cluster/prod/search", ("arn:aws:eks:eu:1:cluster/prod", "search")),
        ("kube:prod/search?router=replicas", ("prod", "search")),
    ],
)
def test_context_and_namespace_of_an_address(made, where, place):
    """
    Both may be left out; a context may have slashes.
    """
    cluster = ck.connect(where)
    assert isinstance(cluster, ck.KubeCluster)
    assert made == [place]


def test_options_of_an_address(made):
    """
    As of KubeCluster, with what a URL may hold.
    """
    cluster = ck.connect(
        "kube:p/n?gateway=infra/web&hostname=ai.example.com&route=own&server_image=r/s:1&url=http://g:80/&settle=60"
    )
    assert cluster._asked == {
        "router": "gateway-api",
        "url": "http://g:80/",
        "gateway": "infra/web",
        "hostname": "ai.example.com",
        "route": "own",
        "testers": True,
        "settle": 60.0,
    }
    for said, testers in (("True", True), ("false", False)):
        assert ck.connect(f"kube:p/n?testers={said}")._asked["testers"] is testers
    assert ck.KubeCluster(testers="k3y-of-ours")._asked["testers"] == "k3y-of-ours"
    with pytest.raises(PlanError, match=r"testers= in the address of a cluster is true or false") as refused:
        ck.connect("kube:p/n?testers=k3y-of-ours")
    assert "k3y" not in str(refused.value)
    with pytest.raises(PlanError, match=r"settle= in the address of a cluster takes a number"):
        ck.connect("kube:p/n?settle=long")
    with pytest.raises(PlanError, match=r"settle= takes seconds from 0 to 600, not -1"):
        ck.connect("kube:p/n?settle=-1")
    with pytest.raises(PlanError, match=r"settle= takes seconds from 0 to 600, not 601"):
        ck.connect("kube:p/n?settle=601")
    assert cluster.workload.image == "r/s:1"


def test_every_option_that_can_be_text_is_one_of_an_address(made):
    """
    Numbers, true and false are read as such; of the pods as well, and names that hold dots.
    """
    asked = "adopt=true&lease=30&ready_within=7.5&gpus=2&grace=90&node_selector.example.com/disk=ssd&node_selector.zone=a"
    cluster = ck.connect(f"kube:p/n?{asked}")
    assert (cluster._adopt, cluster._lease_seconds, cluster._ready_within) == (True, 30, 7.5)
    assert (cluster.workload.gpus, cluster.workload.grace) == (2, 90)
    assert cluster.workload.node_selector == {"example.com/disk": "ssd", "zone": "a"}
    assert ck.connect("kube:p/n?adopt=False")._adopt is False


def test_options_follow_the_parameters():
    """
    A new parameter is an option by itself, of the kind that it takes; what cannot be text is none.
    """

    def made(
        *,
        testers: bool | str = True,
        share: float | None = None,
        kind: Literal["a", "b"] = "a",
        notify: Callable[[str], object] | None = None,
    ):
        """Take some."""

    known = options_of(made)
    assert read_options("testers=false&share=2&kind=b", known, "it") == {"testers": False, "share": 2.0, "kind": "b"}
    assert read_options("testers=qa-only", known, "it") == {"testers": "qa-only"}
    with pytest.raises(PlanError, match="has no option notify: there are testers, share, kind;"):
        read_options("notify=x", known, "it")


@pytest.mark.parametrize("given", [{"lease": 60.5}, {"lease": True}, {"lease": "60"}, {"ready_within": "120"}], ids=str)
def test_times_that_are_none_are_refused(made, given):
    """
    Before any cluster is asked, as in an address.
    """
    with pytest.raises(PlanError, match=f"{next(iter(given))}= takes a"):
        ck.KubeCluster(**given)
    assert made == []


def test_how_requests_are_counted_is_an_option_of_an_address(made):
    """
    As of KubeCluster: port and path of pods' pages and paths to leave out; or a Prometheus, its token and the series.
    """
    counting = ck.connect("kube:p/n?metrics=fastapi&port=8082&path=/stats&ignore=/healthz,/metrics")._counting
    assert (counting.metrics, counting.port, counting.path) == ("fastapi", 8082, "/stats")
    assert counting.entry(["/v2/health/ready"]).ignore == ("/healthz", "/metrics", "/v2/health/ready")
    said = ck.KubeCluster(metrics="fastapi", port=8082, path="/stats", ignore=["/healthz", "/metrics"])._counting
    assert said.entry(["/v2/health/ready"]) == counting.entry(["/v2/health/ready"])


@pytest.mark.parametrize(
    "select",
    [
        "select=service%3D~%22ai-chat-{role}-.%2B%22%2Cmethod%21%3D%22GET%26HEAD%22",
        'select=service=~"ai-chat-{role}-.%2B",method!="GET%26HEAD"',
        "select.stable=service%3D~%22ai-chat-stable-.%2B%22%2Cmethod%21%3D%22GET%26HEAD%22&"
        "select.canary=service%3D~%22ai-chat-canary-.%2B%22%2Cmethod%21%3D%22GET%26HEAD%22",
    ],
)
def test_series_are_an_option_of_an_address(made, select):
    """
    With signs of a URL percent-encoded; for both versions in one text, or for each.
    """
    counting = ck.connect(f"kube:p/n?prometheus=http://p:9090&prometheus_token_file=/run/token&{select}")._counting
    assert counting.prometheus_token_file == "/run/token"
    assert counting.selected("n", target_of("chat", 80), None) == {
        role: f'service=~"ai-chat-{role}-.+",method!="GET&HEAD"' for role in ("stable", "canary")
    }


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("kube:p/n?metrics_port=1", "has no option metrics_port: there are router, .*, select, select.KEY, port, path, ignore"),
        ("kube:p/n?port=http", "port= in the address of a cluster takes a whole number"),
        ("kube:p/n?port=-1", "port= takes the port of the pods' metrics"),
        ("kube:p/n?path=stats", "path= takes paths that begin with a slash"),
        ("kube:p/n?ignore=", "says no value of ignore"),
        ("kube:p/n?port=1&port=2", "has the option port twice"),
        ('kube:p/n?prometheus=http://p&select=a="x"', "the same series for both versions"),
        ('kube:p/n?prometheus=http://p&select.canary=a="x"', "takes matchers of stable and of canary, not of canary"),
        ('kube:p/n?prometheus=http://p&select=a="{role}"&select.canary=a="x"', "has both select= and select.canary="),
        ('kube:p/n?prometheus=http://p&select=a=~"{role}-.+"', "a \\+ is written %2B"),
        ("kube:p/n?prometheus=http://me:sec&cret@p:9090", "has an option that is not known: there are router"),
    ],
)
def test_an_address_that_says_how_to_count_in_words_that_make_no_sense_is_refused(made, where, says):
    """
    Before any cluster is asked, with the options that there are; what follows an & in a password is not shown.
    """
    with pytest.raises(PlanError, match=says) as refused:
        ck.connect(where)
    assert "cret" not in str(refused.value)
    assert made == []


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("kube:p/n?gatway=x", "has no option gatway: there are router, url, gateway"),
        ("kube:p/n?notify=print&workload=x", "has no option notify, workload"),
        ("kube:p/n?gateway.name=x", "has no option gateway.name"),
        ("kube:p/n?node_selector=ssd", r"has no option node_selector: .*node_selector\.KEY"),
        ("kube:p/n?adopt=yes", "adopt= in the address of a cluster takes true or false"),
        ("kube:p/n?lease=1m", "lease= in the address of a cluster takes a whole number"),
        ("kube:p/n?lease=4", "lease= takes a whole number of seconds, 5 or more, not 4"),
        ("kube:p/n?ready_within=long", "ready_within= in the address of a cluster takes a number"),
        ("kube:p/n?ready_within=nan", "ready_within= takes a number of seconds above 0"),
        ("kube:p/n?gpus=-1", "gpus must be 0 or more"),
        ("kube:p/n?gateway=", "says no value of gateway: write gateway=…, or leave it out"),
        ("kube:p/n?hostname", "says no value of hostname"),
        ("kube:p/n?router=nginx", "no router is known as 'nginx'"),
        ("kube:p/n?metrics=grafana", "nothing is known of metrics called 'grafana'"),
        ("kubernetes:p/n", "no cluster is known as 'kubernetes:p/n'"),
    ],
)
def test_an_address_that_is_misspelt_is_refused(made, where, says):
    """
    Before any cluster is asked.
    """
    with pytest.raises(PlanError, match=says):
        ck.connect(where)
    assert made == []


@pytest.mark.parametrize(
    ("kind", "more"),
    [("kube", f"&{more}") for more in ("gatway=x", "gateway=", "router=nginx", "metrics=grafana", "service_type=Odd")]
    + [("kubernetes", "")],
)
def test_no_error_of_an_address_shows_a_password(made, kind, more):
    """
    Errors end up in the logs of a build server: they name the option, and no value beside the one that is wrong.
    """
    with pytest.raises(PlanError) as refused:
        ck.connect(f"{kind}:p/n?prometheus=http://me:secret@host:9090{more}")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@gateway",
        "https://secret@gateway",
        "https://me:sec/ret@gateway",
        "https://me:1/secret@gateway",
        "https://me:secret@gateway:port",
    ],
)
@pytest.mark.parametrize("how", ["KubeCluster", "connect"])
def test_a_password_in_the_gateways_address_is_refused(made, url, how):
    """
    Progress, errors and the journal hold that address; the error names the parameter and what to do, never the value.
    """
    with pytest.raises(PlanError, match=r"^url= has a user or a password in it .*give an address that needs none") as refused:
        ck.KubeCluster(url=url) if how == "KubeCluster" else ck.connect(f"kube:p/n?url={url}")
    assert not any(part in str(refused.value) for part in ("secret", "ret@"))
    assert refused.value.__context__ is None
    assert made == []


@pytest.mark.parametrize(
    "url",
    ["gateway", "gateway:80", "//gateway", "http://", "http:///path", "ftp://gateway", "http://gateway:http", "http://gateway:0",
     "http://gateway:99999", "http://gate way", "http://gateway\n", "http://[::1", "http://a..b", f"http://{'a' * 70}", "",
     "http://gateway?token=secret", "http://gateway/#part"],
)  # fmt: skip
@pytest.mark.parametrize("parameter", ["url", "prometheus"])
def test_what_is_no_address_is_refused_at_once(made, url, parameter):
    """
    Rather than when it is asked for the first time.
    """
    with pytest.raises(PlanError, match=f"^{parameter}= is no address of the form http://HOST:PORT/PATH") as refused:
        ck.KubeCluster(**{parameter: url})
    assert "secret" not in str(refused.value)
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway",
        "https://ai.example.com/",
        "http://10.0.0.7:8080/models",
        "http://[::1]:80",
        "HTTPS://g.",
        "http://b\u00fc.de",
    ],
)
@pytest.mark.parametrize("parameter", ["url", "prometheus"])
def test_what_is_an_address(made, url, parameter):
    """
    With a port and a path, by name or number. That of a Prometheus may have a password, which is never shown.
    """
    ck.KubeCluster(**{parameter: url})
    ck.KubeCluster(prometheus="http://me:s%40cret@prometheus:9090")
    with pytest.raises(PlanError, match=r"^prometheus= is no address of the form") as refused:
        ck.KubeCluster(prometheus="http://me:1/secret@prometheus:9090")
    assert "secret" not in str(refused.value)
