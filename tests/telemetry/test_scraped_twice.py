"""A pod that several jobs or Prometheuses scrape is counted once."""

import time

import pytest
from telemetry_doubles import REQUESTS, Prometheus

from canarykit.model import ROLES, TrafficSplit
from canarykit.telemetry.catalogue import Exposition
from canarykit.telemetry.prometheus import PrometheusTelemetry

GATEWAY = Exposition(REQUESTS, "canarykit_request_duration_seconds", "code", backend="role")


@pytest.fixture
def prometheus():
    """A double of Prometheus' API."""
    made = Prometheus()
    yield made
    made.close()


@pytest.fixture
def since():
    """A moment at which a weight came into force."""
    return round(time.time()) - 200.0


def scraped(prometheus, since, *copies, shift=4.0, rate=40 / 15, until=13):
    """Both pods, scraped every 15 s by each of the copies some seconds later than by the one before."""
    for number in range(-20, until):
        for place, labels in enumerate(copies):
            at = 15 * number + shift * place
            for role in ROLES:
                prometheus.scrape(since + at, role, 1000 + round(rate * (at + 300)), **{"pod": f"{role}-0"} | labels)


def counting(prometheus, since, entry="canarykit"):
    """Telemetry that counts since a moment."""
    made = PrometheusTelemetry(f"http://{prometheus.url}", entry, {role: {"role": role} for role in ROLES})
    made.begin(TrafficSplit(50), since)
    return made


def step_by_step(prometheus, since):
    """Requests of both versions that are counted when each scrape is seen as it comes."""
    real, telemetry, counted = prometheus.series, None, [0, 0]
    for now in range(0, 196, 5):
        prometheus.series = {key: [value for value in values if value[0] <= since + now] for key, values in real.items()}
        telemetry = telemetry or counting(prometheus, since)
        counted = [have + more for have, more in zip(counted, telemetry.read(since + now).requests, strict=True)]
    return counted


@pytest.mark.parametrize(
    "copies",
    [
        [{}],
        [{"job": "ai/chat"}, {"job": "fleet/all-pods"}],
        [{"job": "chat", "service": "chat"}, {"job": "chat", "service": "chat-headless"}],
        [{"container": "server", "endpoint": "http"}, {"container": "proxy", "endpoint": "admin"}],
        [{"prometheus_replica": "prometheus-0"}, {"prometheus_replica": "prometheus-1"}],
        [{"replica": "a", "prometheus": "m/k8s"}, {"replica": "b", "prometheus": "m/k8s"}],
        [{"job": "a"}, {"job": "b"}, {"job": "c"}],
        # The classic job copies the labels of the pod to its series, and the operator's monitor does not.
        [{"job": "kubernetes-pods", "app": "chat", "pod_template_hash": "5f"}, {"job": "ai/chat"}],
        [{"job": "a", "instance": "10.0.0.1:8000"}, {"job": "b", "instance": "10.0.0.1:15020"}],
    ],
    ids=["once", "jobs", "services", "containers", "replicas", "thanos", "thrice", "pod labels", "ports"],
)
def test_copies_are_counted_once(prometheus, since, copies):
    """
    Whatever label tells the copies apart: 40 requests between two scrapes are 40, not the sum, and no life is added.
    """
    scraped(prometheus, since, *copies)
    telemetry = counting(prometheus, since)
    assert telemetry.read(since + 195).requests == (480, 480)
    twice = telemetry.sources.get("scraped twice", "")
    assert ("canary-0 is scraped" in twice) is (len(copies) > 1)
    assert ("twice" in twice) is (len(copies) == 2)


def test_copies_at_the_same_moment_are_one_counter_as_well(prometheus, since):
    """
    Two jobs that happen to scrape at the same time see the same.
    """
    scraped(prometheus, since, {"job": "a"}, {"job": "b"}, shift=0.0)
    assert counting(prometheus, since).read(since + 195).requests == (480, 480)


def test_a_gateway_that_two_jobs_scrape_is_counted_once(prometheus, since):
    """
    A gateway has no pod of a version: its source is its instance, and each of its series is there twice.
    """
    for number in range(-20, 13):
        for place, job in enumerate(("traefik", "fleet/gateways")):
            at = 15 * number + 4 * place
            for role in ROLES:
                prometheus.scrape(since + at, role, 1000 + round(40 / 15 * (at + 300)), instance="10.0.0.9:9100", job=job)
    telemetry = counting(prometheus, since, GATEWAY)
    assert telemetry.read(since + 195).requests == (480, 480)
    assert "10.0.0.9:9100 is scraped twice" in telemetry.sources["scraped twice"]


