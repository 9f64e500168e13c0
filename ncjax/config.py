# SPDX-License-Identifier: Apache-2.0
"""What an experiment is, as frozen dataclasses: the only place where defaults live.

The string under a field is its help text on the command line; units stand in brackets.
"""

import dataclasses
import importlib.util
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ncjax.errors import UserError

C = TypeVar("C")
Variant = Literal["raw", "normalised", "residual_pca", "tsne"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images come from and how a training image is augmented."""

    source: Literal["digits", "image_folder", "cifar10", "cifar100", "idx", "npz", "tfds"] = "digits"
    """Kind of data set [one of the listed names]."""
    path: str = ""
    """Folder or file of the source; for tfds its data_dir [path; empty: none needed, or the default of tfds]."""
    tfds_name: str = ""
    """Name of the TFDS data set, such as cifar10 or fashion_mnist:3.0.1 [name; only with source tfds]."""
    streamed: bool = False
    """Read images while training, for sets larger than memory; needs the extra stream [yes or no]."""
    cache_dir: str = ""
    """Where decoded arrays are kept [path; empty: ncjax/ in the user's cache folder]."""
    train_examples: int = 0
    """Size of a fixed random subset of the training split [images; 0: all]."""
    test_examples: int = 0
    """Size of a fixed random subset of the test split [images; 0: all]."""
    crop_padding: int = 0
    """Zero padding before a random crop of the original size [pixels a side; 0: no crop]."""
    flip: bool = False
    """Mirror each training image with probability one half [yes or no]."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: its features are the input of the final linear layer."""

    name: Literal["resnet18", "resnet34", "resnet50", "vgg11", "vgg16", "densenet", "cnn", "mlp"] = "resnet18"
    """Architecture, with the CIFAR stem [vgg with BatchNorm; cnn: three 3x3 convolutions, mlp: two hidden layers]."""
    width: int = 64
    """Channels of the first stage, growth rate of densenet, hidden units of mlp [channels or units]."""
    dense_blocks: tuple[int, ...] = (6, 12, 24, 16)
    """Layers of each block of densenet; the default with width 32 is DenseNet-121 [layers; one or more blocks]."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """SGD with momentum and coupled weight decay; several rates or decays make several members."""

    lr: tuple[float, ...] = (0.1,)
    """Peak learning rates; each makes members of its own [loss units; one or more]."""
    weight_decay: tuple[float, ...] = (5e-4,)
    """Coefficients added to the gradient as wd * weight; each makes members of its own [1; one or more]."""
    momentum: float = 0.9
    """Momentum of SGD [0 to below 1]."""
    nesterov: bool = True
    """Nesterov's momentum [yes or no]."""
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "step"
    """Learning rate over time [constant; step: x0.1 at 1/3 and 2/3; cosine to 0; one_cycle: up for 30 %, down to 0]."""
    batch: int = 128
    """Global batch of one member [images]."""
    epochs: int = 200
    """Length of training [passes over the training split]."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the forward and backward pass; the state is always float32 [type]."""


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The devices of a run: members are spread over one axis, each member's batch over the other."""

    member: int = 1
    """Devices along the member axis; copies that are dropped fill up its last row [devices; 0: all that are left]."""
    data: int = 1
    """Devices along the data axis; divides the batch [devices; 0: all that are left]."""
    shard_params: bool = False
    """Spread parameters and optimiser over the data axis too, for networks that fill a device [yes or no]."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured on the features."""

    epochs: tuple[int, ...] = (0,)
    """Epochs whose features are kept, besides the last; 0 is the network at random initialisation [epochs]."""
    variants: tuple[Variant, ...] = ("raw", "normalised", "residual_pca")
    """What k-means sees, inside each super-class [one or more of raw, normalised, residual_pca, tsne]."""
    labels: str = "mod:5"
    """Label map whose super-classes serve what has none: fine, split, shuffled, pixels [one that merges classes]."""
    restarts: int = 10
    """Restarts of k-means; the best inertia wins [restarts]."""
    observe_epochs: int = 10
    """Time between looks at collapse during training: NC1, CDNV and NC2 in metrics.jsonl [epochs; 0: never]."""
    observe_images: int = 1024
    """Training images, evenly spaced, that such a look takes in [images]."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: an ensemble of members = labels x learning rates x weight decays x seeds."""

    name: str = "run"
    """Name of the run; the default work directory is runs/NAME [text]."""
    labels: tuple[str, ...] = ("mod:5",)
    """Label maps, each makes members of its own [fine, mod:C, adjacent:C, semantic, random:C:SEED, pairings, file:PATH,
    split:PARTS:SEED, shuffled:MAP:SEED]."""
    seeds: int = 1
    """Seeds per label map and hyper-parameter setting: 0, 1, ... [members]."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    chunk_steps: int = 50
    """Steps between two looks of the host at the run: one compiled program [steps]."""
    checkpoint_minutes: float = 5.0
    """Time between checkpoints to go on from; the two newest are kept [minutes; 0: none but at the end]."""
    checkpoint_epochs: int = 0
    """Epochs between checkpoints for analysis; all are kept [epochs; 0: none but the last]."""
    tensorboard: bool = False
    """Write TensorBoard events beside metrics.jsonl; needs the extra tensorboard [yes or no]."""


def load_config(path: Path) -> Config:
    """Call `get_config()` of a Python file.

    Raises:
        UserError: the file is missing, cannot be run, or does not return a `Config`.
    """
    return load_config_of(Config, path)


def load_config_of(kind: type[C], path: Path) -> C:
    """`load_config` for a file that returns another kind of config.

    Raises:
        UserError: as `load_config`.
    """
    if not path.is_file():
        raise UserError(f"no config file at {path}; give a Python file that defines get_config(), such as configs/*.py")
    spec = importlib.util.spec_from_file_location("ncjax_config_file", path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except (Exception, SystemExit) as error:
        raise UserError(f"config file {path} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, kind):
        wanted = f"{kind.__module__}.{kind.__name__}"
        raise UserError(f"config file {path}: get_config() returns {type(config).__name__}, not {wanted}")
    try:
        return from_dict_of(kind, to_dict(config))
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"config file {path}: {error}") from error


def check_config(config: Config) -> None:
    """Refuse values that no data set could make possible.

    Raises:
        UserError: naming the field, its value and what it may be.
    """
    at_least_one = {
        "seeds": (config.seeds, 100_000),
        "chunk_steps": (config.chunk_steps, 1_000_000),
        "model.width": (config.model.width, 100_000),
        "optim.batch": (config.optim.batch, 2**31 - 1),
        "optim.epochs": (config.optim.epochs, 1_000_000),
        "evaluate.restarts": (config.evaluate.restarts, 100_000),
        "evaluate.observe_images": (config.evaluate.observe_images, 2**31 - 1),
    }
    for name, (value, most) in at_least_one.items():
        _require(1 <= value <= most, name, value, f"from 1 to {most}")
    for name, numbers in {"optim.lr": config.optim.lr, "optim.weight_decay": config.optim.weight_decay}.items():
        _require(len(numbers) > 0 and all(0 <= x < float("inf") for x in numbers), name, numbers, "0 or more, finite")
    _require(0 <= config.optim.momentum < 1, "optim.momentum", config.optim.momentum, "from 0 to below 1")
    blocks = config.model.dense_blocks
    _require(len(blocks) > 0 and min(blocks) >= 1, "model.dense_blocks", blocks, "one or more numbers of 1 or more")
    _require(len(config.labels) > 0, "labels", config.labels, "at least one label map")
    _require(len(config.evaluate.variants) > 0, "evaluate.variants", (), "at least one variant")
    _require(0 <= config.data.crop_padding <= 128, "data.crop_padding", config.data.crop_padding, "from 0 to 128")
    _require(
        config.evaluate.observe_epochs >= 0, "evaluate.observe_epochs", config.evaluate.observe_epochs, "0 or more"
    )
    epochs = config.evaluate.epochs
    _require(all(0 <= e <= config.optim.epochs for e in epochs), "evaluate.epochs", epochs, "from 0 to optim.epochs")
    _require(config.checkpoint_epochs >= 0, "checkpoint_epochs", config.checkpoint_epochs, "0 or more")
    minutes = config.checkpoint_minutes
    _require(0 <= minutes < float("inf"), "checkpoint_minutes", minutes, "0 or more, finite")
    mesh = config.mesh
    _require(mesh.member >= 0, "mesh.member", mesh.member, "0 or more")
    _require(mesh.data >= 0, "mesh.data", mesh.data, "0 or more")
    _require(mesh.member + mesh.data > 0, "mesh.data", mesh.data, "1 or more where mesh.member is 0")
    divides = mesh.data == 0 or config.optim.batch % mesh.data == 0
    _require(divides, "mesh.data", mesh.data, f"a divisor of optim.batch = {config.optim.batch}")


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}, but must be {allowed}; change it in the config or with --{name}")


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain JSON content; tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(content: dict[str, Any]) -> Config:
    """The inverse of `to_dict`.

    Raises:
        UserError: a field is unknown, or of another type.
    """
    return from_dict_of(Config, content)


def from_dict_of(kind: type[C], content: dict[str, Any]) -> C:
    """`from_dict` for another kind of config.

    Raises:
        UserError: as `from_dict`.
    """
    return typing.cast(C, _build(kind, content, "config"))


def _build(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        fields = {f.name: f.type for f in dataclasses.fields(kind)}
        if not isinstance(value, dict) or (unknown := set(value) - set(fields)):
            what = f"unknown field {sorted(unknown)[0]}" if isinstance(value, dict) else "not an object"
            raise UserError(f"{where}: {what}; was it written by another version of ncjax?")
        make: Any = kind
        return make(**{name: _build(fields[name], item, f"{where}.{name}") for name, item in value.items()})
    if isinstance(kind, types.GenericAlias) and isinstance(value, list):
        return tuple(_build(kind.__args__[0], item, where) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    allowed = typing.get_args(kind)
    if (allowed and value not in allowed) or (not allowed and not isinstance(value, kind)):
        raise UserError(f"{where} is {value!r}, not {kind if allowed else kind.__name__}")
    return value
