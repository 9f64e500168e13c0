# SPDX-License-Identifier: Apache-2.0
"""launch/slurm.sh and launch/slurm_job.sh on stand-ins for Slurm: what is asked for, and when a job queues again.

`test_launchers_slurm_cluster.py` has the same on a real scheduler.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.repository.launchers import STAND_IN, calls, environment, launch, lines, make_project, script

RUN = ("run", "c.py", "--workdir", "/shared/my runs")
# Leaves the command of the job in a file.
SBATCH = STAND_IN + "(folder / 'job').write_text(sys.argv[sys.argv.index('--wrap') + 1])\n"
# Runs what it is given as process LOCALID of a node.
SRUN = STAND_IN + (
    "at = sys.argv.index('env')\n"
    "os.environ['SLURM_LOCALID'] = os.environ.get('LOCALID', '0')\n"
    "os.execvp('env', sys.argv[at:])\n"
)
SCONTROL = STAND_IN + "print(os.environ.get('STATE', 'JobState=RUNNING Reason=None'))\n"
# Ends at SIGTERM with 75, as ncjax does; where it hangs it does not.
WAITS = STAND_IN + (
    "import signal, time\n"
    "hangs = os.environ['HANGS'] == 'yes'\n"
    "signal.signal(signal.SIGTERM, lambda *_: None if hangs else sys.exit(75))\n"
    "(folder / 'pid').write_text(str(os.getpid()))\n"
    "while True: time.sleep(0.05)\n"
)
SCANCEL = STAND_IN + "os.kill(int((folder / 'pid').read_text()), 15)\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = make_project(tmp_path)
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "scancel": SCANCEL}.items():
        script(tmp_path / "bin" / name, text)
    return project


def submitted(project: Path, *options: str, **variables: str) -> str:
    """The command of the job, which is what --dry-run says."""
    printed = lines(launch(project, "slurm.sh", "--dry-run", *options, "--", *RUN, **variables))
    lines(launch(project, "slurm.sh", *options, "--", *RUN, **variables))
    ((given, _),) = calls(project, "sbatch.")
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {printed[0]}"], capture_output=True, text=True, check=True)
    assert words.stdout.split("\n")[1:-1] == given
    return (project.parent / "log" / "job").read_text()


def variables_of_the_job(project: Path, **more: str) -> dict[str, str]:
    given = {"SLURM_JOB_ID": "5", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "64", "ENVIRONMENT": "BATCH"}
    return environment(project) | given | more


def queued(project: Path) -> int:
    """How often the job was queued again."""
    return sum(arguments == ["requeue", "5"] for arguments, _ in calls(project, "scontrol."))


@pytest.mark.parametrize(
    ("codes", "restarts", "verdict", "again"),
    [("0", "0", 0, 0), ("75", "0", 75, 1), ("-9", "3", 137, 1), ("2", "0", 2, 0), ("75", "100", 75, 0)],
)
def test_a_job_takes_every_gpu_and_queues_again_when_it_was_stopped(
    project: Path, codes: str, restarts: str, verdict: int, again: int
) -> None:
    job = submitted(project, "--nodes", "2", "--gpus-per-node", "8")
    ((options, _),) = calls(project, "sbatch.")
    assert {"--ntasks-per-node=1", "--exclusive", "--requeue", "--signal=B:TERM@180", "--gpus-per-node"} <= set(options)
    more = {"SLURM_GPUS_ON_NODE": "8", "CODES": codes, "SLURM_RESTART_COUNT": restarts}
    done = subprocess.run(
        ["bash", "-c", job], env=variables_of_the_job(project, **more), capture_output=True, text=True
    )
    assert done.returncode == verdict, done.stderr
    assert queued(project) == again
    assert {"--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=64"} <= set(calls(project, "srun.")[0][0])
    ((arguments, told),) = calls(project, "ncjax.")
    assert arguments == list(RUN)
    assert told == {
        "NCJAX_DISTRIBUTED": "auto",
        "NCJAX_DEVICES": "16",
        "JAX_LOCAL_DEVICE_IDS": "0,1,2,3,4,5,6,7",
    }


@pytest.mark.parametrize(
    ("tasks", "process", "ids"), [(8, 7, "7"), (2, 1, "4,5,6,7"), (4, 0, "0,1"), (1, 0, "0,1,2,3,4,5,6,7")]
)
def test_processes_of_a_node_share_its_gpus(project: Path, tasks: int, process: int, ids: str) -> None:
    job = submitted(project, "-N", "2", f"--ntasks-per-node={tasks}", "--gpus-per-node=h100:8")
    more = {"SLURM_GPUS_ON_NODE": "8", "SLURM_NTASKS_PER_NODE": str(tasks), "LOCALID": str(process)}
    subprocess.run(["bash", "-c", job], env=variables_of_the_job(project, **more), check=True)
    assert {f"--ntasks={2 * tasks}", f"--cpus-per-task={64 // tasks}"} <= set(calls(project, "srun.")[0][0])
    ((_, told),) = calls(project, "ncjax.")
    assert told == {"NCJAX_DISTRIBUTED": "auto", "NCJAX_DEVICES": "16", "JAX_LOCAL_DEVICE_IDS": ids}


def test_a_job_without_gpus(project: Path) -> None:
    job = submitted(project, "--cpus", "-N", "2", "--ntasks-per-node", "4")
    more = {"SLURM_NTASKS_PER_NODE": "4", "JAX_NUM_CPU_DEVICES": "2"}
    subprocess.run(["bash", "-c", job], env=variables_of_the_job(project, **more), check=True)
    ((_, told),) = calls(project, "ncjax.")
    assert told == {
        "NCJAX_DISTRIBUTED": "auto",
        "NCJAX_DEVICES": "16",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
    }


def test_within_an_allocation_it_starts_at_once_and_queues_nothing(project: Path) -> None:
    more = {"SLURM_JOB_ID": "5", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "64", "SLURM_GPUS_ON_NODE": "2"}
    done = launch(project, "slurm.sh", "--ntasks-per-node", "2", "--", *RUN, **more, CODES="75")
    assert done.returncode == 75, done.stderr
    assert "--ntasks=4" in calls(project, "srun.")[0][0]
    assert not calls(project, "sbatch.")
    assert queued(project) == 0


def test_a_job_without_its_gpus_is_one_clear_line(project: Path) -> None:
    job = submitted(project, "--gpus-per-node", "8")
    done = subprocess.run(["bash", "-c", job], env=variables_of_the_job(project), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "ncjax: the job holds no GPU; ask for them with --gpus-per-node, or give --cpus\n"


RUNNING, LATE = "JobState=RUNNING Reason=None", "JobState=COMPLETING Reason=TimeLimit"


@pytest.mark.parametrize(
    ("hangs", "state", "again"),
    [
        pytest.param("no", RUNNING, 1, id="it stops"),
        pytest.param("yes", RUNNING, 1, id="it hangs"),
        pytest.param("yes", LATE, 1, id="it hangs until the time limit"),
        pytest.param("no", "JobState=COMPLETING Reason=None", 0, id="scancel"),
    ],
)
def test_sigterm_queues_a_job_again_and_scancel_does_not(project: Path, hangs: str, state: str, again: int) -> None:
    job, pid = submitted(project, "--cpus"), project.parent / "log" / "pid"
    script(project / ".venv" / "bin" / "ncjax", WAITS)
    given = variables_of_the_job(project, HANGS=hangs, STATE=state, STOP_SECS="600" if state == LATE else "2")
    with subprocess.Popen(["bash", "-c", job], env=given) as running:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 75
    assert queued(project) == again
    assert calls(project, "scancel.")[0][0] == ["--signal=TERM", "5"]
    if hangs == "yes":  # srun, which ends it in a cluster, was it itself here
        os.kill(int(pid.read_text()), signal.SIGKILL)
