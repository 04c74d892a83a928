"""Objects that a watch keeps up to date: no request to read them, and never an old answer."""

import json
import queue
import threading

import pytest

from canarykit.clusters.kube.api import watch
from canarykit.clusters.kube.api.reads import Reading
from canarykit.clusters.kube.api.watch import Watch
from canarykit.errors import ConflictError, ForbiddenError


class Answer:
    """A watch, whose lines a test writes."""

    def __init__(self, status=200):
        self.status, self.lines, self.closed = status, queue.Queue(), False

    def say(self, kind, body):
        """One event."""
        self.lines.put(json.dumps({"type": kind, "object": body}).encode() + b"\n")

    def stream(self, amount):
        """Lines as they come, until it ends."""
        while (line := self.lines.get(timeout=10)) is not None:
            half = len(line) // 2
            yield from (line[:half], line[half:])

    def shutdown(self):
        """End it from another thread."""
        self.lines.put(None)

    def close(self):
        """End it."""
        self.closed = True


def thing(name, version, **more):
    """An object."""
    return {"metadata": {"name": name, "resourceVersion": str(version), **more}}


class Server:
    """An API server that lists what a test gives it, and counts what it was asked."""

    namespace = "ns"

    def __init__(self, *items, version=10, status=200):
        self.items, self.version, self.status = list(items), version, status
        self.lists, self.gets, self.watches, self.asked = 0, 0, [], []
        self.connection, self.begun, self.conflict = self, threading.Event(), False

    def listed(self, kind, selector="", fields=""):
        """All objects."""
        self.lists += 1
        return list(self.items), str(self.version)

    def get(self, kind, name, *, namespace=None):
        """One object."""
        self.gets += 1
        return next((item for item in self.items if item["metadata"]["name"] == name), None)

    def patch(self, kind, name, body, *, how="merge", sub=""):
        """Write a new version of an object."""
        if self.conflict:
            raise ConflictError("it has changed")
        return thing(name, 50, written=True)

    def send(self, method, path, *, timeout, stream):
        """Begin a watch."""
        self.asked.append(path)
        self.watches.append(Answer(self.status))
        self.begun.set()
        return self.watches[-1]


def opened(watched, server):
    """Wait until the watch is open; return it."""
    assert server.begun.wait(5)
    parts_wait(lambda: watched._open)
    return server.watches[-1]


def parts_wait(condition):
    """Wait until something holds."""
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    pytest.fail("it did not come true")


def names(watched):
    """Names and versions of what is known."""
    return {body["metadata"]["name"]: body["metadata"]["resourceVersion"] for body in watched.objects()}


@pytest.fixture
def watched():
    """Watch what a server has; ended afterwards."""
    made = []

    def make(server):
        made.append(Watch(server, "Pod", "app=d"))
        return made[-1]

    yield make
    for each in made:
        each.stop()
        assert each._thread is None


def test_changes_come_without_a_request(watched):
    """
    What is added, changed and deleted is known; the server was asked once, and from the version that it said.
    """
    server = Server(thing("a", 5), thing("b", 6))
    pods = watched(server)
    assert names(pods) == {"a": "5", "b": "6"}
    answer = opened(pods, server)
    answer.say("ADDED", thing("c", 11))
    answer.say("MODIFIED", thing("a", 12))
    answer.say("DELETED", thing("b", 13))
    parts_wait(lambda: names(pods) == {"a": "12", "c": "11"})
    assert server.lists == 1
    assert "resourceVersion=10" in server.asked[0] and "labelSelector=app%3Dd" in server.asked[0]


def test_a_watch_that_ends_goes_on_from_where_it_was(watched):
    """
    The API server ends each of them after a while: nothing is listed again.
    """
    server = Server(thing("a", 5))
    pods = watched(server)
    names(pods)
    first = opened(pods, server)
    first.say("BOOKMARK", thing("", 77))
    first.shutdown()
    parts_wait(lambda: len(server.watches) == 2)
    assert "resourceVersion=77" in server.asked[1]
    assert first.closed
    assert (names(pods), server.lists) == ({"a": "5"}, 1)


