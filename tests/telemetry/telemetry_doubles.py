"""Doubles of what telemetry reads: the pages of replicas, and the API of a Prometheus."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from canarykit.telemetry.scrape import Replica

REQUESTS, BUCKETS = "canarykit_requests_total", "canarykit_request_duration_seconds_bucket"


class Prometheus:
    """What a Prometheus answers: scrapes that a test writes, or an answer of the test's own."""

    def __init__(self):
        self.series, self.answer, self.asked, self.authorization = {}, None, [], None
        self.targets = (404, "")
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                double.authorization = self.headers["authorization"]
                status, body = double.answer or (200, double.query(form["query"][0], float(form["time"][0])))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def do_GET(self):
                double.authorization = self.headers["authorization"]
                status, body = double.answer or double.targets
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        """End the server."""
        self._server.shutdown()
        self._server.server_close()

    def scrape(self, at, role, ok, *, failed=None, pod=None, fast=None, **labels):
        """One page of a pod, read at a time; `labels` are those of its target."""
        labels = {"role": role, "instance": pod or f"{role}-0", "job": "pods", **({"pod": pod} if pod else {}), **labels}
        fast = ok if fast is None else fast
        samples = {(REQUESTS, "code", "200"): ok, (BUCKETS, "le", "0.1"): fast, (BUCKETS, "le", "+Inf"): ok}
        if failed is not None:
            samples[REQUESTS, "code", "500"] = failed
        for (name, label, value), total in samples.items():
            self.add(at, name, total, **{label: value, **labels})

    def add(self, at, name, total, **labels):
        """One sample of a series with these labels."""
        self.series.setdefault(json.dumps({"__name__": name, **labels}, sort_keys=True), []).append([at, str(total)])

    def query(self, query, at):
        """Answer a query for a range of samples."""
        self.asked.append(query)
        name, role, seconds = re.fullmatch(r'([a-z_]+)\{role="([a-z]+)"\}\[(\d+)s\]', query).groups()
        result = []
        for key, values in self.series.items():
            metric, inside = json.loads(key), [value for value in values if at - int(seconds) < value[0] <= at]
            if metric["__name__"] == name and metric["role"] == role and inside:
                result.append({"metric": metric, "values": inside})
        return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})


def page(ok=0, failed=None, *, slow=0, total=None):
    """A page as the kit's own server writes it: two buckets; failures have a series only when there were some."""
    quick = ok - slow
    lines = [
        "# HELP canarykit_requests_total Finished requests.",
        "# TYPE canarykit_requests_total counter",
        f'canarykit_requests_total{{code="200"}} {ok if total is None else total}',
        *([f'canarykit_requests_total{{code="500"}} {failed}'] if failed is not None else []),
        "# TYPE canarykit_request_duration_seconds histogram",
        f'canarykit_request_duration_seconds_bucket{{le="0.1"}} {quick}',
        f'canarykit_request_duration_seconds_bucket{{le="+Inf"}} {quick + slow}',
        f"canarykit_request_duration_seconds_sum {0.05 * quick + 2 * slow}",
        f"canarykit_request_duration_seconds_count {quick + slow}",
        "# TYPE python_gc_objects_collected_total counter",
        'python_gc_objects_collected_total{generation="0"} 3.5',
    ]
    return "\n".join(lines) + "\n"


class Fleet:
    """Replicas whose pages a test writes; a page that is an error is raised."""

    def __init__(self, **pages):
        self.pages = pages

    def __call__(self):
        return [
            Replica(name.rpartition("_")[0], name.replace("_", "-"), lambda name=name: self._fetch(name)) for name in self.pages
        ]

    def _fetch(self, name):
        if isinstance(self.pages[name], OSError):
            raise self.pages[name]
        return self.pages[name]
