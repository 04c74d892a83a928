"""What a namespace holds, and whether it may go."""

import pytest
from kube_doubles import Namespace as Objects

from canarykit.clusters.kube.inventory import contents, listable
from canarykit.clusters.kube.namespace import MADE_BY, Namespace
from canarykit.errors import ClusterError, ForbiddenError


def kinds(*resources, group="", version="v1", **more):
    """A list of kinds as an API server gives it."""
    return {"items": [{"metadata": {"name": group}, "versions": [{"version": version, "resources": resources, **more}]}]}


def resource(name, scope="Namespaced", verbs=("list", "create", "get")):
    """One kind in it."""
    return {"resource": name, "scope": scope, "verbs": list(verbs)}


CORE = kinds(resource("configmaps"), resource("secrets"), resource("nodes", "Cluster"), resource("events"))
EMPTY = {"/api": CORE, "/apis": {"items": []}}
PAGE = "/api/v1/namespaces/ns/"


def named(*names, **meta):
    """A list of names."""
    return {"items": [{"metadata": {"name": name, **meta}} for name in names] or None}


class Server(Objects):
    """Pages of an API server beside a namespace's objects."""

    def __init__(self, pages, *bodies):
        super().__init__(*bodies)
        self.pages, self.read_as = pages, {}

    def read(self, path, what, *, accept="application/json"):
        """A page; None when there is none."""
        self.read_as[path] = accept
        found = self.pages.get(path)
        if isinstance(found, Exception):
            raise found
        return found


def test_kinds_that_a_namespace_may_hold():
    """
    Those that somebody can make there, of the newest version of each group.
    """
    apps = kinds(resource("deployments"), resource("controllers", verbs=["list"]), group="apps")
    assert list(listable(CORE, "/api")) == [("/api/v1", "configmaps"), ("/api/v1", "secrets")]
    assert list(listable(apps, "/apis")) == [("/apis/apps/v1", "deployments")]


@pytest.mark.parametrize(
    ("found", "says"),
    [({"kind": "APIVersions"}, "does not list all"), (kinds(group="metrics", freshness="Stale"), "of metrics are not known")],
)
def test_a_list_of_kinds_that_is_not_whole_is_refused(found, says):
    """
    What is not known may hold something.
    """
    with pytest.raises(ClusterError, match=says):
        list(listable(found, "/apis"))


def test_contents_are_read_by_name_alone():
    """
    What belongs to something else, is leaving, or is in every namespace does not count.
    """
    server = Server(
        {
            **EMPTY,
            f"{PAGE}configmaps": {
                "items": [
                    *named("kube-root-ca.crt", "notes")["items"],
                    *named("owned", ownerReferences=[{"kind": "Job"}])["items"],
                    *named("leaving", deletionTimestamp="now")["items"],
                ]
            },
            f"{PAGE}secrets": named("registry"),
        }
    )
    assert contents(server) == ["configmaps/notes", "secrets/registry"]
    assert all("PartialObjectMetadataList" in accept for path, accept in server.read_as.items() if path.startswith(PAGE))


@pytest.mark.parametrize(
    ("annotations", "page", "stays", "says"),
    [
        ({MADE_BY: "deploy"}, named(), False, None),
        ({MADE_BY: "deploy"}, named("a", "b", "c", "d"), True, "it holds secrets/a, secrets/b, secrets/c and 1 more"),
        ({MADE_BY: "deploy"}, ForbiddenError("no permission"), True, "no permission"),
        ({}, named(), True, None),
    ],
    ids=["empty", "in use", "unseen", "not ours"],
)
def test_a_namespace_goes_only_when_it_is_ours_and_empty(annotations, page, stays, says):
    """
    Whatever is in it, and whoever put it there; what cannot be seen counts as there.
    """
    body = {"kind": "Namespace", "metadata": {"name": "ns", "annotations": annotations}}
    server, told = Server({**EMPTY, f"{PAGE}secrets": page}, body), []
    Namespace(server, told.append).remove()
    assert (server.get("Namespace", "ns") is not None) is stays
    assert told == ([] if says is None else [f"namespace ns stays: {says}"])
