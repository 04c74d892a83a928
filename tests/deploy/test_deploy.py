"""What is shipped to run elsewhere agrees with the package."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import canarykit as ck
from canarykit.clusters.kube.workloads import manifests

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def test_the_servers_requirements_are_in_step_with_pyproject():
    """
    A part of the package's own, with the same lower bounds.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "deploy" / "server-requirements.txt").read_text().splitlines()
    needs = {line for line in lines if not line.startswith("#")}
    assert needs <= {*project["dependencies"], *project["optional-dependencies"]["local"]}


def test_the_server_needs_nothing_else():
    """
    The server and the load generator import no library that their image lacks.
    """
    import subprocess
    import sys

    lines = (ROOT / "deploy" / "server-requirements.txt").read_text().splitlines()
    names = [re.split(r"[>=]", line)[0] for line in lines if not line.startswith("#")]
    # Each requirement's own dependencies are there too; what must not be loaded is what only the rest of the kit needs.
    absent = {"pandas", "matplotlib", "pydantic", "papermill", "jupyterlab", "kubernetes", "ipywidgets"}
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(absent)}))\n"
        "import canarykit.serving.server, canarykit.load.generator, canarykit.serving.storage"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"starlette", "uvicorn", "skops", "aiohttp"} <= set(names)


def test_the_image_is_what_the_manifests_expect():
    """
    Not root, the port and the arguments of the pods, the tag of the package's version; base images are pinned.
    """
    estimator = b"a model file"
    service = ck.Service("digits", ck.Version("v1", model="a.skops"), ck.Version("v2", model="b.skops"))
    pod = manifests.deployment(service, "stable", manifests.Workload(), manifests.Model(estimator))["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == f"canarykit-server:{ck.__version__}"
    assert f"canarykit-server:{ck.__version__}" in DOCKERFILE
    user = pod["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in DOCKERFILE
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert 'ENTRYPOINT ["python3", "-m", "canarykit.serving"]' in DOCKERFILE
    assert f"EXPOSE {' '.join(str(port['containerPort']) for port in container['ports'])}" in DOCKERFILE
    assert re.search(r"^ARG PYTHON=python:3\.\d+-slim-\w+$", DOCKERFILE, re.M)
    flags = {word for word in container["args"] if word.startswith("--")}
    assert flags <= set(re.findall(r"--[a-z]+", DOCKERFILE.split("CMD")[1]))


@pytest.mark.parametrize("name", ["Dockerfile", "rbac.yaml", "kind.yaml", "server-requirements.txt"])
def test_every_file_says_what_it_is_for(name):
    """
    In a comment at its top.
    """
    assert (ROOT / "deploy" / name).read_text().startswith("# ")


def test_the_optional_part_of_the_role_sees_routes_everywhere_and_nothing_else():
    """
    It is a comment in which YAML is left when the first sign of each line is taken away.
    """
    optional = (ROOT / "deploy" / "rbac.yaml").read_text().split("# ---\n", 1)[1]
    role, binding = yaml.safe_load_all(optional.replace("# ", "", 1).replace("\n# ", "\n"))
    assert {name for rule in role["rules"] for name in rule["resources"]} == {"httproutes", "grpcroutes", "virtualservices"}
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"list"}
    assert (role["kind"], binding["kind"]) == ("ClusterRole", "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
