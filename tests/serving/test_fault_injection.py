"""Faults that are switched on and off while a server runs."""

import numpy as np
import pytest
from starlette.testclient import TestClient

from canarykit.serving import digits
from canarykit.serving.fault_injection import FAULTS, FaultSwitch, switch
from canarykit.serving.server import ModelServer

IMAGES, LABELS = digits.held_out()


@pytest.fixture
def answers(tmp_path):
    """Ask a server, with a fault switched on, for labels of 60 images; None is an error."""
    path = tmp_path / "fault"
    client = TestClient(ModelServer(digits.model("good"), "digits", "v1", FaultSwitch(path)).app())

    def ask(fault):
        switch(path, fault)
        labels = []
        for image in IMAGES[:60]:
            tensor = {"name": "input", "shape": [1, 64], "datatype": "FP64", "data": image.tolist()}
            response = client.post("/v2/models/digits/infer", json={"inputs": [tensor]})
            labels.append(response.json()["outputs"][0]["data"][0] if response.status_code == 200 else None)
        return labels

    return ask


def test_a_fault_is_on_until_it_is_switched_off(answers):
    """
    Errors for some, wrong labels for some, and all is well before and after.
    """
    well = answers(None)
    assert None not in well
    failing = answers("failing")
    assert 0 < failing.count(None) < 30
    wrong = answers("wrong")
    differ = [a != b for a, b in zip(well, wrong, strict=True)]
    assert None not in wrong and 3 < sum(differ) < 40
    assert answers(None) == well


def test_a_slow_server_waits(tmp_path):
    """
    Fifty milliseconds before each answer.
    """
    knob = FaultSwitch(tmp_path / "fault")
    switch(tmp_path / "fault", "slow")
    assert (knob.delay, knob.fails()) == (0.05, False)


def test_without_a_file_there_is_no_fault(tmp_path):
    """
    Nothing is broken that nobody broke.
    """
    for knob in (FaultSwitch(), FaultSwitch(tmp_path / "none")):
        assert knob.fault == ""
        assert knob.delay == 0.0
        assert np.array_equal(knob.spoiled(np.array([1, 2]), np.arange(10)), [1, 2])


def test_every_fault_has_words():
    """
    For whoever chooses one.
    """
    assert all(len(words) > 20 for words in FAULTS.values())
