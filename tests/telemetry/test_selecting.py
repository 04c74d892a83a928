"""Which series are a version's: its own under every name that a gateway gives them, and nobody else's."""

import json
import re
import time

import pytest
from telemetry_doubles import Prometheus

from canarykit.errors import PlanError
from canarykit.model import ROLES, TrafficSplit
from canarykit.places import managed_places
from canarykit.telemetry.catalogue import EXPOSITIONS, Exposition, exported, labels_of, matchers_of, unreached
from canarykit.telemetry.prometheus import PrometheusTelemetry

ROUTE = "httproute-ai-chat-gw-web-front-ep-websecure"
POD = {"namespace": "ai"}
PODS = ("canarykit", "vllm", "triton", "mlserver", "seldon", "tgi", "bentoml", "ray-serve", "fastapi")

# Of each entry: series of chat-canary in namespace ai, and series of others that look alike.
OURS = {
    "traefik": [
        {"service": "ai-chat-canary-80@kubernetes"},
        {"service": "ai-chat-canary-http@kubernetes"},
        {"service": "ai-chat-canary-80@kubernetescrd"},
        {"service": "ai-chat-canary-80@kubernetesgateway"},
        {"service": "ai-chat-canary-http-80@kubernetesgateway"},
        {"service": f"{ROUTE}-0-3f2a9c-svc-ai-chat-canary-1@kubernetesgateway"},
    ],
    "istio": [{"destination_workload": "chat-canary", "destination_workload_namespace": "ai", "reporter": "source"}],
    "envoy": [
        {"envoy_cluster_name": "ai/chat-canary/80/da39a3ee5e"},
        {"envoy_cluster_name": "web/cilium-gateway-front/ai:chat-canary:80"},
        {"envoy_cluster_name": "web/cilium-gateway-front/ai_chat-canary_80"},
        {"envoy_cluster_name": "kube_ai_chat-canary_80"},
    ],
    "ingress-nginx": [
        {"namespace": "ai", "service": "chat-stable", "canary": "ai-chat-canary-80"},
        {"namespace": "ai", "service": "chat-stable", "canary": "ai-chat-canary-http"},
    ],
    **{
        name: [{"pod": "chat-canary-7d4b9c-x2x9z", **POD}, {"pod": "chat-canary-66b6c48dd5-abcde", **POD, "job": "pods"}]
        for name in PODS
    },
}
OTHERS = {
    "traefik": [
        {"service": "team-ai-chat-canary-80@kubernetes"},
        {"service": "ai-chat-canary-embedding-80@kubernetes"},
        {"service": "ai-my-chat-canary-80@kubernetes"},
        {"service": "ai-chat-stable-80@kubernetes"},
        {"service": "ai-chat-canary-8080@kubernetes"},
        {"service": "ai-chat-canary-80@docker"},
        {"service": "team-ai-chat-canary-http-80@kubernetesgateway"},
        {"service": "ai-chat-canary-embedding-http-80@kubernetesgateway"},
        {"service": "httproute-team-ai-chat-gw-web-front-ep-web-0-3f2a9c-svc-team-ai-chat-canary-1@kubernetesgateway"},
        {"service": f"{ROUTE}-0-3f2a9c-svc-ai-chat-canary-embedding-1@kubernetesgateway"},
        {"service": f"{ROUTE}-0-3f2a9c-svc-team-ai-chat-canary-1@kubernetesgateway"},
        {"service": f"{ROUTE}-0-3f2a9c-wrr@kubernetesgateway"},
    ],
    "istio": [
        {"destination_workload": "chat-canary", "destination_workload_namespace": "team-ai", "reporter": "source"},
        {"destination_workload": "chat-canary-embedding", "destination_workload_namespace": "ai", "reporter": "source"},
        {"destination_workload": "my-chat-canary", "destination_workload_namespace": "ai", "reporter": "source"},
        {"destination_workload": "chat-canary", "destination_workload_namespace": "ai", "reporter": "destination"},
    ],
    "envoy": [
        {"envoy_cluster_name": "team-ai/chat-canary/80/da39a3ee5e"},
        {"envoy_cluster_name": "ai/chat-canary-embedding/80/da39a3ee5e"},
        {"envoy_cluster_name": "ai/my-chat-canary/80/da39a3ee5e"},
        {"envoy_cluster_name": "ai/chat-canary/8080/da39a3ee5e"},
        {"envoy_cluster_name": "web/cilium-gateway-front/team-ai:chat-canary:80"},
        {"envoy_cluster_name": "kube_team-ai_chat-canary_80"},
        {"envoy_cluster_name": "kube_ai_chat-canary-embedding_80"},
        {"envoy_cluster_name": "httproute/ai/chat/rule/0"},
    ],
    "ingress-nginx": [
        {"namespace": "team-ai", "service": "chat-stable", "canary": "team-ai-chat-canary-80"},
        {"namespace": "ai", "service": "chat-stable", "canary": "ai-chat-canary-embedding-80"},
        {"namespace": "ai", "service": "chat-stable", "canary": "ai-my-chat-canary-80"},
        {"namespace": "ai", "service": "chat-stable"},
    ],
    **{
        name: [
            {"pod": "chat-canary-7d4b9c-x2x9z", "namespace": "team-ai"},
            {"pod": "chat-canary-embedding-7d4b9c-x2x9z", **POD},
            {"pod": "chat-canary-embedding-x2x9z", **POD},
            {"pod": "chat-canary-embedding-0", **POD},
            {"pod": "my-chat-canary-7d4b9c-x2x9z", **POD},
            {"pod": "chat-stable-7d4b9c-x2x9z", **POD},
        ]
        for name in PODS
    },
}


