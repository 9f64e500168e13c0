# SPDX-License-Identifier: Apache-2.0
"""Compiles training, k-means or the evaluator for a TPU slice, or for fake CPU devices: its memory and collectives.

    PYTHONPATH=LIBTPU python docs/scripts/tpu_plan.py train --topology v5e:16x16 --member 16 --data 16
    PYTHONPATH=LIBTPU python docs/scripts/tpu_plan.py kmeans --topology v5e:16x16 --points 1000000000
    PYTHONPATH=LIBTPU python docs/scripts/tpu_plan.py evaluate --topology v5e:2x2 --points 50000
    python docs/scripts/tpu_plan.py train --cpu 8 --data 8 --width 16

No device is needed. The first three want libtpu in a folder of its own, where no other command sees it:
`pip install --no-deps --target LIBTPU libtpu`.
"""

import argparse
import dataclasses
import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, cast
from unittest import mock

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
Collective = dict[str, str | int | None]
COLLECTIVES = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"


def main() -> None:
    """Parse, compile, print JSON."""
    options = _options()
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    if options.cpu:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={options.cpu}"
    import jax

    if options.cpu:
        devices = jax.devices()
    else:
        from jax.experimental import topologies

        devices = topologies.get_topology_desc(options.topology, "tpu").devices
    backend = "cpu" if options.cpu and options.cpu_convolutions else "tpu"
    with mock.patch("jax.default_backend", return_value=backend):  # convolutions are chosen by it
        started = time.perf_counter()
        compiled = {"train": _train, "kmeans": _kmeans, "evaluate": compile_evaluator}[options.what](options, devices)
    report = {
        "options": vars(options),
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "jax": jax.__version__,
        "compile_secs": round(time.perf_counter() - started, 1),
    }
    if options.what == "evaluate":
        report["programs"] = {name: _about(program) for name, program in compiled.items()}
    else:
        report |= _about(compiled)
    print(json.dumps(report, indent=1))


def _about(compiled: Any) -> dict[str, Any]:
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    names = ("argument", "output", "alias", "temp")
    return {
        "memory_of_a_device_mib": {n: round(getattr(memory, f"{n}_size_in_bytes") / 2**20, 1) for n in names},
        "cost_of_a_device": {name: cost.get(name) for name in ("flops", "bytes accessed")},
        "collectives": list(collectives(compiled.as_text())),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "kmeans", "evaluate"])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--topology", help="of a TPU slice, such as v5e:16x16")
    where.add_argument("--cpu", type=int, help="so many fake devices")
    parser.add_argument("--cpu-convolutions", action="store_true", help="on fake devices: as CPUs have them")
    parser.add_argument("--member", type=int, default=1, help="mesh axis of training")
    parser.add_argument("--data", type=int, default=1, help="mesh axis of training")
    parser.add_argument("--members", type=int, default=0, help="0: one for each device on the member axis")
    parser.add_argument("--width", type=int, default=64, help="of ResNet-18")
    parser.add_argument("--batch", type=int, default=128, help="global batch of a member")
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "tf32", "float32"])
    parser.add_argument("--lowering", default="", help="of the convolutions of several members; empty: the table's")
    parser.add_argument("--at-once", type=int, default=0, help="members of a device that a pass computes; 0: all")
    parser.add_argument("--points", type=int, default=10**6)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--k", type=int, default=10, help="clusters, or fine classes")
    parser.add_argument("--groups", type=int, default=5, help="super-classes of the evaluator")
    return parser.parse_args()


def _train(options: argparse.Namespace, devices: Any) -> Any:
    """The chunk of training steps, on shapes alone: ResNet-18 and the 50,000 + 10,000 images of CIFAR-10."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding

    from ncjax.configs.coarse_cifar10 import get_config
    from ncjax.distributed.mesh import REPLICATED
    from ncjax.distributed.sharding import member_sharding
    from ncjax.ops.member_conv import fits, record_cases
    from ncjax.ops.xla import compiler_options
    from ncjax.training.members import Ensemble, Images
    from ncjax.training.state import init_state, make_spec
    from ncjax.training.step import train_chunk

    replace, shape = dataclasses.replace, _shape
    config, s = get_config(), options.members or options.member
    config = replace(
        config,
        model=replace(config.model, width=options.width),
        optim=replace(config.optim, batch=options.batch, precision=options.precision),
    )
    grid = np.array(devices)[: options.member * options.data].reshape(options.member, options.data)
    mesh = Mesh(grid, ("member", "data"))
    spec = replace(make_spec(config, (32, 32, 3), 5, 50_000, mesh), at_once=options.at_once)
    numbers, rates = shape((s,), jnp.int32), shape((s,), jnp.float32)
    targets = [shape((s, n), jnp.int32) for n in (50_000, 10_000)]
    ensemble = Ensemble(numbers, rates, rates, shape((s, 5), bool), *targets)
    train, test = (shape((n, 32, 32, 3), jnp.uint8) for n in (50_000, 10_000))
    images = Images(train, test, shape((3,), jnp.float32), shape((3,), jnp.float32))
    state = jax.eval_shape(partial(init_state, spec), ensemble)
    everywhere = NamedSharding(mesh, REPLICATED)

    def lay(tree: Any, shardings: Any) -> Any:
        return jax.tree.map(lambda x, where: shape(x.shape, x.dtype, sharding=where), tree, shardings)

    arguments = (
        lay(state, member_sharding(state, mesh)),
        lay(images, jax.tree.map(lambda _: everywhere, images)),
        lay(ensemble, member_sharding(ensemble, mesh)),
        shape((), jnp.int32, sharding=everywhere),
    )
    with record_cases() as cases:
        jax.eval_shape(partial(train_chunk, spec), *arguments)
    fitting = {str(case): options.lowering for case in cases if fits(case, options.lowering)}
    spec = replace(spec, lowerings=tuple(sorted(fitting.items())))
    program = jax.jit(partial(train_chunk, spec), donate_argnums=0, compiler_options=compiler_options())
    return program.lower(*arguments).compile()


def _shape(*arguments: Any, **keywords: Any) -> Any:
    """A shape in place of an array."""
    import jax

    return jax.ShapeDtypeStruct(*arguments, **keywords)


def _kmeans(options: argparse.Namespace, devices: Any) -> Any:
    """`sharded_kmeans` on shapes alone; as many points as are a multiple of the devices."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    from ncjax.cluster import sharded
    from ncjax.cluster.in_memory import make_options

    mesh = Mesh(np.array(devices), ("data",))
    n = -(-options.points // len(devices)) * len(devices)
    run = sharded._compiled(mesh, P("data"), make_options(options.k, "k-means++", 10, 300, False, "data")[0])
    spread, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    key = jax.eval_shape(lambda: jax.random.key(0))
    return (
        cast(Any, run)
        .lower(
            jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere),
            jax.ShapeDtypeStruct((n, options.dims), jnp.float32, sharding=spread),
            jax.ShapeDtypeStruct((n,), jnp.float32, sharding=spread),
            None,
            jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere),
        )
        .compile()
    )