@pytest.mark.parametrize("how", ["expired", "broken line", "refused"])
def test_a_watch_that_fails_is_begun_anew_by_the_next_who_reads(watched, how):
    """
    A version that is too old, a line that is none, a server that is busy: until it is open again the server is asked.
    """
    server = Server(thing("a", 5), status=500 if how == "refused" else 200)
    pods = watched(server)
    names(pods)
    if how == "refused":
        parts_wait(lambda: server.watches and not pods._thread.is_alive())
    else:
        answer = opened(pods, server)
        if how == "expired":
            answer.say("ERROR", {"code": 410})
        else:
            answer.lines.put(b"not json\n")
        parts_wait(lambda: not pods._thread.is_alive())
    server.items, server.version, server.status = [thing("a", 20)], 20, 200
    server.begun.clear()
    assert names(pods) == {"a": "20"}
    opened(pods, server)
    assert (names(pods), server.lists) == ({"a": "20"}, 2)


@pytest.mark.parametrize("status", [403, 404])
def test_without_the_right_to_watch_each_read_is_a_request(watched, status):
    """
    As with an older role: nothing is tried again and again.
    """
    server = Server(thing("a", 5), status=status)
    pods = watched(server)
    names(pods)
    parts_wait(lambda: not pods._permitted)
    server.items = [thing("a", 6)]
    assert names(pods) == {"a": "6"}
    names(pods)
    assert len(server.watches) == 1


def test_a_silent_watch_is_not_believed_for_long(watched, monkeypatch):
    """
    A connection may hang without an end: after a while the server is asked, and a watch that lags is cut off.
    """
    server = Server(thing("a", 5))
    pods = watched(server)
    names(pods)
    hangs = opened(pods, server)
    server.items = [thing("a", 30)]
    assert names(pods) == {"a": "5"}
    monkeypatch.setattr(watch, "_SILENCE", 0.0)
    assert names(pods) == {"a": "30"}
    parts_wait(lambda: hangs.closed)


def test_what_the_kit_wrote_is_read_at_once(watched):
    """
    Though the watch is behind; what comes late by it does not bring back the old one.
    """
    server = Server(thing("a", 5))
    pods = watched(server)
    names(pods)
    answer = opened(pods, server)
    pods.note(thing("a", 40))
    answer.say("MODIFIED", thing("a", 20))
    answer.say("ADDED", thing("b", 21))
    parts_wait(lambda: "b" in names(pods))
    assert names(pods)["a"] == "40"


def during_list(server, happens):
    """Have something happen while a list is on its way: the list is of before."""
    listed = server.listed

    def late(*args, **options):
        answer = listed(*args, **options)
        happens()
        return answer

    server.listed = late


def test_a_list_does_not_bring_back_what_the_watch_has_deleted_meanwhile(watched):
    """
    The list was answered before; the watch goes on from where it was, and not from the list.
    """
    server = Server(thing("a", 5), thing("b", 6))
    pods = watched(server)
    names(pods)
    answer = opened(pods, server)

    def happens():
        answer.say("ADDED", thing("c", 11))
        answer.say("DELETED", thing("a", 12))
        parts_wait(lambda: set(pods._known) == {"b", "c"})

    during_list(server, happens)
    pods.doubt()
    assert names(pods) == {"b": "6", "c": "11"}
    answer.shutdown()
    parts_wait(lambda: len(server.watches) == 2)
    assert "resourceVersion=12" in server.asked[1]


@pytest.mark.parametrize("how", ["watch", "list"])
def test_a_late_answer_does_not_bring_back_what_is_deleted(watched, how):
    """
    That of a write before the deletion, which the watch or a list has told; one that was made again since is known.
    """
    server = Server(thing("a", 5), thing("b", 6))
    pods = watched(server)
    names(pods)
    answer = opened(pods, server)
    if how == "watch":
        answer.say("DELETED", thing("a", 12))
        parts_wait(lambda: "a" not in pods._known)
    else:
        server.items, server.version = [thing("b", 6)], 12
        pods.doubt()
        assert names(pods) == {"b": "6"}
    pods.note(thing("a", 11))
    assert names(pods) == {"b": "6"}
    pods.note(thing("a", 13))
    assert names(pods) == {"a": "13", "b": "6"}