def test_a_copy_takes_over_when_the_counted_one_ends(prometheus, since):
    """
    One of two monitors is deleted: the other one goes on where it ended, without a gap and without a life.
    """
    scraped(prometheus, since, {"job": "a"}, {"job": "b"}, until=4)
    for number in range(4, 13):
        for role in ROLES:
            prometheus.scrape(
                since + 15 * number + 4, role, 1000 + round(40 / 15 * (15 * number + 304)), pod=f"{role}-0", job="b"
            )
    counted = step_by_step(prometheus, since)
    # From the scrape of job a at the beginning to the last one of job b.
    assert counted == [round(40 / 15 * 184)] * 2


def test_a_copy_with_other_labels_takes_over_without_a_life(prometheus, since):
    """
    The job that ends copied the labels of the pod to its series, and the one that goes on does not.
    """
    scraped(prometheus, since, {"job": "a", "app": "chat"}, {"job": "b"}, until=4)
    for number in range(4, 13):
        for role in ROLES:
            prometheus.scrape(
                since + 15 * number + 4, role, 1000 + round(40 / 15 * (15 * number + 304)), pod=f"{role}-0", job="b"
            )
    counted = step_by_step(prometheus, since)
    assert all(400 <= count <= 491 for count in counted)


def test_a_gateways_own_label_may_be_that_of_its_target(prometheus, since):
    """
    An operator stores Traefik's service as exported_service, and names the Service that it scrapes, of which there are two.
    """
    entry = Exposition(REQUESTS, "canarykit_request_duration_seconds", "code", backend="service")
    for number in range(-20, 13):
        for place, service in enumerate(("traefik", "traefik-metrics")):
            for role in ROLES:
                at, labels = since + 15 * number + 4 * place, {"service": service, "job": "traefik", "exported_service": role}
                prometheus.scrape(at, role, 5000 + 40 * number + 10 * place, pod="traefik-0", **labels)
    assert counting(prometheus, since, entry).read(since + 195).requests == (480, 480)


def test_a_job_that_is_renamed_adds_no_life(prometheus, since):
    """
    The old series end, and those of another job begin at the total that the pod has by then.
    """
    for number in range(-20, 13):
        for role in ROLES:
            if number < 3 or number > 6:
                prometheus.scrape(since + 15 * number, role, 9000 + 10 * number, job="old" if number < 3 else "new")
    counted = step_by_step(prometheus, since)
    assert all(50 <= count <= 120 for count in counted)


def test_a_pod_that_restarts_at_another_address_is_the_same_pod(prometheus, since):
    """
    A StatefulSet gives a new pod the old name: its series have another instance, and it counts from zero.
    """
    for number in range(-20, 13):
        prometheus.scrape(since + 15 * number, "stable", 5000 + 40 * number, pod="stable-0")
        total, address = (5000 + 40 * number, "10.0.0.1:8000") if number < 5 else (40 * (number - 5) + 10, "10.0.0.2:8000")
        prometheus.scrape(since + 15 * number, "canary", total, pod="canary-0", instance=address)
    assert step_by_step(prometheus, since) == [480, 4 * 40 + 7 * 40 + 10]


def test_two_servers_in_one_pod_are_no_copies(prometheus, since):
    """
    Two engines of a pod on two ports have totals of their own: both count.
    """
    for number in range(-20, 13):
        for role in ROLES:
            for port, first, step, later in ((8000, 5000, 10, 0), (8001, 3000, 30, 4)):
                at = since + 15 * number + later
                prometheus.scrape(at, role, first + step * number, pod=f"{role}-0", instance=f"10.0.0.1:{port}")
    telemetry = counting(prometheus, since)
    assert telemetry.read(since + 195).requests == (12 * 40, 12 * 40)
    assert "scraped twice" not in telemetry.sources


def test_a_label_of_the_application_makes_no_copy(prometheus, since):
    """
    One page with a series for each of two models, under a label that targets usually have.
    """
    for number in range(-20, 13):
        for role in ROLES:
            for model, first, step in (("small", 5000, 10), ("large", 3000, 30)):
                prometheus.scrape(since + 15 * number, role, first + step * number, pod=f"{role}-0", replica=model)
    assert counting(prometheus, since).read(since + 195).requests == (12 * 40, 12 * 40)
