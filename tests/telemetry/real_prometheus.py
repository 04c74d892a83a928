"""A real Prometheus for tests."""

import contextlib
import http.client
import json
import socket
import subprocess
import time


def started(process, port, path, within=30.0):
    """Wait until a process answers."""
    end = time.monotonic() + within
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        assert process.poll() is None, f"it ended with {process.returncode}"
        assert time.monotonic() < end, f"nobody answers on port {port}"
        time.sleep(0.05)


@contextlib.contextmanager
def prometheus_of(folder, jobs):
    """Start a Prometheus that scrapes these jobs; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": jobs}))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        started(process, port, "/-/ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(15)
