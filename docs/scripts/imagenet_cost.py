# SPDX-License-Identifier: Apache-2.0
"""What ResNet-50 on ImageNet with 20 members costs on three machines, by formula; prints the tables of docs/scaling.md.

    python docs/scripts/imagenet_cost.py

What it takes from measurements and from compiled programs it reads from docs/bench; what is assumed stands in
docs/scaling.md.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
import scaling_model as model

BENCH = Path(__file__).parents[1] / "bench"
TRAIN, TEST, EPOCHS, BATCH = 1_281_167, 50_000, 90, 1024
MEMBERS, SEEDS = 20, 5  # four label maps; members of one seed share the pictures that are decoded
KEPT = 4  # epochs whose features are kept, of all images
H200 = 0.00641, 512, 989e12, 4.8e12  # seconds of a step of ResNet-18 there (measured), its batch; peak and HBM rate


class Machine(NamedTuple):
    """Devices of one kind, laid out as `member` x `data`."""

    name: str
    member: int
    data: int
    peak: float  # bfloat16 operations a second and device
    hbm_rate: float  # bytes a second and device
    hbm: float  # bytes of a device
    wire: float  # bytes a second that an all-reduce sends from a device
    sides: tuple[int, int]  # devices along each axis of the links that the all-reduce goes over
    hop: float  # seconds of a message to the neighbour
    price: float  # dollars a device and hour
    cores: int  # of all hosts together

    @property
    def devices(self) -> int:
        return self.member * self.data

    @property
    def in_turn(self) -> int:
        """Members of a device, which it takes one after the other."""
        return MEMBERS // self.member

    @property
    def images(self) -> int:
        """Of one member's batch, on a device."""
        return BATCH // self.data


TPU = {"peak": model.PEAK, "hbm_rate": model.HBM_RATE, "hbm": model.HBM, "wire": 4 * model.LINK, "hop": model.HOP}
MACHINES = (
    Machine("v5e-16", 1, 16, sides=(4, 4), price=1.2, cores=4 * 112, **TPU),
    Machine("v5e-256", 4, 64, sides=(8, 8), price=1.2, cores=64 * 112, **TPU),
    Machine("8 x H100", 4, 2, 989e12, 3.35e12, 80e9, 450e9, (2, 1), 10e-6, 3.0, 192),
)


def all_reduce(machine: Machine, count: float) -> float:
    """Seconds for `count` bytes over the devices that share a batch: rings along both axes of their links."""
    moved = 2 * (machine.data - 1) / machine.data * count / machine.wire
    return moved + machine.hop * sum(side - 1 for side in machine.sides)


def step(machine: Machine, crossings: float) -> model.Step:
    """A step of one member."""
    net, images = model.resnet50(), machine.images
    read = crossings * 2 * net.activations() * images + net.parameters() * 4 * 6
    sums = 2 * len(net.layers)
    norms = sums * all_reduce(machine, net.norm_bytes() / sums)
    arithmetic = net.operations() * images / machine.peak / model.MATRIX_SHARE
    return model.Step(arithmetic, read / machine.hbm_rate, all_reduce(machine, 2 * net.parameters()) + norms)


def slower_than_the_model() -> float:
    """The one step of an accelerator that was measured, over what the same formulas say of it."""
    secs, batch, peak, hbm_rate = H200
    net = model.resnet18()
    arithmetic = net.operations() * batch / peak / model.MATRIX_SHARE
    return secs / max(arithmetic, model.CROSSINGS * 2 * net.activations() * batch / hbm_rate)


def forward_share() -> float:
    """What evaluation adds to training: a third of the work for each image of a test or of an extraction."""
    seen = EPOCHS * TEST + KEPT * (TRAIN + TEST)
    return seen / 3 / (EPOCHS * TRAIN)


def experiment_secs(machine: Machine, crossings: float) -> float:
    """All epochs of all members, with their tests and extractions."""
    steps = EPOCHS * (TRAIN // BATCH) * machine.in_turn
    return steps * step(machine, crossings).total * (1 + forward_share())


def decoded(machine: Machine, crossings: float) -> float:
    """Pictures a second that all hosts decode together."""
    images = BATCH * MEMBERS / (machine.in_turn * step(machine, crossings).total)
    return images * SEEDS / MEMBERS


def compiled() -> tuple[float, float, float]:
    """Of the program for v5e-16: crossings of an activation, GB of temporary memory, bytes that are all-reduced."""
    found = json.loads((BENCH / "scaling" / "train_imagenet_v5e_4x4.json").read_text())
    net, images = model.resnet50(), MACHINES[0].images
    accessed = found["cost_of_a_device"]["bytes accessed"] - net.parameters() * 4 * 6
    sent = sum(one["times"] * one["bytes"] for one in found["collectives"] if one["what"] == "all-reduce")
    temporary = found["memory_of_a_device_mib"]["temp"] * 2**20 / 1e9
    return accessed / (2 * net.activations() * images), temporary, sent


def per_core() -> float:
    """Pictures a second that one core decodes, measured."""
    found = json.loads((BENCH / "other" / "input_cores.json").read_text())
    return statistics.median(found["loaders"]["ncjax, threads"])


def main() -> None:
    """Print the tables of docs/scaling.md."""
    net, (crossings, temporary, sent), slower, rate = model.resnet50(), compiled(), slower_than_the_model(), per_core()
    print(f"ResNet-50: {net.parameters():,} parameters, {net.operations() / 1e9:.1f} GFLOP an image and step,")
    print(f"{net.activations():,} activations, {len(net.layers)} normalisations; compiled for v5e-16, an activation")
    print(f"crosses between chip and HBM {crossings:.1f} times a step, and a step all-reduces {sent / 1e6:.1f} MB\n")
    names = "arithmetic, ms | memory, ms | communication, ms | member-step, ms | images/s | state, GB | temporary, GB"
    print(f"| machine | member x data | images a device | {names} |")
    print("| --- " * 10 + "|")
    for one in MACHINES:
        took = step(one, crossings)
        parts = " | ".join(f"{1e3 * part:.2f}" for part in (*took, took.total))
        images = one.member * BATCH / took.total
        state = one.in_turn * net.parameters() * 8 / 1e9
        scaled = temporary * one.images / MACHINES[0].images
        layout = f"{one.member} x {one.data} | {one.images}"
        print(f"| {one.name} | {layout} | {parts} | {images:,.0f} | {state:.2f} | {scaled:.2f} |")
    print("\n| machine | the whole experiment, hours | dollars | pictures decoded a second | cores | there |")
    print("| --- " * 6 + "|")
    for one in MACHINES:
        hours, pictures = experiment_secs(one, crossings) / 3600, decoded(one, crossings)
        dollars = hours * one.devices * one.price
        cores = f"{pictures / slower / rate:.0f} to {pictures / rate:.0f}"
        spans = f"{hours:.1f} to {slower * hours:.1f} | {dollars:,.0f} to {slower * dollars:,.0f}"
        print(f"| {one.name} | {spans} | {pictures / slower:,.0f} to {pictures:,.0f} | {cores} | {one.cores} |")
    alone = 1 / max(net.operations() / 989e12 / model.MATRIX_SHARE, crossings * 2 * net.activations() / 3.35e12)
    print(f"\nOne H100 that trains one member takes {alone / slower:,.0f} to {alone:,.0f} images/s:", end=" ")
    print(f"{alone / slower / rate:.0f} to {alone / rate:.0f} cores.")


if __name__ == "__main__":
    main()
