# SPDX-License-Identifier: Apache-2.0
"""launch/slurm.sh on a real scheduler: a cluster of one node with two cores and two false GPUs, which is this machine.

Needs Debian's slurm-wlm and munge, and root: apt-get install slurm-wlm munge.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.repository.launchers import STAND_IN, calls, environment, launch, lines, make_project, script
from tests.runs import ROOT, command, free_port, records, state_of

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
SBIN = f"{os.environ['PATH']}:/usr/sbin:/opt/slurm/bin:/opt/slurm/sbin"
MISSING = [name for name in PROGRAMS if not shutil.which(name, path=SBIN)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed: no {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd starts jobs as root alone"),
]

CONFIG = """
ClusterName=one
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={controller}
SlurmdPort={node}
JobRequeue=1
ReturnToService=2
KillWait=10
GresTypes=gpu
NodeName=localhost CPUs=2 CoresPerSocket=2 RealMemory=1000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
GPUS = "NodeName=localhost Name=gpu File=/dev/zero Count=1\nNodeName=localhost Name=gpu File=/dev/full Count=1\n"

NCJAX = "from ncjax.cli.main import main\nmain()\n"
# Hangs the first time, deaf to SIGTERM.
HANGS_ONCE = STAND_IN + (
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "while not os.environ.get('SLURM_RESTART_COUNT'): time.sleep(0.1)\n"
)


