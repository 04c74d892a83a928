"""What a deployment would change, in words."""

import pytest

from canarykit.clusters.kube.changes import Changes, difference


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
