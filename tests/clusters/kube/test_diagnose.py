"""Why a pod does not come up, from what a cluster says of it."""

import itertools

import pytest

from canarykit.clusters.kube.workloads.diagnose import diagnose, is_ready, progress, refusal, sentence, serving
from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.errors import ClusterError
from canarykit.places import managed_places

IMAGE = "registry.example.com/ai:nope"


def pod(name="d-canary-7c9-x", *, state=None, ready=False, restarts=0, last=None, phase="Running", conditions=(), **more):
    """A pod as the API server returns it, one container."""
    container = {
        "name": "server",
        "image": IMAGE,
        "ready": ready,
        "started": ready,
        "restartCount": restarts,
        "state": state or {"running": {"startedAt": "2026-11-24T10:00:00Z"}},
        "lastState": {"terminated": last} if last else {},
    }
    status = {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": str(ready)}, *conditions],
        "containerStatuses": [container] if phase != "Pending" or state else [],
        **more,
    }
    labels = {"app": "d", "version": "canary"}
    return {"metadata": {"name": name, "labels": labels, "creationTimestamp": "2026-11-24T10:00:00Z"}, "status": status}


def waiting(reason, message=""):
    """State of a container that cannot begin."""
    return {"waiting": {"reason": reason, "message": message}}


def event(reason, message, kind="Pod", name="d-canary-7c9-x"):
    """What happened to an object."""
    return {"reason": reason, "message": message, "involvedObject": {"kind": kind, "name": name}}


PULL = pod(state=waiting("ImagePullBackOff", f'Back-off pulling image "{IMAGE}"'), phase="Pending")
LOOP = pod(state=waiting("CrashLoopBackOff"), restarts=4, last={"exitCode": 1, "reason": "Error"})
QUOTA = 'pods "d-canary-7c9-x" is forbidden: exceeded quota: small'
SECURITY = 'pods "d-canary-7c9-x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
WEBHOOK = 'admission webhook "policy.example.com" denied the request: images must be signed'
UNANSWERED = 'Internal error occurred: failed calling webhook "policy.example.com": connection refused'
LIMITS = 'pods "d-canary-7c9-x" is forbidden: maximum memory usage per Container is 512Mi, but limit is 1Gi'
UNSCHEDULABLE = pod(
    phase="Pending",
    conditions=[
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        }
    ],
)
UNHEALTHY = event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")


EVICTED = {
    "metadata": {"name": "d-canary-7c9-x", "labels": {"app": "d", "version": "canary"}},
    "status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
}
DISRUPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}
DRAINED = pod(conditions=[DISRUPTED])


