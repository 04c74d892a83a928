"""The conda environment has what the package needs."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
# Names that differ on conda-forge; what is not there comes by pip.
CONDA_NAMES = {"matplotlib": "matplotlib-base", "prometheus-client": "prometheus_client", "kubernetes": "python-kubernetes"}


def split(requirement):
    """Name and lower bound of a requirement."""
    name, bound = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*>=\s*([0-9.]+)", requirement).groups()
    return name.lower(), bound


def test_conda_environment_is_in_step_with_pyproject():
    """
    environment.yml names each dependency, with the same lower bound.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    parts = [project["dependencies"], *(extras[name] for name in ("local", "notebook", "kube"))]
    wanted = dict(split(requirement) for part in parts for requirement in part)
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    given = dict(split(requirement) for requirement in conda if requirement != "pip")
    assert given.pop("python") == project["requires-python"].removeprefix(">=")
    by_pip = dict(split(requirement) for requirement in pip["pip"] if ">=" in requirement)
    assert {CONDA_NAMES.get(name, name): bound for name, bound in wanted.items() if name not in by_pip} == given
    assert by_pip.items() <= wanted.items()


def test_the_client_of_the_api_server_can_end_a_watch():
    """
    urllib3 has a way to end a response from another thread since 2.3; older ones hang until the watch ends by itself.
    """
    from urllib3 import HTTPResponse

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = dict(split(requirement) for requirement in project["dependencies"])
    assert tuple(map(int, bounds["urllib3"].split("."))) >= (2, 3)
    assert callable(HTTPResponse.shutdown)
