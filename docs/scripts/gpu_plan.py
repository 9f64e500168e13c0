# SPDX-License-Identifier: Apache-2.0
"""Compiles k-means for an H200 on a machine without a GPU: seconds of compilation, memory, kernels and products.

    pip install --no-deps --target CUDA jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 nvidia-cuda-nvcc-cu12
    PYTHONPATH=CUDA python docs/scripts/gpu_plan.py search --points 50000 --dims 512 --k 10 --restarts 10
    PYTHONPATH=CUDA python docs/scripts/gpu_plan.py lloyd --points 1000000 --dims 128 --k 1000

The versions have to be those of JAX here. What is measured at compilation on a GPU, such as the fastest of several
products, is not measured here.
"""

import argparse
import collections
import json
import os
import re
import resource
import time
from typing import Any
from unittest import mock

H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 150754820096 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 } runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H200"
"""
FREE = 2**30  # numbers in a chunk: a sixteenth of what is free on it, at most


def main() -> None:
    """Parse, compile, print JSON."""
    options = _options()
    os.environ |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    from ncjax.cluster import kernels, points

    with (
        mock.patch("jax.default_backend", return_value="gpu"),
        mock.patch.object(points, "chunk_numbers", return_value=FREE),
        mock.patch.object(kernels, "_are_right", return_value=True),  # which asks a GPU
        mock.patch("jax._src.xla_bridge.canonicalize_platform", return_value="cuda"),  # there is no backend of a GPU
    ):
        lowered = lower_kmeans(options)
        before, started = _cpu_secs(), time.perf_counter()
        compiled = lowered.compile(compiler_options={"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False})
        wall, cpu = time.perf_counter() - started, _cpu_secs() - before
    secs = {"compile_secs": round(wall, 1), "compile_cpu_secs": round(cpu, 1)}
    print(json.dumps({"options": vars(options)} | secs | about(compiled), indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["search", "lloyd"], help="by default, or steps from given centroids")
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=10)
    return parser.parse_args()


def lower_kmeans(options: argparse.Namespace) -> Any:
    """The program of `ncjax.kmeans` on shapes alone."""
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from ncjax.cluster.in_memory import make_options
    from ncjax.cluster.solver import solve

    devices = topologies.get_topology_desc(platform="cuda", target_config=H200, topology="1x1x1").devices
    where = NamedSharding(Mesh(np.array(devices[:1]), ("data",)), PartitionSpec())
    key = jax.eval_shape(lambda: jax.random.key(0))
    given = options.what == "lloyd"

    def shape(*size: int, dtype: Any = "float32") -> Any:
        return jax.ShapeDtypeStruct(size, dtype, sharding=where)

    fixed, _ = make_options(options.k, "k-means++", 1 if given else options.restarts, 25 if given else 300, False, None)
    start = shape(1, options.k, options.dims) if given else None
    program: Any = jax.jit(solve, static_argnames=("options",))
    inputs = shape(dtype=key.dtype), shape(options.points, options.dims), None, start, shape()
    return program.trace(*inputs, options=fixed).lower(lowering_platforms=("cuda",))


def about(compiled: Any) -> dict[str, Any]:
    """Temporary memory, and how many kernels of which kind a program has; those in a loop count once."""
    text = compiled.as_text()
    calls = collections.Counter(re.findall(r'custom_call_target="([^"]+)"', text))
    kinds = collections.Counter(re.findall(r" (fusion|sort|while|conditional|reduce-window)\(", text))
    return {
        "temp_mib": round(compiled.memory_analysis().temp_size_in_bytes / 2**20, 1),
        "instructions": dict(kinds),
        "calls": dict(calls),
    }


def _cpu_secs() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
