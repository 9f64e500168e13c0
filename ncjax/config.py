# SPDX-License-Identifier: Apache-2.0
"""What an experiment is, as frozen dataclasses: the only place where defaults live.

Ranges are checked when a config is made; names (of networks, sources, schedules, views) are resolved by the function
that uses them, from its table. The string under a field is its help text on the command line; units stand in brackets.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ncjax.config_checks import check_distinct, check_types, check_whole, is_finite, require
from ncjax.errors import UserError, first_line
from ncjax.paths import user_path
from ncjax.typed_json import register, structure, unstructure

C = TypeVar("C")
Precision = Literal["float32", "tf32", "bfloat16"]  # ncjax/ops/precision.py says what devices compute then
TorchMode = Literal["eager", "default", "reduce-overhead", "max-autotune"]  # without torch.compile, or its mode
MOST_COUNT = 2**31 - 1
MOST_SEEDS = 100_000


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images come from and how a training image is augmented."""

    source: str = "digits"
    """Kind of data set [name]."""
    path: str = ""
    """Folder or file of the source; for tfds its data_dir [path; empty: none needed, or the default of tfds]."""
    tfds_name: str = ""
    """Name of the TFDS data set, such as cifar10 or fashion_mnist:3.0.1 [name; only with source tfds]."""
    streamed: bool = False
    """Read images while training, for sets larger than memory; needs the extra stream [yes or no]."""
    cache_dir: str = ""
    """Cache of decoded arrays [path; empty: ncjax/ in the user's cache folder]."""
    image_size: int = 0
    """Scale the square in the middle of each image to this height and width [pixels; 0: images as they are]."""
    resize: int = 0
    """Scale the shorter side to this first, then cut the square of image_size out of the middle, such as 256 for 224
    [pixels; 0: image_size]."""
    crop_scale: float = 0.0
    """Random-resized crop of training images: least share of the area that is cut out and scaled to image_size, such as
    0.08; needs streamed files [0 to 1; 0: none]."""
    workers: int = 0
    """Processes that decode streamed files, on each host process [processes; 0: threads instead]."""
    test_split: str = "test"
    """Split that members are tested on, such as validation [name of a TFDS split, or of a folder; tfds and image_folder
    only]."""
    classes: str = ""
    """Keep the classes of this label map alone: file:PATH or breeds:NAME:FOLDER [label map; empty: all]."""
    test_fraction: float = 0.0
    """Make a test split of this share of each class, where the data have none [0 to below 1; 0: they have one]."""
    validation_fraction: float = 0.0
    """Hold out this share of each class of the training split, and test on it in place of the test split, which is
    not used: to choose a recipe [0 to below 1; 0: train on all, test on the test split]."""
    train_examples: int = 0
    """Size of a fixed random subset of the training split [images; 0: all]."""
    test_examples: int = 0
    """Size of a fixed random subset of the test split [images; 0: all]."""
    crop_padding: int = 0
    """Zero padding before a random crop of the original size [pixels a side; 0: no crop]."""
    flip: bool = False
    """Mirror each training image with probability one half [yes or no]."""
    augment: str = ""
    """Augmentation after crop and flip [name; empty: none]."""

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_types(self, "data.")
        check_whole("data.image_size", self.image_size, 0, 4096)
        fits = self.resize == 0 or 0 < self.image_size <= self.resize
        require(fits, "data.resize", self.resize, f"0, or data.image_size ({self.image_size}; above 0) or more")
        check_whole("data.resize", self.resize, 0, 8192)
        require(0 <= self.crop_scale <= 1, "data.crop_scale", self.crop_scale, "from 0 to 1")
        cuts = self.crop_scale == 0 or (self.streamed and self.image_size > 0)
        require(cuts, "data.crop_scale", self.crop_scale, "0 without data.streamed and data.image_size")
        check_whole("data.workers", self.workers, 0, 4096)
        require(bool(self.test_split), "data.test_split", repr(self.test_split), "the name of a split")
        require(0 <= self.test_fraction < 1, "data.test_fraction", self.test_fraction, "from 0 to below 1")
        held = self.validation_fraction
        require(0 <= held < 1, "data.validation_fraction", held, "from 0 to below 1")
        check_whole("data.train_examples", self.train_examples, 0)
        check_whole("data.test_examples", self.test_examples, 0)
        unused = "0 where data.validation_fraction is not: the test split is not used then"
        require(not (held and self.test_examples), "data.test_examples", self.test_examples, unused)
        check_whole("data.crop_padding", self.crop_padding, 0, 128)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: its features are the input of the final linear layer."""

    name: str = "resnet18"
    """Architecture [name]."""
    width: int = 64
    """Channels of the first stage, growth rate of densenet, hidden units of mlp [channels or units]."""
    stem: Literal["auto", "cifar", "imagenet"] = "auto"
    """First layers of a resnet: a 3x3 convolution, or 7x7 of stride 2 and pooling; auto: imagenet for images of 128
    pixels a side or more, else cifar [name; resnet only]."""
    dense_blocks: tuple[int, ...] = (6, 12, 24, 16)
    """Layers of each block of densenet; the default with width 32 is DenseNet-121 [layers; one or more blocks]."""

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_types(self, "model.")
        check_whole("model.width", self.width, 1, 100_000)
        blocks = self.dense_blocks
        require(bool(blocks) and min(blocks) >= 1, "model.dense_blocks", blocks, "one or more numbers of 1 or more")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What each member minimizes, as a mean over the batch."""

    name: str = "cross_entropy"
    """Loss of one example [name]."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes of a member [0 to below 1; cross_entropy only]."""
    true_weight: float = 1.0
    """Weight of the error of the true class; errors of the others have weight 1 [above 0; squared_error only]."""
    true_value: float = 1.0
    """Target of the output of the true class; those of the others are 0 [above 0; squared_error only]."""

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_types(self, "loss.")
        require(0 <= self.label_smoothing < 1, "loss.label_smoothing", self.label_smoothing, "from 0 to below 1")
        for name, value in (("true_weight", self.true_weight), ("true_value", self.true_value)):
            require(is_finite(value) and value > 0, f"loss.{name}", value, "above 0, finite")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer and its schedule; several rates or decays make several members."""

    name: str = "sgd"
    """Optimizer [name]."""
    lr: tuple[float, ...] = (0.1,)
    """Peak learning rates, each once; each makes members of its own [loss units; one or more]."""
    weight_decay: tuple[float, ...] = (5e-4,)
    """Coefficients of weight decay, each once; each makes members of its own: sgd adds wd * weight to the gradient,
    adamw subtracts lr * wd * weight from the weight [1; one or more]."""
    momentum: float = 0.9
    """Momentum [0 to below 1; sgd only]."""
    nesterov: bool = True
    """Nesterov's momentum [yes or no; sgd only]."""
    beta1: float = 0.9
    """Decay of the mean of the gradient [0 to below 1; adamw only]."""
    beta2: float = 0.999
    """Decay of the mean of the squared gradient [0 to below 1; adamw only]."""
    schedule: str = "step"
    """Learning rate over time [name]."""
    schedule_epochs: int = 0
    """Length of the schedule; after it the learning rate stays what it was at its last step [epochs; 0: epochs]."""
    batch: int = 128
    """Global batch of one member [images]."""
    warmup_epochs: int = 0
    """Linear warm-up: the rate of the schedule is multiplied by a factor that rises to 1 in this time [epochs]."""
    epochs: int = 200
    """Length of training [passes over the training split]."""
    precision: Precision = "float32"
    """Numbers of the forward and backward pass: float32 with exact products, float32 with products of TF32 (on GPUs),
    or bfloat16; the state is always float32 [name]."""
    dtype: str = ""
    """Older name of precision [float32 or bfloat16; empty: not used]."""

    def __post_init__(self) -> None:
        """Checks types and ranges, and that every learning rate and every weight decay occurs once."""
        check_types(self, "optim.")
        check_distinct("optim.lr", self.lr)
        check_distinct("optim.weight_decay", self.weight_decay)
        for name, value in (("momentum", self.momentum), ("beta1", self.beta1), ("beta2", self.beta2)):
            require(0 <= value < 1, f"optim.{name}", value, "from 0 to below 1")
        check_whole("optim.batch", self.batch, 1, MOST_COUNT)
        check_whole("optim.epochs", self.epochs, 1, 1_000_000)
        check_whole("optim.schedule_epochs", self.schedule_epochs, 0, 1_000_000)
        check_whole("optim.warmup_epochs", self.warmup_epochs, 0, 1_000_000)
        if self.dtype:
            older = ("float32", "bfloat16")
            allowed = f"{' or '.join(older)}; optim.precision has more"
            require(self.dtype in older, "optim.dtype", repr(self.dtype), allowed)
            object.__setattr__(self, "precision", self.dtype)
            object.__setattr__(self, "dtype", "")


