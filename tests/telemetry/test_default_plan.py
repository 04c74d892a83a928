"""A whole rollout with the default plan, counted by a real Prometheus that scrapes as seldom as they do in the field."""

import json
import os
import sys
import time

import pytest
from real_prometheus import prometheus_of

import canarykit as ck
from canarykit.model import ROLES
from canarykit.telemetry.prometheus import PrometheusTelemetry

INTERVALS = os.environ.get("CANARYKIT_SCRAPE_INTERVALS", "15").split()
"""Seconds between scrapes. 15 takes some four minutes, and so on upwards."""


LAUNCHER = """
import os, pathlib, sys
folder, role, model, port, metrics = sys.argv[1:]
(pathlib.Path(folder) / f"{role}-{port}").write_text(metrics)
options = ["--model", model, "--name", "digits", "--version", role, "--port", port, "--metrics-port", metrics]
os.execv(sys.executable, [sys.executable, "-m", "canarykit.serving", *options])
"""
"""Starts the kit's server, and leaves word of where its metrics are."""


class Scraped(ck.LocalCluster):
    """The local default, of which Prometheus is told where the metrics are, and which counts what Prometheus has."""

    def __init__(self, prometheus, folder):
        super().__init__()
        self._url, self._folder = prometheus, folder

    def deploy(self, service):
        """Bring up both versions, and tell Prometheus."""
        super().deploy(service)
        groups = []
        for role in ROLES:
            ports = [(self._folder / f"{role}-{replica.port}").read_text() for replica in self.replicas(role)]
            groups.append({"targets": [f"127.0.0.1:{port}" for port in ports], "labels": {"role": role}})
        (self._folder / "targets.json").write_text(json.dumps(groups))
        self._counted = PrometheusTelemetry(self._url, "canarykit", {role: {"role": role} for role in ROLES})

    @property
    def telemetry(self):
        """Counts from Prometheus."""
        return self._counted


@pytest.mark.real("prometheus")
@pytest.mark.real("envoy")
@pytest.mark.parametrize("every", INTERVALS)
def test_a_default_plan_promotes_at_usual_scrape_intervals(tmp_path, models, every):
    """
    Between two scrapes nothing is counted for longer than a step's usual patience: that is no silence.
    """
    targets = tmp_path / "targets.json"
    targets.write_text("[]")

    def version(role, kind):
        command = [sys.executable, "-c", LAUNCHER, str(tmp_path), role, str(models[kind]), "{port}", "{port:metrics}"]
        return ck.Version(role, command=command)

    job = {
        "job_name": "servers",
        "scrape_interval": f"{every}s",
        "scrape_timeout": "5s",
        "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
    }
    service = ck.Service("digits", version("stable", "stable"), version("canary", "good"))
    with prometheus_of(tmp_path, [job]) as url, ck.Experiment(service, Scraped(url, tmp_path), notify=lambda line: None) as exp:
        exp.deploy()
        begun = time.monotonic()
        load = exp.send(80)
        ending = exp.run()
        seconds = time.monotonic() - begun
        assert ending.outcome == "promoted", ending.sentence
        assert exp.journal.facts["sources"]["scrape interval"] == f"{every} s"
        # Three steps of a minute, each of which begins and ends with a scrape.
        assert seconds > 180
        assert load.summary.lost_total == 0
