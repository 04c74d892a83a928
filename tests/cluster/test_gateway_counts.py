"""Counts of a real gateway through a real Prometheus."""

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from urllib.parse import urlsplit

import cluster_parts as parts
import pytest

import canarykit as ck

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway-metrics"), pytest.mark.real("prometheus")]


def free_port():
    """A port of the loopback address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def prometheus(tmp_path):
    """Address of a Prometheus that scrapes the gateway every second."""
    page = urlsplit(parts.gateway_metrics())
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {"job_name": "gateway", "metrics_path": page.path, "static_configs": [{"targets": [page.netloc]}]},
        ],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    address = f"127.0.0.1:{free_port()}"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [shutil.which("prometheus"), f"--config.file={tmp_path}/prometheus.yml", f"--web.listen-address={address}",
             f"--storage.tsdb.path={tmp_path}/data"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        parts.wait_for(lambda: _ready(address), within=30)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def _ready(address):
    try:
        return urllib.request.urlopen(f"http://{address}/-/ready", timeout=2).status == 200
    except OSError:
        return False


def test_a_rollout_is_judged_on_the_gateways_own_counts(prometheus, connect, experiment, service_of, tmp_path):
    """
    Every request that is sent under a weight is in a window, of the version that the gateway says; the queries are kept.
    """
    cluster = connect(prometheus=prometheus, metrics=os.environ.get("CANARYKIT_GATEWAY_KIND", "traefik"))
    exp = experiment(service_of("failing"), cluster, journal=tmp_path / "journal.sqlite")
    exp.deploy()
    exp.shift(50)
    exp.observe("5s")  # counting has begun: what confirmed the split is counted by now, or never
    before = sum(exp.history().requests)
    load = exp.send(60, duration=10)
    exp.observe("12s")
    exp.stop_sending()
    exp.observe("3s")
    stable, canary = exp.history().requests
    summary = load.summary
    assert summary.lost_total == 0
    assert stable + canary - before == summary.answered
    assert 0.35 < canary / (stable + canary) < 0.65
    assert exp.judge().verdicts[0].comparison.events[1] > 0
    exp.send(60)
    ending = exp.run(ck.RolloutPlan.of(50, hold="4s"))
    assert ending.outcome == "rolled back", str(ending)
    exp.teardown()
    journal = ck.Journal.read(tmp_path / "journal.sqlite")
    assert "traefik_service_requests_total{service=~" in str(journal.facts["sources"])