register(OptimConfig, unwritten=("dtype",))


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The devices of a run: members are sharded over one axis, each member's batch over the other."""

    member: int = 1
    """Devices along the member axis; members are padded to a multiple of it [devices; 0: all that are left]."""
    data: int = 1
    """Devices along the data axis; divides the batch [devices; 0: all that are left]."""
    shard_params: bool = False
    """Shard parameters and optimizer over the data axis too, for networks that fill a device [yes or no]."""

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_types(self, "mesh.")
        check_whole("mesh.member", self.member, 0)
        check_whole("mesh.data", self.data, 0)
        require(self.member + self.data > 0, "mesh.data", self.data, "1 or more where mesh.member is 0")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured on the features, at which epochs and layers."""

    epochs: tuple[int, ...] = (0,)
    """Epochs whose features are kept, besides the last; 0 is the network at random initialization [epochs]."""
    layers: tuple[str, ...] = ("features",)
    """Tensors of the network whose features are kept; features is the input of the last layer [one or more names]."""
    variants: tuple[str, ...] = ("raw", "normalised", "residual_pca")
    """Views of the features that are clustered inside each super-class [one or more names]."""
    labels: str = ""
    """A further label map whose super-classes what has none is measured under: fine, split, pixels [one that merges
    classes; empty: those of labels alone, or mod:5 (of five classes or fewer mod:2) where none of them merges any]."""
    control_maps: int = 10
    """Label maps that get controls of their own: pixels, random initialization, fine labels; the first ones [maps]."""
    headline: str = "normalised"
    """View that the headline of the report compares, chosen before anything is measured [name]."""
    restarts: int = 10
    """Restarts of k-means; the best inertia wins [restarts]."""
    memory_gib: float = 0.0
    """Memory for an evaluation; features that need more are read in blocks [GiB; 0: half of what is free]."""
    observe_epochs: int = 10
    """Time between measurements of collapse during training: NC1, CDNV and NC2 in metrics.jsonl [epochs; 0: never]."""
    observe_images: int = 1024
    """Training images, evenly spaced, that such a measurement uses [images]."""

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_types(self, "evaluate.")
        require(min(self.epochs, default=0) >= 0, "evaluate.epochs", self.epochs, "from 0 to optim.epochs")
        require(bool(self.layers), "evaluate.layers", self.layers, "one or more names in a tuple")
        require(bool(self.variants), "evaluate.variants", self.variants, "one or more names in a tuple")
        check_whole("evaluate.control_maps", self.control_maps, 1, MOST_COUNT)
        check_whole("evaluate.restarts", self.restarts, 1, 100_000)
        require(is_finite(self.memory_gib), "evaluate.memory_gib", self.memory_gib, "0 or more, finite")
        check_whole("evaluate.observe_epochs", self.observe_epochs, 0)
        check_whole("evaluate.observe_images", self.observe_images, 1, MOST_COUNT)


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: an ensemble of members = labels x learning rates x weight decays x seeds.

    Example:
        >>> config = Config(labels=("mod:5", "fine"), seeds=2, optim=OptimConfig(lr=(0.1, 0.01), epochs=20))
        >>> len(config.labels) * len(config.optim.lr) * config.seeds  # members
        8
    """

    name: str = "run"
    """Name of the run; the default work directory is runs/NAME [text]."""
    labels: tuple[str, ...] = ("mod:5",)
    """Label maps, each makes members of its own [fine, mod:C, adjacent:C, semantic, superclass, random:C:SEED,
    pairings, file:PATH, breeds:NAME:FOLDER, split:PARTS:SEED, shuffled:MAP:SEED]."""
    seeds: int = 1
    """Seeds per label map and hyper-parameter setting: seed, seed + 1, ... [members]."""
    seed: int = 0
    """The first of the seeds, of initial weights, order and augmentation [from 0]."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    convolutions: Literal["measured", "table", "side_by_side", "patches", "winograd", "sequential", "grouped"] = (
        "measured"
    )
    """Convolutions of several members on accelerators: the fastest that is measured before training, a table's choice,
    or this way wherever it can [name]."""
    deterministic: bool = False
    """Two runs of a command on one GPU give the same bits: nothing is chosen by measured times [yes or no]."""
    chunk_steps: int = 50
    """Steps of one compiled program: metrics, signals and checkpoints are handled between two of them [steps]."""
    checkpoint_minutes: float = 5.0
    """Time between checkpoints to resume from; the two newest are kept [minutes; 0: none but at the end]."""
    checkpoint_epochs: int = 0
    """Epochs between checkpoints for analysis; all are kept [epochs; 0: none but the last]."""
    tensorboard: bool = False
    """Write TensorBoard events beside metrics.jsonl; needs the extra tensorboard [yes or no]."""
    wandb: str = ""
    """Log to this Weights & Biases project beside metrics.jsonl; needs the extra wandb [PROJECT or ENTITY/PROJECT;
    empty: none]."""

    def __post_init__(self) -> None:
        """Checks types and ranges, and that the parts fit together."""
        check_types(self)
        require(bool(self.labels), "labels", self.labels, "one or more label maps in a tuple")
        check_whole("seeds", self.seeds, 1, MOST_SEEDS)
        check_whole("seed", self.seed, 0, MOST_COUNT - MOST_SEEDS)
        check_whole("chunk_steps", self.chunk_steps, 1, 1_000_000)
        check_whole("checkpoint_epochs", self.checkpoint_epochs, 0)
        minutes = self.checkpoint_minutes
        require(is_finite(minutes), "checkpoint_minutes", minutes, "0 or more, finite")
        epochs, batch, data = self.evaluate.epochs, self.optim.batch, self.mesh.data
        fits = all(epoch <= self.optim.epochs for epoch in epochs)
        require(fits, "evaluate.epochs", epochs, f"from 0 to optim.epochs = {self.optim.epochs}")
        require(data == 0 or batch % data == 0, "mesh.data", data, f"a divisor of optim.batch = {batch}")


def load_config(path: str | Path) -> Config:
    """The config that `get_config()` of a Python file returns.

    Raises:
        UserError: the file is missing, cannot be run, or does not return a `Config`.
    """
    return load_config_of(Config, path)


def load_config_of(kind: type[C], path: str | Path) -> C:
    """`load_config` for a file that returns another kind of config.

    Raises:
        UserError: as `load_config`.
    """
    path = user_path(path)
    if not path.is_file():
        raise UserError(f"no config file at {path}; give a Python file that defines get_config(), such as configs/*.py")
    spec = importlib.util.spec_from_file_location("ncjax_config_file", path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except UserError as error:
        raise UserError(f"config file {path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"config file {path} fails: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(config, kind):
        wanted = f"{kind.__module__}.{kind.__name__}"
        raise UserError(f"config file {path}: get_config() returns {type(config).__name__}, not {wanted}")
    return from_dict_of(kind, to_dict(config), f"config file {path}")


def to_dict(config: Any) -> Mapping[str, Any]:
    """The config as plain JSON content; tuples become lists."""
    content: Mapping[str, Any] = unstructure(config)
    return content


def from_dict(content: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`.

    Raises:
        UserError: a field is unknown, of another type or out of range; it is named.
    """
    return from_dict_of(Config, content)


def from_dict_of(kind: type[C], content: Mapping[str, Any], where: str = "config") -> C:
    """`from_dict` for another kind of config.

    Args:
        kind: a dataclass.
        content: of `to_dict`.
        where: begins the message of an error.

    Raises:
        UserError: as `from_dict`.
    """
    return structure(kind, content, where)
