"""Load from inside a cluster: the Job, what is refused, and how the senders' results are merged."""

import json
from types import SimpleNamespace

import pytest
from kube_doubles import Namespace

import canarykit as ck
from canarykit.clusters.kube.cluster import KubeCluster
from canarykit.clusters.kube.jobs import JobLoad, job
from canarykit.clusters.kube.workloads.manifests import Workload
from canarykit.errors import ClusterError, PlanError
from canarykit.routers.base import Capabilities

SERVICE = ck.Service("digits", ck.Version("v1", image="a:1"), ck.Version("v2", image="a:2"))
URL = "http://web.ns/v2/models/digits/infer"


class Cluster(Namespace):
    """A namespace whose Jobs have pods that have sent what they were told to, and logged it."""

    def __init__(self, lines, phase="Running", **status):
        super().__init__()
        self._lines, self._status = lines, {"phase": phase, **status}

    def apply(self, body):
        """Write, and let the pods of a Job begin."""
        made = self._store(body)
        if body["kind"] == "Job":
            for number in range(body["spec"]["completions"]):
                name = {
                    "name": f"{body['metadata']['name']}-{number}",
                    "labels": body["spec"]["template"]["metadata"]["labels"],
                }
                self._store({"kind": "Pod", "metadata": name, "status": self._status})
        return made

    def follow(self, pod):
        """The log of a sender, cut into pieces anywhere."""
        text = "".join(json.dumps(line) + "\n" for line in self._lines[int(pod.rpartition("-")[2])]).encode()
        yield from (text[start : start + 7] for start in range(0, len(text), 7))


def sender(count, *, lost=None, ended=True, first=0):
    """What one sender logs: an answer per request, and in the end how many it sent."""
    answers = [[f"r-{first + number}", 10.0, 0.01, 0.0, 0 if lost else 200, "stable", True, lost] for number in range(count)]
    return [*answers, *([{"sent": count}] if ended else [])]


def load(cluster, **options):
    """Load of ten requests per second, from two pods unless it is said otherwise."""
    options = {"url": URL, "pods": 2, "rate": 10, "payloads": [{"body": {}, "label": None}], **options}
    return JobLoad(cluster, SERVICE, Workload(server_image="server:9", pull_policy="Never"), **options)


def test_the_job():
    """
    As many senders as asked, told apart by their index, of which none is begun twice; no right that it does not need.
    """
    made = job("digits-load-1", SERVICE, Workload(server_image="server:9", pull_policy="Never"), pods=3)
    spec, pod = made["spec"], made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"], spec["backoffLimit"]) == ("Indexed", 3, 3, 0)
    assert (container["image"], container["imagePullPolicy"]) == ("server:9", "Never")
    assert container["command"][-1] == "/spec/spec.json"
    assert container["volumeMounts"][0]["mountPath"] == "/spec"
    assert pod["volumes"] == [{"name": "spec", "configMap": {"name": "digits-load-1"}}]
    assert (pod["restartPolicy"], pod["automountServiceAccountToken"]) == ("Never", False)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["template"]["metadata"]["labels"]["canarykit.dev/load"] == "digits-load-1"
    assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "canarykit"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pods": 0}, "traffic from inside needs one pod at least, not 0"),
        ({"rate": 0}, "a rate is a number of requests per second above 0"),
        ({"shape": "zigzag"}, "traffic has no shape 'zigzag'"),
        ({"payloads": [{"body": "x" * 1_000_001}]}, r"the payloads have 1,000,\d+ bytes, and a ConfigMap takes 1,000,000"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_anything_is_written(options, says):
    """
    Each with a sentence.
    """
    cluster = Cluster([])
    with pytest.raises(PlanError, match=says):
        load(cluster, **options)
    assert cluster.writes == []


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"headers": {"authorization": "Bearer s3cret"}}, "headers= holds 'authorization'"),
        ({"headers": {"host": "h", "X-Api-Key": "s3cret"}}, "headers= holds 'X-Api-Key'"),
        ({"headers": {"cookie": "sid=s3cret"}}, "headers= holds 'cookie'"),
        ({"headers": {"x-user": "Bearer s3cret.0f-1"}}, "headers= holds 'x-user'"),  # its value says what it is
        ({"url": f"{URL}?key=s3cret"}, "the query of path= holds 'key'"),
        ({"url": f"{URL}?a=1&access_token=s3cret"}, "the query of path= holds 'access_token'"),
        ({"url": f"{URL}?to=http%3A%2F%2Fme%3As3cret%40h"}, "the query of path= holds 'to'"),
    ],
)
def test_a_secret_is_not_written_into_a_configmap(options, names):
    """
    Refused, by its name and with what to do, before anything is written; the value is not shown.
    """
    cluster = Cluster([])
    with pytest.raises(PlanError, match="send from here, without inside=") as caught:
        load(cluster, **options)
    assert names in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert cluster.writes == []


