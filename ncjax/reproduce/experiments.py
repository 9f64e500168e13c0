# SPDX-License-Identifier: Apache-2.0
"""The experiments of docs/results.md, the most valuable first.

Minutes are estimates; those marked as measured follow from a rate that was measured (docs/performance.md, docs/logs).
On one GPU a piece is one member, so that a call that is cut off loses one; on two cores all seeds train at once.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from ncjax.config import Config, EvaluateConfig, MeshConfig, ModelConfig
from ncjax.configs.cifar10_two_cores import get_config as cifar10_two_cores
from ncjax.configs.coarse_cifar10 import get_config as coarse_cifar10
from ncjax.configs.coarse_fashion import get_config as coarse_fashion
from ncjax.configs.digits_demo import get_config as digits_demo
from ncjax.errors import UserError
from ncjax.reproduce.experiment import Experiment, Piece

SEEDS = 3
CIFAR10 = "CIFAR-10: cifar-10-batches-py or cifar-10-batches-bin"
FASHION = "Fashion-MNIST: its four IDX files"
IMAGES_PER_SEC = 334.0  # ResNet-18 of width 16, batch 128, two cores: docs/bench/other/train_resnet18_16_intel.json
NARROW_IMAGES_PER_SEC = 1870.0  # of width 8: the estimate is what docs/logs/fine_recipe_plain_cores took
GPU_MINUTES = 4.3  # 200 epochs of ResNet-18, batch 128, bfloat16: 47,200 images/s of an H200, and 45 s around it
SUBSET = 10_000  # training images, few enough for two cores to converge
TESTED = 10_000  # images of the test split
VALIDATION = 0.1  # of the training split: what recipes are chosen on
LABELS = ("mod:5", "fine")
PAIRINGS = ("adjacent:5", "random:5:0", "random:5:1", "random:5:2")


def changed(config: Config, **changes: Any) -> Config:
    """A config with other fields; those of a part are named `PART_FIELD`, such as `optim_epochs`."""
    for name, value in changes.items():
        part, _, field = name.partition("_")
        if part in ("data", "model", "optim", "loss", "mesh", "evaluate") and field:
            value = dataclasses.replace(getattr(config, part), **{field: value})
            name = part
        config = dataclasses.replace(config, **{name: value})
    return config


def all_experiments() -> dict[str, Experiment]:
    """All of them by name, the most valuable first."""
    return {one.name: one for one in _all()}


def find_experiments(names: Iterable[str]) -> tuple[Experiment, ...]:
    """The experiments of these names in order of value; `all`: all of them.

    Example:
        >>> [piece.name for piece in find_experiments(["coarse_cifar10"])[0].at("gpu")][:4]
        ['coarse_0', 'fine_0', 'coarse_1', 'fine_1']

    Raises:
        UserError: there is none of a name.
    """
    known, asked = all_experiments(), set(names)
    for name in sorted(asked - {*known, "all"}):
        raise UserError(f"unknown experiment {name!r}; known: {', '.join(known)}, all")
    return tuple(one for one in known.values() if one.name in asked or "all" in asked)


@cache
def _all() -> tuple[Experiment, ...]:
    return (_coarse(), _compare(), _fashion(), _recipe(), _architectures(), _grid(), _ablation(), _digits())


def _gpu(**changes: Any) -> Config:
    """ResNet-18 of full width for 200 epochs with the plain recipe, one member, in bfloat16."""
    config = changed(coarse_cifar10(), optim_precision="bfloat16", evaluate_epochs=(), checkpoint_minutes=2.0)
    return changed(config, **changes)


def _members(setting: str, config: Config, minutes: float | None) -> list[Piece]:
    """A piece for each seed and label map; the first one measures random initialisation and pixels too."""
    pieces: list[Piece] = []
    for seed in range(SEEDS):
        for labels in LABELS:
            kind, first = "fine" if labels == "fine" else "coarse", not pieces
            one = changed(config, labels=(labels,), seed=seed, evaluate_epochs=(0,) if first else ())
            name = "_".join(filter(None, (setting, kind, str(seed))))
            known = minutes is not None
            pieces.append(
                Piece(name=name, setting=setting, config=one, minutes=minutes, measured=known, controls=first)
            )
    return pieces


def _on_slice(setting: str, config: Config) -> Piece:
    """All members of a setting at once, over all devices."""
    config = changed(config, labels=LABELS, seeds=SEEDS, mesh=MeshConfig(member=0), evaluate_epochs=(0,))
    return Piece(name=setting or "all", setting=setting, config=config, controls=True)


def _coarse() -> Experiment:
    cosine = _gpu(optim_schedule="cosine")
    cores, subset = cifar10_two_cores(), changed(_subset(), evaluate_epochs=(0, 5))
    return Experiment(
        name="coarse_cifar10",
        question="Do five coarse labels leave the ten classes in the features, as well as ten labels do?",
        needs=CIFAR10,
        pieces={
            "cores": (
                Piece(
                    name="subset",
                    setting="subset",
                    config=subset,
                    minutes=_cores_minutes(subset),
                    measured=True,
                    controls=True,
                ),
                Piece(name="all", config=cores, minutes=_cores_minutes(cores), measured=True, controls=True),
            ),
            "gpu": (*_members("", _gpu(), GPU_MINUTES), *_members("cosine", cosine, GPU_MINUTES)),
            "slice": (_on_slice("", _gpu()), _on_slice("cosine", cosine)),
        },
    )


def _subset() -> Config:
    """So few pictures, without augmentation, that two cores reach the end of fitting them."""
    small = changed(cifar10_two_cores(), data_train_examples=SUBSET, data_crop_padding=0, data_flip=False)
    return changed(small, optim_epochs=15)


def _cores_minutes(config: Config, images: int = 50_000, rate: float = IMAGES_PER_SEC) -> float:
    """Training at the rate measured, the test of each epoch at three times that, and a quarter for all else.

    That quarter is from `coarse_cifar10`, whose piece `all` took 142 minutes.
    """
    count = config.data.train_examples or images * (1 - config.data.validation_fraction)
    count += (images * config.data.validation_fraction or TESTED) / 3
    members = len(config.labels) * config.seeds
    return round(1.25 * members * count * config.optim.epochs / rate / 60, 1)


def _compare() -> Experiment:
    config = changed(cifar10_two_cores(), name="compare_cifar10", labels=("mod:5",), optim_epochs=20)
    config = changed(config, evaluate=EvaluateConfig(epochs=(), observe_epochs=0))
    subset = changed(config, data_train_examples=SUBSET)
    return Experiment(
        name="compare_cifar10",
        question="Does PyTorch find the same, from the same weights on the same batches?",
        needs=CIFAR10,
        pieces={
            "cores": (
                Piece(name="subset", setting="subset", config=subset, minutes=80.0, controls=True, compare=True),
                Piece(name="all", config=config, minutes=300.0, controls=True, compare=True),
            )
        },
    )


def _fashion() -> Experiment:
    base = changed(coarse_fashion(), labels=LABELS, seeds=SEEDS, evaluate=EvaluateConfig(epochs=(0,)))
    networks = {  # epochs, and images/s by which the estimate is what docs/logs/fashion_*_cores took
        "resnet18": (ModelConfig(name="resnet18", width=8), 8, 1130.0),
        "cnn": (ModelConfig(name="cnn", width=16), 15, 4500.0),
        "vgg11": (ModelConfig(name="vgg11", width=8), 12, 2750.0),
    }
    pieces: list[Piece] = []
    for name, (model, epochs, rate) in networks.items():
        config = changed(base, model=model, optim_epochs=epochs)
        minutes = _cores_minutes(config, images=60_000, rate=rate)
        pieces.append(
            Piece(name=name, setting=name, config=config, minutes=minutes, measured=True, controls=name == "resnet18")
        )
    return Experiment(
        name="fashion",
        question="And on another data set, with three architectures?",
        needs=FASHION,
        pieces={"cores": tuple(pieces)},
    )


def recipes(plain: Config) -> dict[str, Config]:
    """The plain recipe on fine labels, and what differs from it in one ingredient; tested on the validation split."""
    plain = changed(plain, labels=("fine",), data_validation_fraction=VALIDATION, evaluate_epochs=())
    rate = plain.optim.lr[0]
    return {
        "plain": plain,
        "cosine": changed(plain, optim_schedule="cosine"),
        "one_cycle": changed(plain, optim_schedule="one_cycle", optim_lr=(2 * rate,)),
        "batch_512": changed(plain, optim_batch=512, optim_lr=(2 * rate,)),
        "decay_1e-3": changed(plain, optim_weight_decay=(1e-3,)),
        "decay_2e-4": changed(plain, optim_weight_decay=(2e-4,)),
        "smoothing": changed(plain, loss_label_smoothing=0.1),
        "no_flip": changed(plain, data_flip=False),
        "no_crop": changed(plain, data_crop_padding=0),
        "crop_2": changed(plain, data_crop_padding=2),
        "reflect": changed(plain, data_crop_padding=0, data_augment="reflect_crop"),
        "float32": changed(plain, optim_precision="float32"),
    }


def _recipe() -> Experiment:
    small = changed(cifar10_two_cores(), evaluate=EvaluateConfig(epochs=(), observe_epochs=0), model_width=8)
    small = changed(small, optim_schedule="step", optim_lr=(0.1,), optim_epochs=10, data_train_examples=SUBSET)
    fine = changed(small, labels=("fine",), data_validation_fraction=VALIDATION)
    minutes = _cores_minutes(fine, rate=NARROW_IMAGES_PER_SEC)
    return Experiment(
        name="fine_recipe",
        question="What of the recipe lacks the fine-label network? On the validation split alone.",
        needs=CIFAR10,
        pieces={
            "cores": tuple(
                Piece(name=name, setting=name, config=config, minutes=minutes, measured=True)
                for name, config in recipes(small).items()
                if name != "float32"  # which all of them are on two cores
            ),
            "gpu": tuple(
                Piece(
                    name=name,
                    setting=name,
                    config=config,
                    minutes=2 * GPU_MINUTES if name == "float32" else GPU_MINUTES,
                    measured=config.optim.batch == 128 and name != "float32",
                )
                for name, config in recipes(_gpu()).items()
            ),
        },
    )


def _architectures() -> Experiment:
    densenet = _gpu(model=ModelConfig(name="densenet", width=32))
    vgg = _gpu(model=ModelConfig(name="vgg16", width=64))
    return Experiment(
        name="architectures",
        question="The same with DenseNet-121 and VGG-16?",
        needs=CIFAR10,
        pieces={
            "gpu": (*_members("densenet121", densenet, None), *_members("vgg16", vgg, None)),
            "slice": (_on_slice("densenet121", densenet), _on_slice("vgg16", vgg)),
        },
    )


def _grid() -> Experiment:
    """On two cores beside the setting `subset` of `coarse_cifar10`, with the steps of the plain recipe."""
    rates, decays = (1e-1, 1e-2, 1e-3), (5e-3, 5e-4, 5e-5)
    cores = changed(_subset(), labels=("mod:5",), seeds=1, optim_schedule="step", evaluate_epochs=())
    slices = _gpu(optim_lr=rates, optim_weight_decay=decays, seeds=SEEDS, mesh=MeshConfig(member=0))

    def cells(config: Config, minutes: float) -> tuple[Piece, ...]:
        return tuple(
            Piece(
                name=f"lr_{rate:g}_wd_{decay:g}",
                config=changed(config, optim_lr=(rate,), optim_weight_decay=(decay,)),
                minutes=minutes,
                measured=True,
            )
            for rate in rates
            for decay in decays
        )

    return Experiment(
        name="grid",
        question="Over which learning rates and weight decays does it hold?",
        needs=CIFAR10,
        pieces={
            "cores": cells(cores, _cores_minutes(cores)),
            "gpu": cells(_gpu(), GPU_MINUTES),
            "slice": (Piece(name="all", config=slices),),
        },
    )


def _ablation() -> Experiment:
    """What may keep CLP from the fine-label network; the view is compared in every table.

    On two cores beside the setting `subset` of `coarse_cifar10`, which has no augmentation, on a GPU beside its first.
    """
    gpu, cores = (changed(one, labels=("mod:5",), evaluate_epochs=()) for one in (_gpu(), _subset()))
    reflect = {"data_crop_padding": 0, "data_augment": "reflect_crop", "data_flip": True}
    of_gpu = {
        "half_as_long": changed(gpu, optim_epochs=gpu.optim.epochs // 2),
        "no_augmentation": changed(gpu, data_crop_padding=0, data_flip=False),
        "no_crop": changed(gpu, data_crop_padding=0),
        "reflect": changed(gpu, **reflect),
    }
    of_cores = {
        "half_as_long": changed(cores, optim_epochs=cores.optim.epochs // 2),
        "crop_flip": changed(cores, data_crop_padding=4, data_flip=True),
        "reflect_flip": changed(cores, **reflect),
    }
    a_gpu_epoch = GPU_MINUTES / gpu.optim.epochs
    return Experiment(
        name="ablation",
        question="If the clusters miss the fine-label network: pairing, convergence, augmentation, borders?",
        needs=CIFAR10,
        pieces={
            "cores": (
                *(_pairing(labels, changed(cores, seeds=1), _cores_minutes) for labels in PAIRINGS),
                *_beside_fine(of_cores, _cores_minutes, measured=True),
            ),
            "gpu": (
                *(_pairing(labels, gpu, lambda config: GPU_MINUTES) for labels in PAIRINGS),
                *_beside_fine(of_gpu, lambda config: round(a_gpu_epoch * config.optim.epochs, 1), measured=False),
            ),
        },
    )


def _beside_fine(
    settings: Mapping[str, Config], minutes: Callable[[Config], float], *, measured: bool
) -> Iterator[Piece]:
    """Members on coarse labels of each setting, then those on fine labels."""
    for end, labels in (("", "mod:5"), ("_fine", "fine")):
        for name, config in settings.items():
            own = changed(config, labels=(labels,))
            yield Piece(name=name + end, setting=name, config=own, minutes=minutes(own), measured=measured)


def _pairing(labels: str, config: Config, minutes: Callable[[Config], float]) -> Piece:
    """One member on other pairs of classes, with random initialisation and pixels for the same pairs."""
    config = changed(config, labels=(labels,), evaluate_epochs=(0,))
    name = "pairing_" + labels.replace(":", "_")
    return Piece(name=name, setting="pairing", config=config, minutes=minutes(config), measured=True, controls=True)


def _digits() -> Experiment:
    config = changed(digits_demo(), seeds=SEEDS)
    return Experiment(
        name="digits",
        question="Does the way from images to tables work? Digits, which need no files.",
        needs="",
        pieces={"cores": (Piece(name="all", config=config, minutes=2.0, controls=True),)},
    )