def off_the_lists(**spec):
    """A pod that is not ready although its container was, the last time that its node reported."""
    made = pod(ready=True)
    made["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    return {**made, "spec": {"nodeName": "n1", **spec}}


GONE = off_the_lists()
GATED = off_the_lists(readinessGates=[{"conditionType": "lb.example.com/ready"}])


@pytest.mark.parametrize(
    ("pods", "events", "kind", "says", "log_of", "hopeless"),
    [
        ([PULL], [], "image", f"the image cannot be pulled ({IMAGE}): Back-off pulling", None, True),
        ([pod(state=waiting("InvalidImageName"), phase="Pending")], [], "image", "name is not valid", None, True),
        (
            [pod(state=waiting("CreateContainerConfigError", 'configmap "m" not found'))],
            [],
            "image",
            '"m" not found',
            None,
            True,
        ),
        ([LOOP], [], "crash", "ended 5 times by itself, last with exit code 1", "d-canary-7c9-x", True),
        (
            [pod(state=waiting("CrashLoopBackOff"), restarts=1, last={"exitCode": 2})],
            [],
            "crash",
            "ended twice by itself, last with exit code 2",
            "d-canary-7c9-x",
            True,
        ),
        ([EVICTED], [], "evicted", "ended by its node (Evicted): The node was low on resource: memory", None, False),
        ([DRAINED], [], "evicted", "was evicted (EvictionByEvictionAPI): Eviction API: evicting", None, False),
        ([GONE], [], "node", "is off the lists because node n1 reports no more", None, False),
        ([GATED], [], "probe", "waits for its readiness gate lb.example.com/ready", "d-canary-7c9-x", False),
        (
            [pod(phase="Pending", state=waiting("ContainerCreating"))],
            [event("FailedMount", 'configmap "m" not found')],
            "start",
            'configmap "m" not found',
            None,
            False,
        ),
        (
            [pod(restarts=1, last={"exitCode": 137, "reason": "OOMKilled"})],
            [],
            "crash",
            "ended once by itself, last with exit code 137, OOMKilled",
            "d-canary-7c9-x",
            False,
        ),
        ([pod()], [UNHEALTHY], "probe", "Readiness probe failed", "d-canary-7c9-x", False),
        ([UNSCHEDULABLE], [], "unschedulable", "finds no node: 0/1 nodes are available", None, False),
    ],
)
def test_each_trouble_is_told_from_the_others(pods, events, kind, says, log_of, hopeless):
    """
    With what the cluster says, whose log tells more, and whether waiting may help; each has its advice.
    """
    finding = diagnose(pods, events)
    assert (finding[0], finding[2], finding[3]) == (kind, log_of, hopeless)
    assert says in finding[1]
    assert sentence(finding, "").startswith(finding[1] + "\nCheck ")


@pytest.mark.parametrize(
    ("words", "kind", "hopeless"),
    [
        (QUOTA, "quota", True),
        (SECURITY, "policy", True),
        (WEBHOOK, "webhook", True),
        (UNANSWERED, "webhook", False),
        (LIMITS, "refused", True),
    ],
    ids=["quota", "pod security", "webhook", "webhook away", "limits"],
)
def test_a_refused_pod_is_told_in_the_real_words(words, kind, hopeless):
    """
    Whoever refuses it; only a webhook that did not answer is waited for.
    """
    finding = diagnose([], [], refused=words)
    assert finding == (kind, f"its pods are refused: {words}", None, hopeless)
    assert ("quota" in sentence(finding, "").partition("\n")[2]) is (kind == "quota")


@pytest.mark.parametrize(
    ("pods", "events"),
    [
        ([], []),
        ([pod(ready=True)], [UNHEALTHY]),  # it was slow to start, and is up
        ([pod(ready=True, restarts=2, last={"exitCode": 1})], []),  # it came back
        ([pod(state=waiting("ContainerCreating"), phase="Pending")], []),
        ([pod()], [{**UNHEALTHY, "involvedObject": {"kind": "Pod", "name": "another"}}]),
    ],
)
def test_what_is_no_trouble_is_not_told(pods, events):
    """
    A pod that is on its way, or has come back, stands in nobody's way.
    """
    assert diagnose(pods, events) is None


def test_a_pod_that_keeps_flapping_is_in_trouble_while_it_is_ready():
    """
    Three ends by itself are no accident.
    """
    assert diagnose([pod(ready=True, restarts=3, last={"exitCode": 1})], [])[0] == "crash"


def test_what_has_to_end_first_may_be_what_fails():
    """
    The image of an init container, and its crashes.
    """
    init = pod(state=waiting("ErrImagePull", "not found"))["status"]["containerStatuses"]
    waits = pod(state=waiting("PodInitializing"), phase="Pending", initContainerStatuses=init)
    assert diagnose([waits], [])[0] == "image"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_worst_comes_first(order):
    """
    An image that cannot be pulled explains more than a probe, in whatever order the pods are listed.
    """
    pods = [PULL, pod("d-canary-7c9-y"), LOOP]
    assert diagnose([pods[i] for i in order], [UNHEALTHY], refused=QUOTA)[0] == "image"


def test_the_sentence_quotes_the_log():
    """
    The last lines of the pod that tells more, and the advice after them.
    """
    said = sentence(diagnose([LOOP], []), "Traceback\nKeyError: 'MODEL'\n")
    assert "; the log of d-canary-7c9-x ends with:\nTraceback\nKeyError: 'MODEL'\nCheck what it needs at its start" in said
    assert sentence(None, "") == "the cluster does not say why"
    assert sentence(None, "bye") == "the cluster does not say why; the log ends with:\nbye"


def test_ready_and_serving():
    """
    A pod on its way out gets no traffic, and may still answer what it has.
    """
    leaving = pod(ready=True)
    leaving["metadata"]["deletionTimestamp"] = "2026-11-24T10:01:00Z"
    assert (is_ready(pod(ready=True)), is_ready(pod()), is_ready(leaving)) == (True, False, False)
    assert serving(leaving)
    assert not serving(pod())
    assert not serving(LOOP)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, (2, 2, True)),
        (
            {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2},
            (0, 2, False),
        ),  # of the old one
        (
            {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 3},
            (1, 2, False),
        ),  # old ones serve
        (
            {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2},
            (2, 2, False),
        ),  # one is leaving
        ({}, (0, 2, False)),
    ],
)
def test_progress_of_a_rolling_update(status, expected):
    """
    Ready pods of the present template, of so many, and whether nothing old is left.
    """
    assert progress({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}) == expected


