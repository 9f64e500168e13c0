# SPDX-License-Identifier: Apache-2.0
"""Images per second and core of loaders that give random-resized crops of an image folder: by processor time.

    python docs/scripts/made_pictures.py FOLDER
    python docs/scripts/input_cores.py FOLDER/folder --output docs/bench/other/input_cores.json

Each loader runs in a process of its own, with its workers; images of a window over the processor time of all of them in
that window is what one core would give. So it can be measured beside other work, which an elapsed time cannot.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH, WARM, WINDOWS, BATCHES = 32, 5, 5, 12  # batches before the first window, windows, batches of each
LOADERS = ("ncjax, threads", "ncjax, 2 workers", "PyTorch DataLoader, 2 workers", "tf.data")


def main() -> None:
    """Each loader in a process of its own, then one table."""
    options = _options()
    if options.loader:
        print(json.dumps(_windows(options)))
        return
    found = {}
    for loader in LOADERS:
        command = [sys.executable, __file__, os.fspath(options.folder), "--size", str(options.size), "--loader", loader]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = (done.stderr.strip().splitlines() or ["?"])[-1]
        found[loader] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else said
    report = {"processor": _processor(), "batch": BATCH, "images_per_window": BATCH * BATCHES, "loaders": found}
    if options.output:
        options.output.write_text(json.dumps(report | {"command": " ".join(sys.argv[1:])}, indent=1) + "\n")
    for loader, rates in found.items():
        if isinstance(rates, str):
            print(f"| {loader} | {rates} |")
        else:
            print(f"| {loader} | {statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f}) |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224, help="of the crops, in pixels")
    parser.add_argument("--loader", choices=LOADERS, help="of this process alone")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def _processor() -> str:
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return next(
        (line.partition(": ")[2] for line in told.splitlines() if line.startswith("model name")), platform.machine()
    )


def _windows(options: argparse.Namespace) -> list[float]:
    """Images per second of processor time, of each window."""
    batches, rates = _batches(options), []
    for _ in range(WARM):
        next(batches)
    for _ in range(WINDOWS):
        before = processor_secs()
        for _ in range(BATCHES):
            next(batches)
        rates.append(BATCH * BATCHES / (processor_secs() - before))
    return [round(rate, 1) for rate in rates]


def processor_secs() -> float:
    """Of this process and of those that it started and that run."""
    return time.process_time() + sum(map(_secs_of, _descendants(os.getpid())))


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from _descendants(child)


def _secs_of(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _batches(options: argparse.Namespace) -> Iterator[Any]:
    from ncjax.bench.loaders import tf_batches, torch_batches
    from ncjax.config import Config, DataConfig, OptimConfig

    workers = 2 if options.loader == "ncjax, 2 workers" else 0
    data = DataConfig(
        source="image_folder",
        path=os.fspath(options.folder),
        test_split="val",
        streamed=True,
        image_size=options.size,
        resize=options.size * 8 // 7,
        crop_scale=0.08,
        workers=workers,
    )
    config = Config(data=data, optim=OptimConfig(batch=BATCH), chunk_steps=2)
    if options.loader.startswith("ncjax"):
        return _ours(config)
    return torch_batches(config) if options.loader.startswith("PyTorch") else tf_batches(config)


def _ours(config: Any) -> Iterator[Any]:
    """The steps of the feed, on the device."""
    import numpy as np

    from ncjax.data import load_dataset
    from ncjax.distributed.mesh import make_mesh
    from ncjax.training.streaming import chunks, make_feed

    images = load_dataset(config.data).train.images
    mesh, seeds = make_mesh(config.mesh, BATCH), np.zeros(1, np.int32)
    sizes = {"batch": BATCH, "chunk_steps": config.chunk_steps, "workers": config.data.workers}
    for number, chunk in enumerate(chunks(make_feed(images, seeds, mesh, **sizes), 0, 10**6)):
        per_epoch = images.shape[0] // BATCH
        for _ in range(min(config.chunk_steps, per_epoch - number * config.chunk_steps % per_epoch)):
            yield chunk.pixels


if __name__ == "__main__":
    main()
