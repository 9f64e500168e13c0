# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes and SkyPilot are given: the fields that matter, and SkyPilot's own word on them."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
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


def test_jobset_starts_all_pods_again_together_and_lets_them_write_a_checkpoint() -> None:
    job_set = yaml.safe_load((ROOT / "launch" / "jobset.yaml").read_text())
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = job_set["spec"]
    assert spec["network"]["enableDNSHostnames"]  # the name of process 0 is one of DNS
    assert spec["failurePolicy"]["maxRestarts"] > 0
    (hosts,) = spec["replicatedJobs"]
    assert hosts["replicas"] == 1
    job = hosts["template"]["spec"]
    assert job["backoffLimit"] == 0
    assert job["podFailurePolicy"]["rules"][1]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    pod = job["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 60  # Kubernetes has 30; a stop takes about 15 and a checkpoint
    (container,) = pod["containers"]
    (number,) = (entry for entry in container["env"] if entry["name"] == "NCJAX_PROCESS")
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert number["valueFrom"]["fieldRef"]["fieldPath"] == index
    assert container["args"][container["args"].index("--workdir") + 1].startswith("/shared/")
    assert {"name": "shared", "mountPath": "/shared"} in container["volumeMounts"]
    assert {"name": "memory", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert {"name": "memory", "emptyDir": {"medium": "Memory"}} in pod["volumes"]


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


def test_skypilot_replaces_a_preempted_machine_and_ends_where_the_input_is_bad() -> None:
    task = yaml.safe_load((ROOT / "launch" / "skypilot.yaml").read_text())
    resources = task["resources"]
    assert resources["use_spot"]
    assert resources["job_recovery"]["strategy"] in ("EAGER_NEXT_REGION", "FAILOVER")
    assert {75, 134} <= set(resources["job_recovery"]["recover_on_exit_codes"])
    assert task["workdir"] == "."
    assert task["file_mounts"]["/shared"]["mode"] == "MOUNT"
    assert "setup $EXTRA" in task["setup"]
    assert task["run"].rstrip().splitlines()[-1].startswith("exec ")  # SIGTERM reaches ncjax


# What SkyPilot makes of the file.
LOADED = """
import json, sys
import sky
task = sky.Task.from_yaml(sys.argv[1])
(resources,) = task.resources
print(json.dumps([task.num_nodes, resources.accelerators, resources.use_spot, resources.job_recovery]))
"""


@pytest.mark.skipif(find_spec("sky") is None, reason="SkyPilot is not installed")
def test_skypilot_itself_accepts_the_file(tmp_path: Path) -> None:
    task = ROOT / "launch" / "skypilot.yaml"
    given = os.environ | {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    line = [sys.executable, "-c", LOADED, str(task)]
    done = subprocess.run(line, cwd=ROOT, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    nodes, accelerators, spot, recovery = json.loads(done.stdout.splitlines()[-1])
    assert (nodes, accelerators, spot) == (2, {"H100": 8}, True)
    assert recovery["recover_on_exit_codes"] == [75, 134]
