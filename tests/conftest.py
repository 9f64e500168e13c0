# SPDX-License-Identifier: Apache-2.0
"""Eight fake devices, no silent broadcasting of ranks, every jaxtyping annotation of ncjax checked at run time.

And a small run that trains in a second.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Two workers run side by side, and threads of OpenMP that have no core to themselves wait for each other for long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# On processors with AVX2 and no AVX-512, PyTorch 2.13 writes past the gradient of a convolution of four channels.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "SSE41")
# What one process compiles, the others find, those that tests start too; nobody finds what is of an earlier run.
if "PYTEST_XDIST_WORKER" not in os.environ:
    programs = tempfile.TemporaryDirectory(prefix="ncjax-programs-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs.name
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "true"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["NPROC"] = "9"  # threads of XLA, more than the fake devices: ncjax/distributed/threads.py says why
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # a question that emulated stores cannot answer
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # as ncjax/storage/caches.py says why

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook("ncjax", "beartype.beartype")

from ncjax.config import Config, DataConfig, MeshConfig, ModelConfig, OptimConfig  # noqa: E402
from tests.bars import bars  # noqa: E402

# Most of the time is compilation, and this halves it; programs run slower then.
QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def pytest_configure(config):
    """Slow tests, and versions of XLA that do not know the flags, compile as users do."""
    if "XLA_FLAGS" in os.environ or os.environ["JAX_PLATFORMS"] != "cpu" or config.option.markexpr == "slow":
        return
    quick = {**os.environ, "XLA_FLAGS": QUICK_COMPILATION}
    start = [sys.executable, "-c", "import jax; jax.devices()"]
    if subprocess.run(start, env=quick, capture_output=True, check=False).returncode == 0:
        os.environ.update(quick)


@pytest.fixture(scope="module", autouse=True)
def release_programs():
    """Compiled programs take memory maps, of which a process may have 65,530; LLVM crashes where it gets no more."""
    yield
    jax.clear_caches()


@pytest.fixture
def dataset():
    """See `tests.bars`."""
    return bars()


@pytest.fixture
def config():
    """Ten steps an epoch, with augmentation, three epochs."""
    return Config(
        data=DataConfig(crop_padding=1, flip=True),
        model=ModelConfig(name="cnn", width=4),
        optim=OptimConfig(lr=(0.05,), batch=16, epochs=3, schedule="cosine"),
        chunk_steps=4,
    )


@pytest.fixture
def with_mesh():
    """A config with another mesh."""
    return lambda config, member, data: dataclasses.replace(config, mesh=MeshConfig(member=member, data=data))
