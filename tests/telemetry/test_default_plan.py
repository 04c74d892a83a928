"""A whole rollout with the default plan, counted by a real Prometheus that scrapes as seldom as they do in the field."""

import json
import os
import time

import pytest
from real_prometheus import prometheus_of

import canarykit as ck
from canarykit.model import ROLES
from canarykit.telemetry.prometheus import PrometheusTelemetry

INTERVALS = os.environ.get("CANARYKIT_SCRAPE_INTERVALS", "15").split()
"""Seconds between scrapes. 15 takes some four minutes, and so on upwards."""


class Scraped(ck.LocalCluster):
    """The local default, of which Prometheus is told where the servers are, and which counts what Prometheus has."""

    def __init__(self, prometheus, targets):
        super().__init__()
        self._url, self._targets = prometheus, targets

    def deploy(self, service):
        """Bring up both versions; return when Prometheus has scraped all of them."""
        super().deploy(service)
        groups = [
            {"targets": [f"127.0.0.1:{replica.port}" for replica in self.replicas(role)], "labels": {"role": role}}
            for role in ROLES
        ]
        self._targets.write_text(json.dumps(groups))
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
    job = {
        "job_name": "servers",
        "scrape_interval": f"{every}s",
        "scrape_timeout": "5s",
        "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
    }
    service = ck.Service("digits", ck.Version("v1", model=models["stable"]), ck.Version("v2", model=models["good"]))
    with prometheus_of(tmp_path, [job]) as url, ck.Experiment(service, Scraped(url, targets), tell=lambda line: None) as exp:
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