class Cluster:
    """One Deployment, its pods and what happened."""

    namespace = "ns"

    def __init__(self, pods, events, *, failing="", ready=0):
        template = {"spec": {"containers": [{"image": IMAGE}]}}
        conditions = [{"type": "ReplicaFailure", "status": "True", "message": failing}] if failing else []
        self.asked = []
        status = {"observedGeneration": 1, "replicas": ready, "updatedReplicas": ready, "availableReplicas": ready}
        self._objects = {
            "Deployment": [
                {
                    "metadata": {"name": "d-canary", "generation": 1, "labels": {"app.kubernetes.io/version": "v2"}},
                    "spec": {"replicas": 1, "template": template},
                    "status": {**status, "conditions": conditions},
                }
            ],
            "Pod": [{**each, "spec": {"containers": [{"image": IMAGE}]}} for each in pods],
            "Event": events,
        }

    def get(self, kind, name):
        """The only one."""
        return self._objects[kind][0]

    def list(self, kind, selector="", *, fields=""):
        """All, or the events of one object."""
        self.asked.append((kind, fields))
        found = self._objects.get(kind, [])
        if fields.startswith("metadata."):
            return [each for each in found if f"metadata.name={each['metadata']['name']}" == fields]
        return (
            [each for each in found if f"involvedObject.name={each['involvedObject']['name']}" == fields] if fields else found
        )

    def listed(self, kind, selector="", fields=""):
        """All, of no version from which a watch could go on."""
        return self.list(kind, selector, fields=fields), ""

    def log(self, pod, *, lines=10, previous=False):
        """Written in the life before this one."""
        return "KeyError: 'MODEL'" if previous else ""


def test_a_version_that_cannot_come_up_is_not_waited_for():
    """
    At once, and with the log of the pod's life before.
    """
    with pytest.raises(ClusterError, match=r"d-canary \(version 'v2'\) does not come up: .*5 times.*\nKeyError: 'MODEL'"):
        Pods(Cluster([LOOP], []), managed_places("d"), print).wait_ready("canary", 1, within=60.0)


def test_a_pods_log_that_is_quoted_shows_no_secret(monkeypatch):
    """
    Neither when a version does not come up nor when one is in trouble.
    """
    monkeypatch.setattr(Cluster, "log", lambda *args, **options: "--api-key=s3cret postgres://app:s3cret@db")
    pods = Pods(Cluster([LOOP], []), managed_places("d"), print)
    with pytest.raises(ClusterError, match=r"--api-key=\*\*\* postgres://app:\*\*\*@db") as caught:
        pods.wait_ready("canary", 1, within=60.0)
    assert "s3cret" not in f"{caught.value} {pods.health('canary').problem}"
    assert "--api-key=*** postgres://app:***@db" in pods.health("canary").problem


def test_a_version_that_is_late_says_what_is_known():
    """
    After the time it was given.
    """
    with pytest.raises(ClusterError, match=r"has 0 of 1 pods ready after 0 s: .*Readiness probe failed"):
        Pods(Cluster([pod()], [UNHEALTHY]), managed_places("d"), print).wait_ready("canary", 1, within=0.0)


@pytest.mark.parametrize("failing", [QUOTA, ""], ids=["now", "an hour ago"])
def test_a_quota_of_an_hour_ago_is_no_trouble_now(failing):
    """
    The Deployment says whether its pods are refused at present, and in which words: that ends the wait at once.
    """
    cluster = Cluster([], [], failing=failing)
    assert refusal(cluster.get("Deployment", "d-canary")) == failing
    late = "does not come up: its pods are refused: .*exceeded quota" if failing else "0 of 1 pods ready after 0 s: the cluster"
    with pytest.raises(ClusterError, match=late):
        Pods(cluster, managed_places("d"), print).wait_ready("canary", 1, within=60.0 if failing else 0.0)


def test_events_are_asked_for_by_the_pod_and_only_when_it_is_not_ready():
    """
    A version that is well costs none; otherwise those of a few pods are asked for, at most once a second.
    """
    well = Cluster([pod(ready=True)], [UNHEALTHY], ready=1)
    assert Pods(well, managed_places("d"), print).health("canary").problem == ""
    assert not any(kind == "Event" for kind, _ in well.asked)
    ill = Cluster([pod(f"d-canary-7c9-{number}") for number in range(9)], [UNHEALTHY])
    pods = Pods(ill, managed_places("d"), print)
    for _ in range(5):
        assert not pods.health("canary").serves
    asked = [fields for kind, fields in ill.asked if kind == "Event"]
    assert sorted(asked) == [f"involvedObject.name=d-canary-7c9-{number}" for number in range(3)]


