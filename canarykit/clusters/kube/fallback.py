"""Whether traffic may return to stable: not while the canary alone serves, because users would get errors."""

from __future__ import annotations

from collections.abc import Callable

from canarykit.clusters.kube.workloads.diagnose import is_ready
from canarykit.errors import CanaryError, ClusterError, ForbiddenError, RoutingError
from canarykit.model import TrafficSplit
from canarykit.places import Place, Places
from canarykit.routers.base import KubeRouter
from canarykit.routers.objects import Api, NothingThere

__all__ = ["can_take_over", "check_may_return", "only_canary_serves"]


def only_canary_serves(client: Api, places: Places, router: KubeRouter) -> bool:
    """Whether the canary has weight and a pod that is ready, and stable has no pod that is ready.

    Where nobody lets us see the pods, traffic may return.

    Parameters
    ----------
    client : Api
        The namespace.
    places : mapping of role to Place
        Objects of both versions.
    router : Router
        Router of the service.

    Raises
    ------
    ClusterError
        The API server does not answer.
    """
    can = router.capabilities
    if can.promoted_by is not None or can.scales:  # it splits between other pods, or brings up stable's itself
        return False
    try:
        if router.observed() == TrafficSplit(0):
            return False
    except NothingThere:
        return False
    except RoutingError:
        pass  # rules that disagree: the canary may have weight
    try:
        return not _serves(client, places["stable"]) and _serves(client, places["canary"])
    except ForbiddenError:
        return False


def _serves(client: Api, place: Place) -> bool:
    return any(is_ready(pod) for pod in client.list("Pod", place.pods))


def check_may_return(client: Api, places: Places, router: KubeRouter) -> None:
    """Check that traffic may return to stable; parameters as of `only_canary_serves`.

    Raises
    ------
    ClusterError
        The canary alone serves.
    """
    if only_canary_serves(client, places, router):
        stable = places["stable"].deployment
        raise ClusterError(
            f"the canary that is there alone serves, so that traffic cannot return to {stable}, which has no pod that is "
            f"ready. Bring up stable first: kubectl -n {client.namespace} rollout status deployment/{stable}"
        )


def can_take_over(
    client: Api, places: Places, router: KubeRouter, *, ensure_capacity: Callable[[], None], notify: Callable[[str], object]
) -> bool:
    """Whether stable can take over a team's own route; it is brought up first where the canary alone serves.

    The kit's route is removed with both versions, so that nobody has to take it over.

    Parameters
    ----------
    client, places, router
        See `only_canary_serves`.
    ensure_capacity : callable
        Brings up stable within a bounded time.
    notify : callable
        Takes one line that says why stable cannot take over.
    """
    if router.own is None or not only_canary_serves(client, places, router):
        return True
    try:
        ensure_capacity()
        why = "no pod of it is ready"
    except CanaryError as error:
        why = str(error)
    if not only_canary_serves(client, places, router):
        return True
    stable = places["stable"].deployment
    notify(
        f"the canary alone serves: traffic does not return to {stable} ({why}). The route keeps its weights, and the "
        "canary stays. Bring up stable, then call deploy() and teardown() again"
    )
    return False
