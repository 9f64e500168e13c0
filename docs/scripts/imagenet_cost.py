# SPDX-License-Identifier: Apache-2.0
"""What ResNet-50 on ImageNet with 20 members costs on three machines, by formula; prints the tables of docs/scaling.md.

    python docs/scripts/imagenet_cost.py

What is measured it reads from docs/bench, or names; what is assumed stands in docs/scaling.md.
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
KEPT_OF_A_LAYER = 3  # outputs of a convolution, of its BatchNorm and of ReLU, until the backward pass: assumed
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
    decodes: int = 1  # of a picture: once in each row of the mesh that has hosts of its own

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


V5E_16 = Machine(
    "v5e-16", 1, 16, model.PEAK, model.HBM_RATE, model.HBM, 4 * model.LINK, (4, 4), model.HOP, price=1.2, cores=4 * 112
)
MACHINES = (
    V5E_16,
    V5E_16._replace(name="v5e-256", member=4, data=64, sides=(8, 8), cores=64 * 112, decodes=4),
    Machine("8 x H100", 4, 2, 989e12, 3.35e12, 80e9, 450e9, (2, 1), 10e-6, price=3.0, cores=192),
)


def all_reduce(machine: Machine, count: float) -> float:
    """Seconds for `count` bytes over the devices that share a batch: rings along both axes of their links."""
    moved = 2 * (machine.data - 1) / machine.data * count / machine.wire
    return moved + machine.hop * sum(side - 1 for side in machine.sides)


def step(machine: Machine) -> model.Step:
    """A step of one member."""
    net, images = model.resnet50(), machine.images
    read = model.CROSSINGS * 2 * net.activations() * images + net.parameters() * 4 * 6
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


def experiment_secs(machine: Machine) -> float:
    """All epochs of all members, with their tests and extractions."""
    steps = EPOCHS * (TRAIN // BATCH) * machine.in_turn
    return steps * step(machine).total * (1 + forward_share())


def decoded(machine: Machine) -> float:
    """Pictures a second that all hosts decode together."""
    images = BATCH * MEMBERS / (machine.in_turn * step(machine).total)
    return images * SEEDS / MEMBERS * machine.decodes


def per_core() -> float:
    """Pictures a second that one core decodes, measured."""
    found = json.loads((BENCH / "other" / "input_cores.json").read_text())
    return statistics.median(found["loaders"]["ncjax, threads"])


def memory(machine: Machine) -> tuple[float, float]:
    """GB of a device: the state of its members, and what the one that it works on keeps for the backward pass."""
    net = model.resnet50()
    state = machine.in_turn * net.parameters() * 4 * 2
    kept = KEPT_OF_A_LAYER * 2 * net.activations() * machine.images + 2 * 4 * net.parameters()
    return state / 1e9, kept / 1e9


def sent(machine: Machine) -> float:
    """GB that a device sends in a step of all its members: gradients in bfloat16, and sums of BatchNorm."""
    net = model.resnet50()
    each = 2 * (machine.data - 1) / machine.data * (2 * net.parameters() + net.norm_bytes())
    return machine.in_turn * each / 1e9


def main() -> None:
    """Print the tables of docs/scaling.md."""
    net, slower, rate = model.resnet50(), slower_than_the_model(), per_core()
    print(f"ResNet-50: {net.parameters():,} parameters, {net.operations() / 1e9:.1f} GFLOP an image and step,")
    print(
        f"{net.activations():,} activations, {len(net.layers)} normalisations, {net.norm_bytes():,} bytes of theirs\n"
    )
    times = "arithmetic, ms | memory, ms | communication, ms | step of a member, ms | of all, s"
    print(f"| machine | member x data | images a device | {times} | GB sent | state, GB | activations, GB |")
    print("| --- " * 11 + "|")
    for one in MACHINES:
        took = step(one)
        parts = " | ".join(f"{1e3 * part:.2f}" for part in (*took, took.total))
        sizes = " | ".join(f"{size:.2f}" for size in (one.in_turn * took.total, sent(one), *memory(one)))
        print(f"| {one.name} | {one.member} x {one.data} | {one.images} | {parts} | {sizes} |")
    print(
        "\n| machine | whole experiment, hours | dollars | pictures decoded a second | cores for them | cores there |"
    )
    print("| --- " * 6 + "|")
    for one in MACHINES:
        hours, pictures = experiment_secs(one) / 3600, decoded(one)
        dollars = hours * one.devices * one.price
        cores = f"{pictures / slower / rate:.0f} to {pictures / rate:.0f}"
        spans = f"{hours:.1f} to {slower * hours:.1f} | {dollars:,.0f} to {slower * dollars:,.0f}"
        print(f"| {one.name} | {spans} | {pictures / slower:,.0f} to {pictures:,.0f} | {cores} | {one.cores:,} |")
    alone = BATCH / max(step(MACHINES[2]._replace(member=1, data=1, sides=(1, 1)))[:2])
    print(f"\nOne H100 that trains one member takes {alone / slower:,.0f} to {alone:,.0f} images/s, which", end=" ")
    print(f"{alone / slower / rate:.0f} to {alone / rate:.0f} cores decode.")


if __name__ == "__main__":
    main()