def test_a_version_that_is_up_is_not_waited_for():
    """
    One look is enough.
    """
    Pods(Cluster([pod(ready=True)], [], ready=1), managed_places("d"), print).wait_ready("canary", 1, within=0.0)


def pulled(message, reason="ErrImagePull", name="d-canary-7c9-x"):
    """A pod whose image could not be pulled."""
    return pod(name, state=waiting(reason, message), phase="Pending")


HEAD = f'rpc error: code = Unknown desc = failed to pull and unpack image "{IMAGE}": failed to resolve reference "{IMAGE}": '


@pytest.mark.parametrize(
    "why",
    [
        "unexpected status from HEAD request to https://registry.example.com/v2/ai/m/nope: 429 Too Many Requests",
        "toomanyrequests: You have reached your unauthenticated pull rate limit.",
        "unexpected status from HEAD request to https://registry.example.com:5000/v2/ai/nope: 503 Service Unavailable",
        "received unexpected HTTP status: 500 Internal Server Error",
        "invalid status code from registry 521 (<nil>)",
        "failed to do request: dial tcp 10.0.0.9:443: i/o timeout",
        "failed to do request: net/http: TLS handshake timeout",
        "context deadline exceeded",
        "read tcp 10.0.0.2:4->10.0.0.9:443: read: connection reset by peer",
        "httpReadSeeker: failed open: failed to do request: EOF",
        "pull QPS exceeded",
    ],
)
@pytest.mark.parametrize("events", [False, True])
def test_a_registry_that_was_busy_is_asked_again(why, events):
    """
    The kubelet does, ten seconds later: such a version is waited for until its time is over, and the error says why.
    """
    told = [event("Failed", f'Failed to pull image "{IMAGE}": {HEAD}{why}'), event("Failed", "Error: ErrImagePull")]
    pods = [pulled(f'Back-off pulling image "{IMAGE}"', "ImagePullBackOff") if events else pulled(HEAD + why)]
    assert diagnose(pods, told if events else [])[3] is False
    with pytest.raises(ClusterError, match=r"has 0 of 1 pods ready after 0 s: .*the image cannot be pulled"):
        Pods(Cluster(pods, told if events else []), managed_places("d"), print).wait_ready("canary", 1, within=0.0)


@pytest.mark.parametrize(
    "why",
    [
        "registry.example.com/ai:nope: not found",
        "pull access denied, repository does not exist or may require authorization",
        "failed to do request: dial tcp: lookup registry.example.com: no such host",
        "unexpected status from HEAD request to https://registry.example.com:5000/v2/ai/nope: 401 Unauthorized",
        "manifest unknown: 503 is no tag",
        "x509: certificate signed by unknown authority",
        "nobody has seen this before",
    ],
)
def test_an_image_that_is_not_there_is_not_waited_for(why):
    """
    Nor one of which it is not known that another try may help.
    """
    with pytest.raises(ClusterError, match=r"does not come up: .*the image cannot be pulled"):
        Pods(Cluster([pulled(HEAD + why)], []), managed_places("d"), print).wait_ready("canary", 1, within=60.0)
    told = [event("Failed", f"Failed to pull image: {why}", name="another")]
    assert diagnose([PULL], told)[3] is True


@pytest.mark.parametrize(
    ("pods", "says"),
    [
        ([pod("d-canary-7c9-y", ready=True), PULL], None),
        ([pod("d-canary-7c9-y", ready=True), pod(state=waiting("CreateContainerConfigError"))], None),
        ([PULL], "the image cannot be pulled"),
        ([pod("d-canary-7c9-y", ready=True), LOOP], "ended 5 times by itself"),
        ([pod("d-canary-7c9-y", ready=True), PULL, pod("d-canary-7c9-z", restarts=3, last={"exitCode": 1})], "ended 3 times"),
    ],
)
def test_a_pod_without_its_image_is_no_trouble_while_others_serve(pods, says):
    """
    It was moved to another node, and the registry is away: that says nothing about the version. Crashes do, also beside it.
    """
    said = Pods(Cluster(pods, []), managed_places("d"), print).health("canary").lasting
    assert said == "" if says is None else says in said