def until(found: Callable[[], object], what: Callable[[], str], secs: float = 600) -> None:
    end = time.monotonic() + secs
    while not found():
        assert time.monotonic() < end, f"waited {secs} s for {what()}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """Its configuration; munge has a key and a socket of its own."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    config, munge = (
        folder / "slurm.conf",
        [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")],
    )
    config.write_text(CONFIG.format(folder=folder, controller=free_port(), node=free_port()))
    (folder / "gres.conf").write_text(GPUS)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    given = {**os.environ, "PATH": SBIN, "SLURM_CONF": str(config)}
    programs = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        ["slurmctld", "-D", "-L", str(folder / "slurmctld.log")],
        ["slurmd", "-D", "-N", "localhost", "-L", str(folder / "slurmd.log")],
    ]
    running = []
    try:
        for program in programs:
            running.append(subprocess.Popen(program, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            until((folder / "munge.socket").exists, lambda: "munge", 30)
        state = ["sinfo", "--noheader", "--format=%T"]
        until(
            lambda: b"idle" in subprocess.run(state, env=given, capture_output=True, check=False).stdout,
            lambda: "the node",
            60,
        )
        yield config
    finally:
        subprocess.run(["scancel", "--user=root"], env=given, capture_output=True, check=False)
        time.sleep(2)
        for process in reversed(running):
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


class Jobs:
    """What a test asks of the cluster, for jobs of one project."""

    def __init__(self, cluster: Path, project: Path) -> None:
        found = str(Path(shutil.which("sbatch", path=SBIN) or "").parent)
        self.project = project
        self.conf = {"SLURM_CONF": str(cluster), "PATH": f"{environment(project)['PATH']}:{found}"}

    def submit(self, *arguments: object, **variables: str) -> str:
        """The number of the job."""
        done = launch(self.project, "slurm.sh", *map(str, arguments), **self.conf, **variables)
        return lines(done)[-1].split()[-1]

    def ask(self, *words: str) -> str:
        given = environment(self.project) | self.conf
        return subprocess.run(words, env=given, capture_output=True, text=True, check=False).stdout

    def field(self, job: str, name: str) -> str:
        found = re.search(rf"\b{name}=(\S+)", self.ask("scontrol", "show", "job", job))
        return found.group(1) if found else ""

    def until(self, job: str, name: str, value: str) -> None:
        until(
            lambda: self.field(job, name) == value,
            lambda: f"{name}={value} of job {job}: {self.ask('scontrol', 'show', 'job', job)}{self.log(job)}",
        )

    def start_again(self, job: str) -> None:
        """Slurm waits two minutes before it starts a job again; we do not.

        In the second in which a job was ended, slurmd refuses to start it again.
        """
        self.until(job, "Restarts", "1")
        self.until(job, "JobState", "PENDING")
        time.sleep(2)
        self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    def log(self, job: str) -> str:
        path = self.project.parent / f"slurm-{job}.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def jobs(cluster: Path, tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(cluster, make_project(tmp_path))
    yield jobs
    jobs.ask("scancel", "--user=root")
    until(lambda: not jobs.ask("squeue", "--noheader"), lambda: "the end of all jobs")


EPOCHS = 20
STEPS = 5 * EPOCHS
OPTIONS = ["--optim.epochs", EPOCHS, "--chunk-steps", 2, "--mesh.data", 0, "--checkpoint-minutes", 1e-6]
ONE_DEVICE = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"


def train(jobs: Jobs, workdir: Path) -> str:
    """Two processes of one device train in a job."""
    script(jobs.project / ".venv" / "bin" / "ncjax", NCJAX)
    slurm = ("--cpus", "--nodes", 1, "--ntasks-per-node", 2, "--time", 30, "--")
    given = {name: os.environ[name] for name in os.environ if name.startswith("JAX_")}
    return jobs.submit(
        *slurm, *command("train", workdir, *OPTIONS), **given, PYTHONPATH=str(ROOT), XLA_FLAGS=ONE_DEVICE
    )


def has_come_to(workdir: Path, step: int) -> bool:
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return any(name.isdigit() and int(name) >= step for name in names)


def test_two_processes_are_preempted_queue_again_and_end_bit_for_bit_like_undisturbed_ones(
    jobs: Jobs, tmp_path: Path
) -> None:
    jobs.until(train(jobs, tmp_path / "undisturbed"), "JobState", "COMPLETED")
    workdir = tmp_path / "preempted"
    job = train(jobs, workdir)
    until(lambda: has_come_to(workdir, 8), lambda: f"a checkpoint: {jobs.log(job)}")
    jobs.ask("scancel", "--batch", "--signal=TERM", job)  # to the script alone, as before the time limit
    jobs.start_again(job)
    assert f"ncjax: exit code 75; job {job} queues again" in jobs.log(job)
    assert len(records(workdir)) < EPOCHS
    jobs.until(job, "JobState", "COMPLETED")
    assert jobs.log(job).count("ncjax: stopped after step") == 2  # each process
    assert records(workdir) == records(tmp_path / "undisturbed")
    for ours, theirs in zip(state_of(workdir, STEPS), state_of(tmp_path / "undisturbed", STEPS), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_scancel_ends_a_job_for_good(jobs: Jobs, tmp_path: Path) -> None:
    job = train(jobs, tmp_path / "cancelled")
    until(lambda: has_come_to(tmp_path / "cancelled", 4), lambda: f"a checkpoint: {jobs.log(job)}")
    jobs.ask("scancel", job)
    jobs.until(job, "JobState", "CANCELLED")
    time.sleep(5)
    assert jobs.field(job, "JobState") == "CANCELLED"
    assert jobs.field(job, "Restarts") == "0"
    assert "queues again" not in jobs.log(job)


@pytest.mark.parametrize("wait", ["3", "600"], ids=["after a while", "at the time limit"])
def test_a_job_that_hangs_is_queued_again(jobs: Jobs, wait: str) -> None:
    script(jobs.project / ".venv" / "bin" / "ncjax", HANGS_ONCE)
    slurm = ("--cpus", "--nodes", 1, "--time", 1 if wait == "600" else 30, "--signal=B:TERM@1")
    job = jobs.submit(*slurm, "--", "run", "c.py", "--workdir", "w", STOP_SECS=wait)
    until(lambda: calls(jobs.project, "ncjax."), lambda: f"the first start: {jobs.log(job)}")
    if wait == "3":
        time.sleep(1)  # until it is deaf
        jobs.ask("scancel", "--batch", "--signal=TERM", job)
    jobs.start_again(job)
    jobs.until(job, "JobState", "COMPLETED")
    assert len(calls(jobs.project, "ncjax.")) == 2


def test_each_process_has_one_of_two_gpus(jobs: Jobs) -> None:
    gpus = ("--nodes", 1, "--gpus-per-node", 2, "--ntasks-per-node", 2)
    job = jobs.submit(*gpus, "--", "run", "c.py", "--workdir", "w")
    jobs.until(job, "JobState", "COMPLETED")
    told = [variables for _, variables in calls(jobs.project, "ncjax.")]
    assert sorted(variables["JAX_LOCAL_DEVICE_IDS"] for variables in told) == ["0", "1"]
    assert [variables["CUDA_VISIBLE_DEVICES"] for variables in told] == ["0,1", "0,1"]
    assert [variables["NCJAX_DEVICES"] for variables in told] == ["2", "2"]
