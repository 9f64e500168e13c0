# SPDX-License-Identifier: Apache-2.0
"""The launchers for many devices, on stand-ins for ncjax and for the platforms' tools: what is run, and how often."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.repository.launchers import ROOT, STAND_IN, calls, environment, files, launch, lines, make_project, script
from tests.runs import command, ended, free_port, records, start_several, state_of

LAUNCHERS = ("again.sh", "multi_gpu.sh", "slurm.sh", "slurm_job.sh", "tpu_vm.sh")

# ssh runs the last command of the three; the states of the machine come from a file, one a look.
GCLOUD = (
    STAND_IN
    + """
import subprocess
verb = sys.argv[3:5]
if verb[1] == "describe":
    states = folder / "states"
    now, *later = states.read_text().split()
    states.write_text(" ".join(later or [now]))
    print("" if now == "NONE" else now)
    sys.exit(now == "NONE")
command = sys.argv[-1].removeprefix("--command=")
if verb[1] == "ssh" and ".venv/bin/ncjax" in command:
    sys.exit(subprocess.run(["bash", "-c", command], cwd=os.environ["HOME"]).returncode)
"""
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


def test_launchers_are_short_and_executable() -> None:
    for path in [ROOT / "launch" / name for name in LAUNCHERS]:
        assert path.stat().st_mode & stat.S_IXUSR, path
    for path in (ROOT / "launch").iterdir():
        assert len(path.read_text().splitlines()) <= 80, path


@pytest.mark.parametrize(
    ("codes", "runs", "verdict"),
    [
        ("0", 1, 0),
        ("2", 1, 2),
        ("1", 1, 1),
        ("75 75 0", 3, 0),
        ("-9 -15 2", 3, 2),
        ("75", 4, 75),
        ("-9", 4, 137),
        ("130", 1, 130),
        ("255", 1, 255),
    ],
)
def test_again_runs_what_was_stopped_or_killed(project: Path, codes: str, runs: int, verdict: int) -> None:
    command = (str(project / ".venv" / "bin" / "ncjax"), "run", "a config.py")
    done = launch(project, "again.sh", "--tries", "3", *command, CODES=codes)
    assert done.returncode == verdict, done.stderr
    assert [arguments for arguments, _ in calls(project, "ncjax.")] == [["run", "a config.py"]] * runs
    assert done.stderr.count("goes on in") == runs - 1 if verdict not in (75, 137) else "giving up" in done.stderr


def test_again_passes_a_signal_on_and_stops(project: Path) -> None:
    ready = project.parent / "ready"
    waiting = (
        f"import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        f"with open({str(ready)!r}, 'a') as f: f.write('x')\nwhile True: time.sleep(0.05)"
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        ready.unlink(missing_ok=True)
        again = [str(project / "launch" / "again.sh"), sys.executable, "-c", waiting]
        with subprocess.Popen(["bash", *again], env=environment(project), start_new_session=True) as running:
            while not (ready.exists() and ready.read_text()):
                time.sleep(0.01)
            running.send_signal(number)
            assert running.wait(30) == 75
        assert ready.read_text() == "x"


def test_dry_runs_touch_nothing(project: Path) -> None:
    for name in ("nvidia-smi", "sbatch", "srun", "scontrol", "gcloud", "git"):
        script(project.parent / "bin" / name, "print('GPU 0: stand-in')\n" if name == "nvidia-smi" else STAND_IN)
    shutil.rmtree(project / ".venv")
    before = files(project.parent)
    run = ("run", "c.py", "--workdir", "w")
    assert (
        lines(launch(project, "again.sh", "--dry-run", "--tries", "7", "ncjax", *run))[0]
        == "ncjax run c.py --workdir w"
    )
    assert len(lines(launch(project, "multi_gpu.sh", "--dry-run", *run))) == 1
    assert lines(launch(project, "slurm.sh", "--dry-run", "--cpus", "--nodes", "2", "--", *run))[0].startswith(
        "sbatch "
    )
    tpu = launch(project, "tpu_vm.sh", "--dry-run", "name", "v5litepod-8", "zone", "gs://b", "run", "c.py")
    assert len(lines(tpu)) == 6
    assert files(project.parent) == before


def test_one_process_sees_every_gpu(project: Path) -> None:
    script(project.parent / "bin" / "nvidia-smi", "for i in range(4): print(f'GPU {i}: stand-in')\n")
    printed = lines(launch(project, "multi_gpu.sh", "--dry-run", "run", "a b.py", "--mesh.data", "4"))
    ncjax = project.resolve() / ".venv" / "bin" / "ncjax"
    assert printed == [f"env NCJAX_DEVICES=4 {ncjax} run 'a b.py' --mesh.data 4"]
    assert launch(project, "multi_gpu.sh", "run", "a b.py", CODES="75").returncode == 75
    assert calls(project, "ncjax.") == [(["run", "a b.py"], {"NCJAX_DEVICES": "4"})]
    chosen = lines(launch(project, "multi_gpu.sh", "--dry-run", "run", "c.py", CUDA_VISIBLE_DEVICES="1,3"))
    assert chosen == [f"env NCJAX_DEVICES=2 {ncjax} run c.py"]


def test_one_process_for_each_gpu(project: Path) -> None:
    script(project.parent / "bin" / "nvidia-smi", "for i in range(3): print(f'GPU {i}: stand-in')\n")
    printed = lines(launch(project, "multi_gpu.sh", "--per-gpu", "--dry-run", "run", "c.py"))
    assert launch(project, "multi_gpu.sh", "--per-gpu", "run", "c.py").returncode == 0
    for i in range(3):
        ((arguments, told),) = calls(project, f"ncjax.{i}")
        assert arguments == ["run", "c.py"]
        assert told == {
            "NCJAX_DEVICES": "3",
            "NCJAX_COORDINATOR": "localhost:8476",
            "NCJAX_PROCESSES": "3",
            "NCJAX_PROCESS": str(i),
            "CUDA_VISIBLE_DEVICES": str(i),
        }
        assert all(f"{name}={value} " in printed[i] for name, value in told.items())
    for codes, verdict in {"0:0 1:0 2:75": 75, "0:1 1:-9 2:134": 75, "0:75 1:2 2:-9": 2, "0:0 1:1 2:0": 1}.items():
        for log in (project.parent / "log").iterdir():
            log.unlink()
        assert launch(project, "multi_gpu.sh", "--per-gpu", "run", "c.py", CODES=codes).returncode == verdict, codes


# ncjax itself, which leaves its number.
REAL = """import os
from pathlib import Path
(Path(os.environ["LOG"]) / f"pid.{os.environ['NCJAX_PROCESS']}").write_text(str(os.getpid()))
from ncjax.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_run_that_lost_a_process_goes_on_by_itself_and_ends_like_one_that_lost_none(
    project: Path, tmp_path: Path
) -> None:
    """again.sh around multi_gpu.sh --per-gpu, on CPU devices in place of GPUs."""
    run = [*command("train", tmp_path / "lost", "--optim.epochs", 20, "--chunk-steps", 2, "--mesh.data", 0)]
    run += ["--checkpoint-minutes", 1e-6]
    pair = start_several(
        [word if word != tmp_path / "lost" else tmp_path / "whole" for word in run], processes=2, devices=1
    )
    assert [code for code, _ in ended(pair, timeout=900)] == [0, 0]
    script(project / ".venv" / "bin" / "ncjax", REAL)
    script(project.parent / "bin" / "nvidia-smi", "for i in range(2): print(f'GPU {i}: stand-in')\n")
    given = {name: value for name, value in os.environ.items() if name not in ("NPROC", "PATH", "HOME")}
    given |= {
        "PYTHONPATH": str(ROOT),
        "NCJAX_PORT": str(free_port()),
    }  # the rest as for the pair, which it has to equal
    given["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"
    launchers = [str(project / "launch" / name) for name in ("again.sh", "multi_gpu.sh")]
    line = ["bash", launchers[0], "bash", launchers[1], "--per-gpu", *map(str, run)]
    with subprocess.Popen(line, env=environment(project) | given, stderr=subprocess.PIPE, text=True) as running:
        while running.poll() is None and not list((tmp_path / "lost" / "checkpoints").glob("[2-9][0-9]")):
            time.sleep(0.01)
        os.kill(int((project.parent / "log" / "pid.1").read_text()), signal.SIGKILL)
        _, err = running.communicate(timeout=900)
    assert running.returncode == 0, err
    assert "the same command goes on in 0 s (1 of 100)" in err
    assert records(tmp_path / "lost") == records(tmp_path / "whole")
    for one, other in zip(state_of(tmp_path / "lost", 100), state_of(tmp_path / "whole", 100), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("script_name", "arguments", "said"),
    [
        ("again.sh", ("--tries", "many", "x"), "whole number"),
        ("again.sh", (), "needs a command"),
        ("multi_gpu.sh", ("--all", "run"), "unknown option --all"),
        ("multi_gpu.sh", ("run", "c.py"), "nvidia-smi lists no GPU"),
        ("slurm.sh", ("--nodes", "2"), "then -- and what ncjax is given"),
        ("slurm.sh", ("--", "run", "c.py"), "name --workdir"),
        pytest.param(
            *("slurm.sh", ("--nodes", "2", "--", "run", "c.py", "--workdir", "w"), "sbatch is missing"),
            marks=pytest.mark.skipif(bool(shutil.which("sbatch")), reason="Slurm is installed"),
        ),
        ("slurm.sh", ("--dry-run", "--", "run", "c.py", "--workdir", "w"), "name --gpus-per-node before --"),
        ("slurm.sh", ("--dry-run", "-N", "2-4", "--cpus", "--", "run", "--workdir", "w"), "is '2-4', but must be"),
        (
            "slurm.sh",
            ("--dry-run", "--gpus-per-node", "8", "--ntasks-per-node=3", "--", "run", "c.py", "--workdir", "w"),
            "8 GPUs of a node cannot be shared evenly by 3 processes",
        ),
        ("tpu_vm.sh", ("name", "v5litepod-8"), "needs NAME TYPE ZONE SHARED"),
        ("tpu_vm.sh", ("name", "v5litepod-8", "zone", "/disk", "run"), "gs://BUCKET or HOST:/PATH"),
        ("tpu_vm.sh", ("name", "v5litepod", "zone", "gs://b", "run"), "must end in a number"),
        ("tpu_vm.sh", ("A B", "v5litepod-8", "zone", "gs://b", "run"), "small letters"),
        ("tpu_vm.sh", ("name", "v5litepod-8", "zone", "gs://b", "run", "--workdir", "w"), "leave it out"),
    ],
)
def test_bad_use_is_one_clear_line(project: Path, script_name: str, arguments: tuple[str, ...], said: str) -> None:
    script(project.parent / "bin" / "nvidia-smi", "")
    done = launch(project, script_name, *arguments)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


TPU = ("coarse", "v5litepod-16", "us-west4-a", "gs://bucket", "run", "c.py", "--labels", "split:2 0")


def tpu(project: Path, states: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    script(project.parent / "bin" / "gcloud", GCLOUD)
    script(project.parent / "bin" / "git", STAND_IN)
    (project.parent / "log" / "states").write_text(states)
    done = launch(project, "tpu_vm.sh", *TPU, PAUSE="0", TMPDIR=str(project.parent), **variables)
    return done, [arguments[3] for arguments, _ in calls(project, "gcloud.") if arguments[3] != "describe"]


def test_a_preempted_tpu_is_replaced_and_the_same_run_goes_on(project: Path) -> None:
    states = "NONE WAITING_FOR_RESOURCES PROVISIONING ACTIVE SUSPENDING SUSPENDED ACTIVE ACTIVE"
    done, verbs = tpu(project, states, CODES="75 -9 0")
    assert done.returncode == 0, done.stderr
    attempt = ["scp", "ssh", "ssh"]
    assert verbs == ["create", *attempt, "delete", "create", *attempt, *attempt, "delete"]
    expected = ["run", "c.py", "--labels", "split:2 0", "--workdir", "../shared/coarse"]
    assert calls(project, "ncjax.") == [(expected, {"NCJAX_DISTRIBUTED": "auto", "NCJAX_DEVICES": "16"})] * 3
    created = [arguments for arguments, _ in calls(project, "gcloud.") if arguments[3] == "create"]
    assert created[0] == created[1]
    assert "--spot" in created[0]
    printed = lines(launch(project, "tpu_vm.sh", "--dry-run", *TPU))
    assert printed[1] == " ".join(["gcloud", *created[0]])


def test_bad_input_and_hopeless_runs_on_a_tpu_end(project: Path) -> None:
    done, verbs = tpu(project, "ACTIVE", CODES="2", SPOT="")
    assert done.returncode == 2
    assert verbs == ["scp", "ssh", "ssh"]
    assert "coarse is kept; delete it with: gcloud compute tpus queued-resources delete coarse" in done.stderr
    (project.parent / "log" / "gcloud.").unlink()
    done, verbs = tpu(project, "ACTIVE", CODES="1", TRIES="2")
    assert done.returncode == 1
    assert len(verbs) == 6
    assert "gave up after 2 tries" in done.stderr


@pytest.mark.parametrize(
    ("kind", "devices"), [("v5litepod-256", 256), ("v6e-8", 8), ("v4-32", 16), ("v5p-8", 4), ("v3-8", 8)]
)
def test_devices_of_a_tpu(project: Path, kind: str, devices: int) -> None:
    printed = lines(launch(project, "tpu_vm.sh", "--dry-run", "x", kind, "z", "10.0.0.2:/share", "run", "c.py"))
    assert f"NCJAX_DEVICES={devices} " in printed[4]
    assert "mount -t nfs 10.0.0.2:/share shared" in printed[3]
