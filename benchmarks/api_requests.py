"""How many requests a healthy rollout costs the API server, the Lease and the guard included.

    python benchmarks/api_requests.py [WHERE]

WHERE is as of `connect`, such as "kube:?hostname=bench.test"; by default the cluster that KUBECONFIG names. Both versions
run there, two pods each, under steady traffic, and a plan with an interval of one second gives the canary two weights
within a minute. Kit and guard reach the API server through a proxy on this machine that counts each request, whoever
sends it: a watch is one, however long it lasts. Counted apart are the pages of metrics that are read from the pods by way of
the API server, one a pod and second: with prometheus= there are none. The limit is 60 a minute; above it the exit code is 1.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import canarykit as ck
from canarykit.clusters.kube.api.client import Client
from canarykit.serving import digits

LIMIT = 60
MINUTE = 60.0
NAMESPACE = "canarykit-bench"
PLAN = ck.RolloutPlan.of(5, 25, hold="25s", interval="1s", budget="10min")
PASSED_ON = ("content-type", "accept")


def named(method, path):
    """Verb and resource of a request, as a role has them."""
    path, _, query = path.partition("?")
    parts = path.strip("/").split("/")
    after = parts.index("namespaces") + 2 if "namespaces" in parts and len(parts) > parts.index("namespaces") + 2 else None
    rest = parts[after:] if after else parts[-1:]
    resource = "/".join([rest[0], *rest[2:3]]) if len(rest) > 2 else rest[0]
    if method == "GET":
        verb = "watch" if "watch=true" in query else "get" if len(rest) > 1 else "list"
    else:
        verb = {"PATCH": "patch", "PUT": "update", "POST": "create", "DELETE": "delete"}[method]
    return verb, resource


class Proxy:
    """A port of this machine that leads to the API server, and counts; it adds the credentials, as `kubectl proxy` does."""

    def __init__(self):
        connection, counted = Client(None, NAMESPACE).connection, Counter()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                counted[named(self.command, self.path)] += 1
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
                answer = connection.send(self.command, self.path, body=body, headers=headers, stream=True)
                self.send_response(answer.status)
                self.send_header("content-type", answer.headers.get("content-type", "application/json"))
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                try:
                    for piece in answer.stream(65536):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    self.close_connection = True  # whoever watched has gone
                finally:
                    answer.close()

            do_GET = do_PATCH = do_PUT = do_POST = do_DELETE = handle_any

            def log_message(self, *args):
                pass

        self.counted = counted
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, folder):
        """Write a kubeconfig that leads through here; return its path."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "counted",
            "clusters": [{"name": "counted", "cluster": {"server": self.url}}],
            "contexts": [{"name": "counted", "context": {"cluster": "counted", "user": "nobody"}}],
            "users": [{"name": "nobody", "user": {}}],
        }
        path = Path(folder) / "kubeconfig"
        path.write_text(json.dumps(config))
        return str(path)


def measure(where, counted):
    """Requests of one minute of a rollout."""
    cluster = ck.connect(where)
    versions = ck.Version("v1", model=digits.model("stable")), ck.Version("v2", model=digits.model("good"))
    service = ck.Service("digits", *versions, replicas=2)
    guardrails = [ck.metrics.error_rate()]
    with ck.Experiment(service, cluster, guardrails=guardrails, plan=PLAN, notify=lambda line: None) as exp:
        exp.deploy()
        exp.send(50)
        exp.poll()
        before = Counter(counted)
        rollout = threading.Thread(target=exp.run, daemon=True)
        rollout.start()
        time.sleep(MINUTE)
        found = Counter(counted) - before
        assert exp.ending is None or exp.ending.outcome == "promoted", exp.ending
        weights = len(exp.journal.weights())
        exp.abort()
        rollout.join(60)
    return found, weights


def main():
    """Print requests by verb and resource."""
    proxy = Proxy()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KUBECONFIG"] = proxy.kubeconfig(folder)
        where = sys.argv[1] if len(sys.argv) > 1 else f"kube:/{NAMESPACE}?hostname=bench.test"
        found, weights = measure(where, proxy.counted)
    apart = sum(count for (_, resource), count in found.items() if resource == "pods/proxy")
    total = sum(found.values()) - apart
    print(f"| verb | resource | requests in a minute, with {weights} changes of weight |\n|---|---|---|")
    for (verb, resource), count in sorted(found.items(), key=lambda item: -item[1]):
        print(f"| {verb} | {resource} | {count} |")
    print(f"\n{total} requests a minute; the limit is {LIMIT}. Apart from them, {apart} pages of metrics of pods (pods/proxy).")
    return 0 if total <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