def fits(asked, labels):
    """Whether a series has the labels that are asked for, as Prometheus matches them: the whole value, absent is empty."""
    return all(
        re.fullmatch(value[1:], labels.get(name, "")) is not None if value.startswith("~") else labels.get(name, "") == value
        for name, value in asked.items()
    )


def canary(name, **options):
    """What is asked for of chat-canary in namespace ai."""
    return labels_of(name, "ai", managed_places("chat")["canary"], "canary", **options)


@pytest.mark.parametrize("name", OURS)
def test_series_of_this_service_are_selected_and_no_others(name):
    """
    Under each name that a gateway gives them; not of other namespaces, of longer or shorter names, or of another port.
    """
    assert [labels for labels in OURS[name] if not fits(canary(name), labels)] == []
    assert [labels for labels in OTHERS[name] if fits(canary(name), labels)] == []
    assert not any(fits(labels_of(name, "ai", managed_places("chat")["stable"], "stable"), labels) for labels in OURS[name])
    assert len(OTHERS[name]) >= 4


def test_every_entry_is_selected_or_asks_for_it():
    """
    An entry whose labels name models and not versions has to be told which are whose.
    """
    asking = set(EXPOSITIONS) - set(OURS)
    assert asking == {"llm-d", "envoy-ai-gateway"}
    for name in asking:
        with pytest.raises(PlanError, match=r"nothing is known that tells the versions apart .*select='\w+=\"chat-\{role\}\"'"):
            canary(name)


def test_an_app_whose_name_begins_like_a_role_is_another_one():
    """
    The app chat-canary-embedding has versions of its own: none of its series is of chat's canary, nor the other way round.
    """
    for name in OURS:
        for role in ROLES:
            other = labels_of(name, "ai", managed_places("chat-canary-embedding")[role], role)
            assert not any(fits(other, labels) for labels in OURS[name])


def test_stable_of_ingress_nginx_has_no_alternative_upstream():
    """
    There a request to the canary is labelled with stable's Service too.
    """
    stable = labels_of("ingress-nginx", "ai", managed_places("chat")["stable"], "stable")
    assert fits(stable, {"namespace": "ai", "service": "chat-stable"})
    assert not fits(stable, OURS["ingress-nginx"][0])
    assert not fits(stable, {"namespace": "team-ai", "service": "chat-stable"})


def test_the_port_of_the_services_is_part_of_their_name():
    """
    Who serves at another port says so once, in the workload.
    """
    assert fits(canary("traefik", port=8000), {"service": "ai-chat-canary-8000@kubernetes"})
    assert fits(canary("envoy", port=8000), {"envoy_cluster_name": "kube_ai_chat-canary_8000"})
    assert not fits(canary("traefik", port=8000), {"service": "ai-chat-canary-80@kubernetes"})


def test_rules_for_testers_are_left_out_where_traefik_names_the_rule():
    """
    Requests with the testers' header were not assigned: since 3.6 their rule has counters of its own.
    """
    asked = canary("traefik", route="chat", rules=(0,))
    assert fits(asked, {"service": f"{ROUTE}-0-3f2a9c-svc-ai-chat-canary-1@kubernetesgateway"})
    assert not fits(asked, {"service": f"{ROUTE}-2-77aa01-svc-ai-chat-canary-0@kubernetesgateway"})
    assert not fits(asked, {"service": f"{ROUTE.replace('chat', 'demo')}-0-77aa01-svc-ai-chat-canary-0@kubernetesgateway"})


