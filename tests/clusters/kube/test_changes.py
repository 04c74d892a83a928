"""What a deployment would change, in words."""

import pytest

from canarykit.clusters.kube.workloads.changes import Changes, difference


def deployment(replicas=2, **container):
    """A Deployment as the API server returns it."""
    return {
        "kind": "Deployment",
        "metadata": {"name": "d-stable", "uid": "1", "resourceVersion": "7", "generation": 1, "managedFields": [{"a": 1}]},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"name": "server", "image": "a:1", **container}]}}},
        "status": {"readyReplicas": replicas},
    }


IMAGE = "spec.template.spec.containers[server].image"


@pytest.mark.parametrize(
    ("before", "after", "action", "fields"),
    [
        (None, deployment(), "create", ()),
        (deployment(), deployment(), "leave", ()),
        (deployment(2), deployment(3), "change", ("spec.replicas: 2 → 3",)),
        (deployment(), deployment(image="a:2"), "change", (f"{IMAGE}: a:1 → a:2",)),
        (deployment(args=["--x"]), deployment(), "change", (f"{IMAGE[:-5]}args[0]: --x → nothing",)),
        (
            deployment(),
            deployment(env=[{"name": "A", "value": "x" * 70}]),
            "change",
            (f"{IMAGE[:-5]}env[A].name: nothing → A", f"{IMAGE[:-5]}env[A].value: nothing → {'x' * 60}…"),
        ),
    ],
)
def test_what_would_change(before, after, action, fields):
    """
    Field by field, by names rather than places; long values are cut.
    """
    change = difference(before, after)
    assert (change.kind, change.name, change.action, change.fields) == ("Deployment", "d-stable", action, fields)


def test_what_the_server_keeps_is_no_change():
    """
    Versions, managers and status are the server's own.
    """
    after = deployment()
    after["metadata"] |= {"resourceVersion": "9", "generation": 2, "managedFields": [], "uid": "2", "creationTimestamp": "now"}
    after["status"] = {"readyReplicas": 0}
    assert difference(deployment(), after).action == "leave"


def test_in_words():
    """
    A count of each, then every object with its fields; safe in a page.
    """
    changes = Changes([difference(None, deployment()), difference(deployment(2), deployment(3, image="<b>"))])
    assert str(changes).splitlines() == [
        "2 objects: 1 to create, 1 to change; nothing is written yet",
        "  create Deployment d-stable",
        "  change Deployment d-stable",
        "    spec.replicas: 2 → 3",
        f"    {IMAGE}: a:1 → <b>",
    ]
    assert "&lt;b&gt;" in changes._repr_html_()


def env(**values):
    """Environment of a container: plain values."""
    return [{"name": name, "value": value} for name, value in values.items()]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            {"env": env(API_KEY="s3cret1")},
            {"env": env(API_KEY="s3cret2")},
            "env[API_KEY].value: *** → *** (what differs is not shown)",
        ),
        ({}, {"env": env(HF_TOKEN="s3cret")}, "env[HF_TOKEN].value: nothing → ***"),
        ({"env": env(PGPASSWORD="s3cret")}, {}, "env[PGPASSWORD].value: *** → nothing"),
        (
            {"env": env(DATABASE_URL="postgres://app:s3cret1@db/x")},
            {"env": env(DATABASE_URL="postgres://app:s3cret2@db/y")},
            "env[DATABASE_URL].value: postgres://app:***@db/x → postgres://app:***@db/y",
        ),
        (
            {"env": env(DATABASE_URL="postgres://app:s3cret1@db/x")},
            {"env": env(DATABASE_URL="postgres://app:s3cret2@db/x")},
            "env[DATABASE_URL].value: postgres://app:***@db/x → postgres://app:***@db/x (what differs is not shown)",
        ),
        ({}, {"args": ["serve", "--api-key", "s3cret", "--port", "80"]}, "args[2]: nothing → ***"),
        ({}, {"args": ["serve", "--api-key=s3cret"]}, "args[1]: nothing → --api-key=***"),
        ({}, {"command": ["sh", "-c", "TOKEN=s3cret serve"]}, "command[2]: nothing → TOKEN=*** serve"),
        (
            {},
            {"readinessProbe": {"httpGet": {"httpHeaders": env(Authorization="Bearer s3cret")}}},
            "readinessProbe.httpGet.httpHeaders[Authorization].value: nothing → ***",
        ),
        ({"env": env(MAX_TOKENS="512")}, {"env": env(MAX_TOKENS="1024")}, "env[MAX_TOKENS].value: 512 → 1024"),
    ],
)  # fmt: skip
def test_a_secret_in_the_environment_is_not_shown(before, after, said):
    """
    That a value changes is said; the value is not, when its name or its form is that of a secret.
    """
    change = difference(deployment(**before), deployment(**after))
    assert change.action == "change"
    assert f"{IMAGE[:-5]}{said}" in change.fields
    assert "s3cret" not in str(change)


def test_copies_of_an_object_and_secrets_are_not_shown():
    """
    kubectl's annotation repeats the whole object; of a Secret nothing but the keys is said.
    """
    before, after = deployment(), deployment(image="a:2")
    after["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": '{"value":"s3cret"}'}
    assert "s3cret" not in str(difference(before, after))
    was, becomes = ({"kind": "Secret", "metadata": {"name": "s"}, "data": {"user": text}} for text in ("czNjcmV0", "b3RoZXI="))
    assert difference(was, becomes).fields == ("data.user: *** → *** (what differs is not shown)",)