def test_headers_and_queries_that_are_no_secret_are_sent():
    """
    The host that a shared gateway knows the service by, a connection that is closed, numbers of tokens.
    """
    headers = {"host": "ai.example.com", "connection": "close", "x-max-tokens": "5"}
    running = load(Cluster([sender(5), sender(5)]), url=f"{URL}?max_tokens=5&x=1", headers=headers).start()
    assert running._spec["headers"] == headers


def test_results_of_all_senders_are_merged():
    """
    Answers, losses by cause, and nothing left in the cluster.
    """
    cluster = Cluster([sender(5), sender(3, lost="timed out", first=5)])
    running = load(cluster).start()
    path = "/v2/models/digits/infer"
    plain = {"method": "POST", "rate": 10.0, "shape": "steady", "duration": None, "seed": 0}
    assert running.asked == {**plain, "path": path, "pods": 2}
    (spec,) = cluster.list("ConfigMap")
    assert json.loads(spec["data"]["spec.json"])["senders"] == 2
    summary = running.stop()
    assert (summary.answered, dict(summary.lost)) == (5, {"timed out": 3})
    assert sorted(answer.request_id for answer in running.answers()) == [f"r-{number}" for number in range(8)]
    assert running.answers() == []
    assert cluster.list("Job") == cluster.list("ConfigMap") == []
    assert running.stop() == summary


def test_what_senders_could_not_send_and_how_they_were_answered_is_merged():
    """
    As for one sender: requests that are unsent, and statuses by version.
    """
    refused = [["r-9", 10.0, 0.01, 0.0, 422, "canary", False, None]]
    cluster = Cluster([[{"unsent": 3}, *sender(5)], [*refused, {"unsent": 4}, *sender(3, first=5)]])
    summary = load(cluster).start().stop()
    assert (summary.unsent, summary.overloaded) == (7, True)
    assert summary.statuses == {"stable": {200: 8}, "canary": {422: 1}}


def test_a_path_is_checked_before_anything_is_sent_from_a_cluster():
    """
    From inside as from here, where it is given a slash.
    """
    told = []
    router = SimpleNamespace(hostname=None, capabilities=Capabilities())
    kept = {"_deployed": SERVICE, "_bound": router, "_prepared": SimpleNamespace(own=False)}
    cluster = SimpleNamespace(**kept, url="http://web.ns", client=None, workload=None)
    for inside in (0, 2):
        with pytest.raises(PlanError, match="whole address"):
            KubeCluster.send(cluster, 10, inside=inside, path="http://web.ns/predict")
    with pytest.MonkeyPatch.context() as patched:
        started = SimpleNamespace(start=lambda: "started")
        patched.setattr("canarykit.clusters.kube.cluster.JobLoad", lambda *_, url, **__: told.append(url) or started)
        assert KubeCluster.send(cluster, 10, inside=2, path="predict") == "started"
    assert told == ["http://web.ns/predict"]
    cluster._prepared.own = True
    with pytest.raises(PlanError, match="path= is missing: say which path of your service is asked"):
        KubeCluster.send(cluster, 10)


def test_a_sender_that_ended_by_itself_is_told():
    """
    Nobody knows what became of its last requests; what it wrote beside its results is quoted.
    """
    cluster = Cluster([sender(5), sender(3, ended=False)])
    running = load(cluster)
    follow = cluster.follow

    def noisy(pod):
        yield b"Traceback (most recent call last):\n"
        yield from follow(pod)

    cluster.follow = noisy
    running.start()
    with pytest.raises(ClusterError, match=r"1 of 2 senders ended before they were told to; .*\nTraceback"):
        running.stop()
    assert running.summary.answered == 8
    assert cluster.list("Job") == []


@pytest.mark.parametrize("fails", ["list", "delete"])
def test_traffic_that_could_not_be_ended_is_ended_the_next_time(fails, monkeypatch):
    """
    The API server is away: that is an error, and a second call ends the senders for which the first could not.
    """
    cluster = Cluster([sender(5), sender(3, first=5)])
    running = load(cluster).start()

    def away(*args, **options):
        raise ClusterError("the API server is away")

    with monkeypatch.context() as outage:
        outage.setattr(cluster, fails, away)
        with pytest.raises(ClusterError, match="is away"):
            running.stop()
    assert running.stop().answered == 8
    assert cluster.list("Job") == cluster.list("ConfigMap") == []


def test_a_sender_that_does_not_come_up_says_why_and_leaves_nothing():
    """
    Its image, for instance.
    """
    state = {"waiting": {"reason": "ErrImageNeverPull", "message": "not present"}}
    statuses = [{"name": "load", "image": "server:9", "restartCount": 0, "state": state}]
    cluster = Cluster([[], []], phase="Pending", containerStatuses=statuses)
    with pytest.raises(ClusterError, match=r"0 of 2 senders came up: .*the image is not on the node"):
        load(cluster).start()
    assert cluster.list("Job") == cluster.list("ConfigMap") == []
