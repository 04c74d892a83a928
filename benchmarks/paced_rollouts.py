"""Real rollouts at a pace: how long good canaries take, how many requests bad ones fail, and when all traffic is back.

    python benchmarks/paced_rollouts.py                                        on the local default, 120 requests/s
    python benchmarks/paced_rollouts.py --kube --gateway NAMESPACE/NAME --url http://…     on the current cluster, 200/s

The versions are the server of deploy/examples/recommender.yaml; on a cluster the canary is a copy of that Deployment. A failed
request is one that users got. On a cluster a namespace of its own is made, and removed again. The image is canarykit-server,
or what CANARYKIT_SERVER_IMAGE says.
"""

import argparse
import os
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path

import yaml

import canarykit as ck

EXAMPLE = Path(__file__).parents[1] / "deploy/examples/recommender.yaml"
HARM = 4


def objects():
    """Objects of the example."""
    return list(yaml.safe_load_all(EXAMPLE.read_text()))


def local(stable, canary):
    """Connect to the local default, and return both versions there."""
    folder = Path(tempfile.mkdtemp(prefix="canarykit-benchmark-"))
    code = next(body for body in objects() if body["kind"] == "ConfigMap")["data"]["server.py"]
    (folder / "server.py").write_text(code.replace("/shared", str(folder)))
    (folder / "warm").touch()
    command = ["python", str(folder / "server.py"), "local", "{port}"]
    options = {"command": command, "ready": "/healthz"}
    versions = [
        ck.Version(name, env={"API_KEY": "x", "FAILS": fails}, **options) for name, fails in (("v1", stable), ("v2", canary))
    ]
    return ck.connect("local"), ck.Service("recommender", *versions)


def kube(stable, canary, options):
    """Bring up the example in a namespace of its own; return a cluster that rolls out a copy of it, and both versions."""
    from kubernetes import utils

    from canarykit.clusters.kube.api.client import Client

    admin = Client(None, f"canarykit-benchmark-{secrets.token_hex(3)}")
    admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": admin.namespace}})
    gateway_namespace, _, gateway = options.gateway.rpartition("/")
    image = os.environ.get("CANARYKIT_SERVER_IMAGE")
    for body in objects():
        if body["kind"] == "HTTPRoute":
            body["spec"] |= {
                "parentRefs": [{"name": gateway, "namespace": gateway_namespace}],
                "hostnames": [f"{admin.namespace}.test"],
            }
            admin.create(body)
            continue
        if body["kind"] == "Deployment":
            pod = body["spec"]["template"]["spec"]
            pod["containers"][1]["env"].append({"name": "FAILS", "value": stable})
            for container in (*pod["containers"], *pod["initContainers"]):
                container["image"] = image or container["image"]
        utils.create_from_dict(admin.connection.api, body, namespace=admin.namespace)
    deadline = time.monotonic() + 120
    while (admin.get("Deployment", "recommender") or {}).get("status", {}).get("availableReplicas", 0) < 2:
        if time.monotonic() > deadline:
            sys.exit("the example did not come up within 120 s")
        time.sleep(0.5)
    more = {"gateway": options.gateway, "url": options.url, "route": "recommender", "metrics": "fastapi", "port": 9100}
    cluster = ck.KubeCluster(None, admin.namespace, **more)
    canary = ck.Version("v2", like="recommender", env={"FAILS": canary})
    return cluster, ck.Service("recommender", ck.Version("v1", deployment="recommender"), canary), admin


def once(options, stable, canary):
    """Carry out one rollout: its outcome, seconds until it ended, failed requests of users, and lost ones."""
    made = kube(stable, canary, options) if options.kube else local(stable, canary)
    cluster, service, *admin = made
    try:
        with ck.Experiment(service, cluster, guardrails=[ck.metrics.error_rate()], notify=lambda line: None) as exp:
            exp.deploy()
            exp.send(options.rate, path="/recommend", payloads=[{"body": {"user": 1}}])
            exp.observe("3s")

            start = time.monotonic()
            ending = exp.run(ck.RolloutPlan.paced(harm=HARM, budget="5min"))
            took = time.monotonic() - start
            summary = exp.stop_sending()
            exp.teardown()
        return ending.outcome, took, failed(summary), summary.lost_total
    finally:
        for each in admin:
            each.delete("Namespace", each.namespace)


def failed(summary):
    """Requests that were answered with a 5xx."""
    return sum(times for statuses in summary.statuses.values() for status, times in statuses.items() if status >= 500)


def main():
    """Print a row for each kind of canary; exit with 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kube", action="store_true")
    parser.add_argument("--gateway", default="gateway/gateway")
    parser.add_argument("--url")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--quick", action="store_true", help="two good canaries instead of twenty")
    options = parser.parse_args()
    options.rate = options.rate or (200.0 if options.kube else 120.0)
    good = 1 if options.kube else 2 if options.quick else 20
    # Shares that stable and canary fail, how often, the outcome that is right, and the most seconds in the median.
    cells = [("equal", "0", "0", good, "promoted", 75 if options.kube else 45)]
    cells += [
        (f"fails {share} %", "0", str(share / 100), 1, "rolled back", most) for share, most in ((1, 90), (5, 45), (100, 10))
    ]
    cells += [("both fail 1 %", "0.01", "0.01", 5, "promoted", None)] if options.kube else []
    print(f"harm {HARM}, {options.rate:g} requests/s\n")
    print("| canary | rollouts | as they should end | median time | longest | failed requests: most | lost |")
    print("|---|---|---|---|---|---|---|")
    missed = []
    for name, stable, canary, runs, right, most in cells:
        outcomes, times, bad, lost = zip(*(once(options, stable, canary) for _ in range(runs)), strict=True)
        well = sum(outcome == right for outcome in outcomes)
        print(
            f"| {name} | {runs} | {well} | {statistics.median(times):.0f} s | {max(times):.0f} s | {max(bad)} | {sum(lost)} |",
            flush=True,
        )
        if runs - well > (runs // 20 if name == "equal" else 0) and not (
            name.startswith("both") and "rolled back" not in outcomes
        ):
            missed.append(f"{name}: {', '.join(outcomes)}")
        if most is not None and statistics.median(times) > most:
            missed.append(f"{name}: {statistics.median(times):.0f} s, not {most}")
        if right == "rolled back" and max(bad) > 12:
            missed.append(f"{name}: {max(bad)} failed requests, not 12")
        if sum(lost):
            missed.append(f"{name}: {sum(lost)} requests were lost")
    if missed:
        print("\nmissed: " + "; ".join(missed))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