@pytest.mark.parametrize("length", [5, 44, 45, 52])
def test_pods_of_long_names_are_selected_although_kubernetes_shortens_them(length):
    """
    A pod's name has its Deployment's, that of the ReplicaSet and five letters, of which the first two are cut at 58.
    """
    app = "a" * length
    asked = labels_of("vllm", "ai", managed_places(app)["canary"], "canary")
    stem = f"{app}-canary-66b6c48dd5-"[:58]
    assert fits(asked, {"pod": f"{stem}x2x9z", "namespace": "ai"})
    assert not fits(asked, {"pod": f"{app}-stable-66b6c48dd5-"[:58] + "x2x9z", "namespace": "ai"})


# Under an operator ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["traefik", "ingress-nginx", "vllm"])
def test_labels_that_an_operator_renames_are_known_under_both_names(name):
    """
    With honorLabels: false the operator's service, namespace and pod win, and the page's own become exported_….
    """
    operator = {"service": "gateway-metrics", "namespace": "ingress", "pod": "gateway-1"}
    plain, renamed = canary(name), exported(canary(name))
    for labels in OURS[name]:
        stored = {f"exported_{key}" if key in operator else key: value for key, value in labels.items()} | operator
        assert not fits(plain, stored)
        assert fits(renamed, stored)
        assert not fits(renamed, labels)


def test_a_pod_monitor_takes_no_label_service():
    """
    ingress-nginx under a PodMonitor keeps its own service, while its namespace is renamed.
    """
    for role in ("stable", "canary"):
        asked = exported(labels_of("ingress-nginx", "ai", managed_places("chat")[role], role), by_pod=True)
        assert "exported_namespace" in asked
        assert "exported_service" not in asked


def test_labels_that_no_operator_has_are_asked_for_once():
    """
    Istio's and Envoy's names are nobody else's.
    """
    assert exported(canary("istio")) == canary("istio")
    assert exported(canary("envoy")) == canary("envoy")


def test_failures_that_reached_no_pod_are_the_versions_too():
    """
    Istio knows no workload of them: those of a canary without a ready pod are under the name of its Service alone.
    """
    lost = {
        "destination_workload": "unknown",
        "destination_service_name": "chat-canary",
        "destination_service_namespace": "ai",
        "reporter": "source",
        "response_code": "503",
        "response_flags": "UH",
    }
    (asked,) = unreached("istio", "ai", managed_places("chat")["canary"])
    assert fits(asked, lost)
    assert EXPOSITIONS["istio"].kind(lost) == "failed"
    assert not fits(asked, lost | {"destination_service_namespace": "team-ai"})
    assert not fits(asked, lost | {"destination_service_name": "chat-canary-embedding"})
    assert not fits(asked, OURS["istio"][0] | {"destination_service_name": "chat-canary"})  # those are counted already
    assert unreached("traefik", "ai", managed_places("chat")["canary"]) == ()


class Stored(Prometheus):
    """A Prometheus that stores series under labels of a test's choice, and matches as PromQL does."""

    def store(self, labels, *totals, since):
        """Scrape a counter every 15 s from 29 s before a moment."""
        labels = {"__name__": "traefik_service_requests_total", "code": "200", **labels}
        self.series[json.dumps(labels)] = [[since - 29 + 15 * n, str(total)] for n, total in enumerate(totals)]

    def query(self, query, at):
        """Answer a query for a range of samples."""
        self.asked.append(query)
        name, matchers, seconds = re.fullmatch(r"(\w+)\{(.*)}\[(\d+)s]", query).groups()
        asked = {key: ("~" if sign == "=~" else "") + json.loads(text) for key, sign, text in
                 re.findall(r'(\w+)(=~|=)("(?:[^"\\]|\\.)*")', matchers)}  # fmt: skip
        result = []
        for key, values in self.series.items():
            labels, inside = json.loads(key), [value for value in values if at - int(seconds) < value[0] <= at]
            if labels["__name__"] == name and fits(asked, labels) and inside:
                result.append({"metric": labels, "values": inside})
        return json.dumps({"status": "success", "data": {"result": result}})


@pytest.fixture
def stored():
    """A Prometheus of a test's own."""
    made = Stored()
    yield made
    made.close()


def counted(stored, since):
    """Requests of both versions from that moment on."""
    select = {role: labels_of("traefik", "ai", managed_places("chat")[role], role) for role in ROLES}
    telemetry = PrometheusTelemetry(f"http://{stored.url}", "traefik", select)
    telemetry.begin(TrafficSplit(25), since)
    return telemetry.read(since + 50), telemetry


SERVICE = {role: f"ai-chat-{role}-80@kubernetes" for role in ROLES}
TOTALS = {"stable": (10, 10, 10, 40, 70), "canary": (5, 5, 5, 15, 25)}