def compile_evaluator(options: argparse.Namespace, devices: Any) -> dict[str, Any]:
    """The programs that hold the features of one network, on shapes alone; there are a fifth as many test examples."""
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh

    from ncjax.collapse import reading
    from ncjax.distributed.mesh import ROWS
    from ncjax.evaluation import clusters, probes
    from ncjax.evaluation.views import VIEWS, Group
    from ncjax.ops.precision import double_precision

    mesh, d, classes = Mesh(np.array(devices), (ROWS,)), options.dims, options.k
    rows = partial(_rows, mesh)
    train, test = ((1, _multiple(n, mesh.size), d) for n in (options.points, options.points // 5))
    split = rows(train, 1), rows((1, 4, train[1]), 2, jnp.int32), rows(test, 1), rows(train[1:2], 0)
    each, size = ((options.groups, _multiple(n[1] / options.groups, mesh.size), d) for n in (train, test))
    group = Group(rows(each, 1), rows(each[:2], 1), rows(size, 1))
    length = mesh.size * max(1, reading.BLOCK_BYTES // (4 * d))
    block = reading.Block(rows((length, d), 0), rows((length,), 0, jnp.int32), rows((length,), 0))
    lowered = {
        "linear probes, four labellings": _jitted(probes._fit, "classes", "mesh").lower(*split, classes, mesh),
        "k-means in super-classes": _grouped_kmeans(mesh, group, classes // options.groups),
        "moments of a block": reading.block_moments.lower(block, None, None, classes),
    }
    found = {name: program.compile() for name, program in lowered.items()}
    with double_precision():
        for view in ("raw", "normalised", "residual_pca"):
            found[f"view {view}"] = _jitted(clusters._embed, "embed").lower(VIEWS[view].embed, group).compile()
    return found


def _rows(mesh: Any, shape: tuple[int, ...], axis: int, dtype: Any = "float32") -> Any:
    """A shape with one axis sharded over all devices."""
    from jax.sharding import NamedSharding, PartitionSpec

    return _shape(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*[None] * axis, "rows")))


def _multiple(count: float, devices: int) -> int:
    return math.ceil(count / devices) * devices


def _jitted(function: Any, *static: str) -> Any:
    """A function that ncjax compiles by the size of its arguments."""
    import jax

    return jax.jit(function.__wrapped__, static_argnames=static)


def _grouped_kmeans(mesh: Any, group: Any, k: int) -> Any:
    import jax
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from ncjax.cluster import sharded
    from ncjax.cluster.in_memory import make_options

    run = sharded._compiled(mesh, P(None, "rows"), make_options(k, "k-means++", 10, 300, False, "rows")[0])
    everywhere = NamedSharding(mesh, P())
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), group.train.shape[0]))
    key = _shape(keys.shape, keys.dtype, sharding=everywhere)
    return cast(Any, run).lower(key, group.train, group.weights, None, _shape((), "float32", sharding=everywhere))


def collectives(program: str) -> Iterator[Collective]:
    """The collectives of a compiled program, equal ones counted; what stands in a loop counts once."""
    found = re.findall(rf" = (.*?) ({COLLECTIVES})(?:-start)?\((.*)", program)
    count = Counter((name, group_size(rest), sizes(shapes)) for shapes, name, rest in found)
    for (name, devices, arrays), times in sorted(count.items(), key=lambda item: -item[1] * sum(item[0][2])):
        yield {"what": name, "devices": devices, "times": times, "arrays": len(arrays), "bytes": sum(arrays)}


def sizes(shapes: str) -> tuple[int, ...]:
    """Bytes of each array of a result, such as `(f32[4,64]{1,0}, bf16[3])`."""
    arrays = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shapes)
    return tuple(math.prod(map(int, filter(None, shape.split(",")))) * BYTES[kind] for kind, shape in arrays)


def group_size(text: str) -> int | None:
    """Devices that take part together, from `replica_groups` in one of the three ways that XLA writes it."""
    if named := re.search(r"replica_groups=mesh\[(.*?)\] ?\{(.*?)\}", text):
        extent = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(extent[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(counted[1])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", text)
    return len(listed[1].split(",")) if listed else None


if __name__ == "__main__":
    main()
