# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes and SkyPilot are given: the fields that matter, and SkyPilot's own word on them."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.repository.launchers import ROOT, calls, environment, make_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


def test_jobset_gives_each_pod_its_number_and_never_restarts_bad_input() -> None:
    job_set = yaml.safe_load((ROOT / "launch" / "jobset.yaml").read_text())
    spec, name = job_set["spec"], job_set["metadata"]["name"]
    (hosts,) = spec["replicatedJobs"]
    job = hosts["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    given = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert given["NCJAX_COORDINATOR"] == f"{name}-{hosts['name']}-0-0.{spec['network']['subdomain']}:8476"
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == int(given["NCJAX_PROCESSES"])
    gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert int(given["NCJAX_DEVICES"]) == job["completions"] * gpus
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    (codes, _) = job["podFailurePolicy"]["rules"]
    assert codes["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 75]}
    first, second = spec["failurePolicy"]["rules"]
    assert (first["action"], second["action"]) == ("FailJobSet", "RestartJobSetAndIgnoreMaxRestarts")
    assert first["onJobFailureReasons"] == second["onJobFailureReasons"] == ["PodFailurePolicy"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_skypilot_numbers_its_nodes(project: Path) -> None:
    task = yaml.safe_load((ROOT / "launch" / "skypilot.yaml").read_text())
    assert 2 not in task["resources"]["job_recovery"]["recover_on_exit_codes"]
    assert task["resources"]["job_recovery"]["max_restarts_on_errors"] == 0
    sky = {
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": "1",
        "SKYPILOT_NUM_GPUS_PER_NODE": "8",
    }
    variables = environment(project) | task["envs"] | sky
    subprocess.run(["bash", "-c", task["run"]], cwd=project, env=variables, check=True)
    ((arguments, told),) = calls(project, "ncjax.1")
    assert arguments == [*task["envs"]["ARGS"].split(), "--workdir", "/shared/ncjax"]
    assert told == {
        "NCJAX_COORDINATOR": "10.0.0.1:8476",
        "NCJAX_PROCESSES": "2",
        "NCJAX_PROCESS": "1",
        "NCJAX_DEVICES": "16",
    }
    assert os.path.commonpath([*task["file_mounts"], arguments[-1]]) == "/shared"
