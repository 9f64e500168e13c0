# SPDX-License-Identifier: Apache-2.0
"""Time, communication and memory of a step on a TPU v5e slice, by formula; prints the tables of docs/scaling.md.

What it assumes stands in docs/scaling.md; docs/scripts/tpu_plan.py counts the same in compiled programs.
"""

from typing import NamedTuple

PEAK = 197e12  # bfloat16 operations a second and chip
HBM_RATE = 819e9  # bytes a second and chip
HBM = 16e9  # bytes a chip
LINK = 50e9  # bytes a second in one direction of one of four links: 400 GB/s a chip, all links, both directions
HOP = 1e-6  # seconds for a message to the neighbour: assumed
MATRIX_SHARE = 0.5  # of the peak that convolutions reach: assumed
CROSSINGS = 19  # times that an activation is read or written in a step: as the compiled program of 16 x 16 and 4 x 1
HIGHEST = 6  # passes in bfloat16 for a product in float32
LANES = 128  # columns of the matrix unit; fewer are padded


class Step(NamedTuple):
    """Seconds of the parts of a step; those of `memory` and `arithmetic` overlap."""

    arithmetic: float
    memory: float
    communication: float

    @property
    def total(self) -> float:
        return max(self.arithmetic, self.memory) + self.communication


def all_reduce(count: float, size: int, axes: int = 1) -> float:
    """Seconds for `count` bytes over a torus axis of `size` chips, a ring in both directions, or over two of them."""
    if size == 1:
        return 0.0
    moved = 2 * (size - 1) / size * count / (2 * LINK * axes)
    return moved + 2 * (size - 1) * HOP / 2 * axes


Layers = tuple[tuple[int, int, int, int], ...]  # of each convolution: kernel, inputs, outputs and rows of the output


def resnet18_layers(width: int) -> Layers:
    """ResNet-18 with the stem of CIFAR, for images of 32 x 32."""
    found = [(3, 3, width, 32)]
    for stage, rows in enumerate((32, 16, 8, 4)):
        inputs, outputs = width * 2 ** max(stage - 1, 0), width * 2**stage
        found += [(3, inputs, outputs, rows)] + [(3, outputs, outputs, rows)] * 3
        found += [(1, inputs, outputs, rows)] if stage else []
    return tuple(found)


def resnet50_layers(width: int) -> Layers:
    """ResNet-50 with the stem of ImageNet, for images of 224 x 224."""
    found, inputs = [(7, 3, width, 112)], width
    for stage, (blocks, rows) in enumerate(zip((3, 4, 6, 3), (56, 28, 14, 7), strict=True)):
        filters = width * 2**stage
        for block in range(blocks):
            before = rows * 2 if stage and not block else rows  # the 3x3 convolution carries the stride
            found += [(1, inputs, filters, before), (3, filters, filters, rows), (1, filters, 4 * filters, rows)]
            found += [] if block else [(1, inputs, 4 * filters, rows)]
            inputs = 4 * filters
    return tuple(found)


class Network(NamedTuple):
    """Numbers of a member."""

    layers: Layers
    classes: int

    def parameters(self) -> int:
        """Weights, scales and offsets."""
        convolutions = sum(k * k * i * o + 2 * o for k, i, o, _ in self.layers)
        return convolutions + (self.layers[-1][2] + 1) * self.classes

    def operations(self) -> float:
        """Forward and backward pass of one image."""
        return 3 * 2.0 * sum(k * k * i * o * rows**2 for k, i, o, rows in self.layers)

    def activations(self) -> int:
        """Outputs of convolutions, of one image."""
        return sum(o * rows**2 for _, _, o, rows in self.layers)

    def norm_bytes(self) -> int:
        """What BatchNorm adds up over the chips of a member in a step: two sums a channel, forward and backward."""
        return 2 * 2 * 4 * sum(o for _, _, o, _ in self.layers)


def resnet18(width: int = 64) -> Network:
    """Of the main experiment: CIFAR-10 in five super-classes."""
    return Network(resnet18_layers(width), 5)


def resnet50(width: int = 64) -> Network:
    """Of ImageNet."""
    return Network(resnet50_layers(width), 1000)


def training(member_chips: int, data_chips: int, members: int, batch: int = 128, width: int = 64) -> Step:
    """A step of `members` members of ResNet-18 in bfloat16 on a mesh of `member_chips` x `data_chips`."""
    net, share = resnet18(width), members / member_chips
    images = share * batch / data_chips
    read = CROSSINGS * 2 * net.activations() * images + share * net.parameters() * 4 * 6
    gradient = all_reduce(share * net.parameters() * 2, data_chips)
    norms = 2 * len(net.layers) * all_reduce(share * net.norm_bytes() / (2 * len(net.layers)), data_chips)
    return Step(net.operations() * images / PEAK / MATRIX_SHARE, read / HBM_RATE, gradient + norms)


def training_memory(
    member_chips: int, data_chips: int, members: int, batch: int = 128, width: int = 64
) -> dict[str, float]:
    """Bytes on a chip."""
    net, share = resnet18(width), members / member_chips
    return {
        "state": share * net.parameters() * 4 * 2,
        "images": 60_000 * 32 * 32 * 3,
        "labels and order": share * (60_000 + 2 * 50_000) * 4,
        "activations": 2 * 2 * net.activations() * share * batch / data_chips,
    }


def k_means_step(chips: int, n: float, d: int, k: int, restarts: int) -> Step:
    """One step of Lloyd's algorithm in float32, points spread over all chips of a square slice."""
    rows = n / chips
    centroids = restarts * k
    padded = LANES * -(-centroids // LANES)
    side = round(chips**0.5)
    arithmetic = 4 * rows * d * padded * HIGHEST / PEAK
    summed = all_reduce(4 * centroids * (d + 1) + 4 * restarts, side, 2)
    return Step(arithmetic, 4 * rows * d / HBM_RATE, summed)


def main() -> None:
    """Print the tables of docs/scaling.md."""
    net = resnet18()
    print(f"ResNet-18: {net.parameters():,} parameters, {net.operations() / 1e9:.2f} GFLOP an image and step,")
    print(
        f"{net.activations():,} activations, {len(net.layers)} normalisations, {net.norm_bytes():,} bytes of theirs\n"
    )
    print("| member x data | members | arithmetic, ms | memory, ms | communication, ms | step, ms | images/s | GB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for member, data, members in ((1, 1, 1), (256, 1, 256), (256, 1, 1024), (64, 4, 64), (16, 16, 16), (16, 16, 64)):
        step = training(member, data, members)
        memory = sum(training_memory(member, data, members).values()) / 1e9
        parts = " | ".join(f"{1e3 * part:.2f}" for part in (*step, step.total))
        print(f"| {member} x {data} | {members} | {parts} | {members * 128 / step.total:,.0f} | {memory:.2f} |")
    print("\n| k-means of 1e9 x 512, k = 10, 256 chips | arithmetic, ms | memory, ms | communication, ms | step, ms |")
    print("| --- | --- | --- | --- | --- |")
    for what, d, restarts in (
        ("all dimensions, 10 restarts", 512, 10),
        ("24 axes, 3 restarts", 24, 3),
        ("all, 1 restart", 512, 1),
    ):
        step = k_means_step(256, 1e9, d, 10, restarts)
        print(f"| {what} | " + " | ".join(f"{1e3 * part:.2f}" for part in (*step, step.total)) + " |")


if __name__ == "__main__":
    main()