def test_a_late_deletion_does_not_take_what_was_made_since(watched):
    """
    The kit has made an object of the same name again, and the watch is behind.
    """
    server = Server(thing("a", 5))
    pods = watched(server)
    names(pods)
    answer = opened(pods, server)
    pods.note(thing("a", 40))
    answer.say("DELETED", thing("a", 20))
    answer.say("ADDED", thing("b", 21))
    parts_wait(lambda: "b" in pods._known)
    assert names(pods) == {"a": "40", "b": "21"}


def test_a_watch_that_lags_behind_a_list_changes_nothing(watched):
    """
    Its changes are older than the list: what is gone stays gone, and the watch goes on from the list.
    """
    server = Server(thing("a", 5), thing("b", 6))
    pods = watched(server)
    names(pods)
    answer = opened(pods, server)
    server.items, server.version = [thing("b", 19)], 20
    pods.doubt()
    assert names(pods) == {"b": "19"}
    answer.say("MODIFIED", thing("a", 14))
    answer.say("MODIFIED", thing("b", 15))
    answer.shutdown()
    parts_wait(lambda: len(server.watches) == 2)
    assert names(pods) == {"b": "19"}
    assert "resourceVersion=20" in server.asked[1]


def test_a_restored_api_server_is_believed(watched):
    """
    Its versions count from before: a list that is older than all that is known is no late answer then.
    """
    server = Server(thing("a", 500), version=1000)
    pods = watched(server)
    names(pods)
    opened(pods, server).say("ERROR", {"code": 410})
    parts_wait(lambda: not pods._thread.is_alive())
    server.items, server.version = [thing("b", 7)], 20
    server.begun.clear()
    assert names(pods) == {"b": "7"}
    opened(pods, server)
    assert "resourceVersion=20" in server.asked[-1]


# Reading ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def reading():
    """Read what a server has; ended afterwards."""
    made = []

    def make(server):
        made.append(Reading(server))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_route_is_read_without_a_request(reading):
    """
    Only once, and then as it is written; kinds that are read rarely are not watched.
    """
    server = Server(thing("web", 5))
    api = reading(server)
    api.get("HTTPRoute", "web")
    opened(api._watched["HTTPRoute", "web"], server)
    assert "fieldSelector=metadata.name%3Dweb" in server.asked[0]
    assert api.get("HTTPRoute", "web")["kind"] == "HTTPRoute"
    assert api.patch("HTTPRoute", "web", {}) == thing("web", 50, written=True)
    assert api.get("HTTPRoute", "web")["metadata"]["written"]
    assert (server.lists, server.gets) == (1, 0)
    api.get("Gateway", "web")
    assert server.gets == 1


def test_after_a_conflict_the_server_is_read(reading):
    """
    What is known was too old.
    """
    server = Server(thing("web", 5))
    api = reading(server)
    api.get("HTTPRoute", "web")
    opened(api._watched["HTTPRoute", "web"], server)
    server.items, server.conflict = [thing("web", 6)], True
    with pytest.raises(ConflictError):
        api.patch("HTTPRoute", "web", {})
    assert api.get("HTTPRoute", "web")["metadata"]["resourceVersion"] == "6"
    assert server.lists == 2


def test_that_something_is_not_there_the_server_itself_says(reading):
    """
    An object may be of another version of its kind than is listed.
    """
    server = Server()
    api = reading(server)
    assert api.get("VirtualService", "web") is None
    assert server.gets == 1


def test_who_may_read_and_not_list_reads(reading, monkeypatch):
    """
    A role with the names of single objects.
    """
    server = Server(thing("web", 5))

    def forbidden(*args, **options):
        raise ForbiddenError("no permission")

    monkeypatch.setattr(server, "listed", forbidden)
    api = reading(server)
    for _ in range(2):
        assert api.get("HTTPRoute", "web")["metadata"]["resourceVersion"] == "5"
    assert server.gets == 2