@pytest.mark.parametrize("spelling", ["service", "exported_service"])
def test_counts_are_found_under_either_name(stored, spelling):
    """
    Nobody has to say how the gateway is scraped; what is asked is shown.
    """
    since = now() - 100
    for role in ROLES:
        stored.store({"service": "gateway-metrics", "pod": "gw-1", spelling: SERVICE[role]}, *TOTALS[role], since=since)
    window, telemetry = counted(stored, since)
    assert window.requests == (60, 20)
    assert telemetry.sources["requests of canary"].split(": ", 1)[1].startswith(f"traefik_service_requests_total{{{spelling}=~")
    asked = len(stored.asked)
    telemetry.read(since + 60)
    assert len(stored.asked) == asked + 4  # only under the name that was found


def test_a_gateway_that_is_stored_under_both_names_is_counted_once(stored):
    """
    Two monitors scrape it, one with honorLabels and one without.
    """
    since = now() - 100
    for role in ROLES:
        stored.store({"service": SERVICE[role], "pod": "gw-1"}, *TOTALS[role], since=since)
        renamed = {"service": "metrics", "exported_service": SERVICE[role], "pod": "gw-1"}
        stored.store(renamed, *TOTALS[role], since=since)
    assert counted(stored, since)[0].requests == (60, 20)


def test_other_namespaces_and_longer_names_are_not_counted(stored):
    """
    Staging and another app are stored beside them, and have ten times the requests.
    """
    since = now() - 100
    for role in ROLES:
        stored.store({"service": SERVICE[role], "pod": "gw-1"}, *TOTALS[role], since=since)
        for other in (f"team-ai-chat-{role}-80@kubernetes", f"ai-chat-{role}-embedding-80@kubernetes"):
            stored.store({"service": other, "pod": "gw-1"}, *(100 * total for total in TOTALS[role]), since=since)
    assert counted(stored, since)[0].requests == (60, 20)


def now():
    """Seconds since the epoch, whole."""
    return float(round(time.time()))


def test_series_in_a_list_are_added_up(stored):
    """
    A version's requests that reached a pod, and those that did not.
    """
    since = now() - 100
    for role in ROLES:
        stored.store({"workload": role, "pod": "gw-1"}, *TOTALS[role], since=since)
    stored.store({"workload": "unknown", "of": "canary", "code": "503", "pod": "gw-1"}, 0, 0, 0, 3, 4, since=since)
    select = {"stable": {"workload": "stable"}, "canary": [{"workload": "canary"}, 'workload="unknown",of="canary"']}
    telemetry = PrometheusTelemetry(f"http://{stored.url}", "traefik", select)
    telemetry.begin(TrafficSplit(25), since)
    assert telemetry.read(since + 50).counts["outcome"].tolist() == [[60, 0], [20, 4]]
    assert telemetry.sources["requests of canary"].endswith(
        'traefik_service_requests_total{workload="canary"} or traefik_service_requests_total{workload="unknown",of="canary"}'
    )


# By hand ----------------------------------------------------------------------------------------------------------------


def test_matchers_by_hand_name_both_versions():
    """
    One text in which {role} stands for the version, or one for each; braces around it may be left out.
    """
    text = 'envoy_cluster_name="{namespace}-{app}-{role}", envoy_response_code!~"1.."'
    expected = 'envoy_cluster_name="ai-chat-canary",envoy_response_code!~"1.."'
    assert matchers_of(text, "ai", "chat")["canary"] == expected
    assert matchers_of(f"{{{text}}}", "ai", "chat")["canary"] == expected
    each = {"stable": 'cluster="httproute/ai/chat/rule/0/backend/0"', "canary": 'cluster=~"httproute/.*/backend/1"'}
    assert matchers_of(each) == each


@pytest.mark.parametrize(
    ("select", "says"),
    [
        ("chat-{role}", "takes matchers as PromQL has them"),
        ('service="chat-{role}', "takes matchers as PromQL has them"),
        ('service="chat-{role}"} or up{', "takes matchers as PromQL has them"),
        ("", "takes matchers as PromQL has them"),
        ('service="chat"', "picks the same series for both versions"),
        ({"stable": 'a="b"'}, "takes matchers of stable and of canary, not of stable"),
        ({"stable": 'a="b"', "canary": 'a="b"'}, "picks the same series for both versions"),
    ],
)
def test_matchers_that_cannot_work_are_refused(select, says):
    """
    No matchers, half of them, or such as count one version's requests for both.
    """
    with pytest.raises(PlanError, match=says):
        matchers_of(select)


def test_an_entry_of_ones_own_of_a_gateway_asks_for_its_label():
    """
    Nobody else knows how it names its backends.
    """
    own = Exposition("my_requests", "my_seconds", "code", backend="upstream")
    with pytest.raises(PlanError, match=r"select='upstream=\"chat-\{role\}\"'"):
        labels_of(own, "ai", managed_places("chat")["stable"], "stable")
