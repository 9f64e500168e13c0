# SPDX-License-Identifier: Apache-2.0
"""What a sweep of the synthetic setting is, as frozen dataclasses; `ncjax.config` has the conventions.

Tuples of numbers are swept: every combination is a setting. Fields that change an array's shape (dimension, train,
width) are outer loops, each with a compiled program of its own; all others are arrays of one program.
"""

import math
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, NamedTuple

from ncjax.errors import UserError

MOST_COMPONENTS = 6  # k-means clusters are matched to Gaussians by trying every order


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Labels, each a mixture of Gaussians of equal weight."""

    labels: int = 2
    """Coarse labels: what the network is trained on [labels; 2 or more]."""
    components: int = 2
    """Gaussians of each label [Gaussians; 1 to 6]."""
    dimension: tuple[int, ...] = (64,)
    """Dimensions of the inputs; an outer loop [dimensions]."""
    means: Literal["orthonormal", "angle", "sphere", "file"] = "orthonormal"
    """Directions of the means [angle: orthogonal between labels; sphere: drawn at random; file: mixture.means-file]."""
    means_file: str = ""
    """Array of the means, label by label [path of .npy, shape (labels * components, dimension)]."""
    angle: tuple[float, ...] = (90.0,)
    """Angle between the means of one label, with means angle; swept [degrees]."""
    norm: tuple[float, ...] = (1.0,)
    """Length of every mean, a factor on those of a file; swept [1]."""
    covariance: Literal["isotropic", "diagonal", "low_rank"] = "isotropic"
    """Shape of the noise, the same for all [diagonal: variances as 1/i; low_rank: isotropic in a random subspace]."""
    rank: int = 1
    """Dimension of the noise with covariance low_rank [dimensions]."""
    noise: tuple[float, ...] = (0.0,)
    """Root mean square length of the noise of an input; swept [1]."""
    imbalance: tuple[float, ...] = (1.0,)
    """Share of the first label over that of the last, in equal ratios between; swept [1; 1 or more]."""
    label_noise: tuple[float, ...] = (0.0,)
    """Probability that a training label is another one; swept [0 to 1]."""
    train: tuple[int, ...] = (200,)
    """Training examples; an outer loop [examples]."""
    test: int = 200
    """Test examples [examples]."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """`f(x) = gain * width^-p * sum_j a_j phi(w_j . x)`."""

    width: tuple[int, ...] = (256,)
    """Hidden units of each layer; an outer loop [units]."""
    depth: int = 1
    """Hidden layers [layers]."""
    activation: Literal["relu", "leaky_relu", "gelu", "erf", "linear"] = "relu"
    """phi [one of the listed names; the slope of leaky_relu is 0.1]."""
    trained: Literal["first", "all"] = "first"
    """Layers that are trained; the others stay as they start [first: the first hidden layer]."""
    scaling: Literal["mean", "sqrt"] = "mean"
    """p of the output [mean: 1; sqrt: 1/2]."""
    gain: tuple[float, ...] = (1.0,)
    """Factor on the output; swept [1]."""
    init_scale: tuple[float, ...] = (0.01,)
    """Standard deviation of the first layer's weights; swept [1]."""
    symmetric: bool = False
    """Units start as groups of equal weights, one of each label, so that the output starts at 0 [yes or no]."""


@dataclass(frozen=True, kw_only=True)
class DescentConfig:
    """`W <- (1 - lr * weight_decay) W - lr * width^(2p - 1) / gain^2 * gradient`: time is `lr * step`."""

    loss: Literal["logistic", "cross_entropy", "squared"] = "logistic"
    """Loss [logistic: two labels, one output; the others have an output a label]."""
    lr: tuple[float, ...] = (0.1,)
    """Time of one step; small for gradient flow; swept [time]."""
    weight_decay: tuple[float, ...] = (0.0,)
    """Rate at which trained weights shrink; swept [1/time]."""
    batch: int = 0
    """Examples of a step, drawn with replacement [examples; 0: all, which is gradient descent]."""
    steps: int = 1000
    """Length of training [steps]."""
    records: int = 20
    """Steps that are recorded besides step 0, evenly spaced in their logarithm, at most [records]."""
    restarts: int = 3
    """Restarts of k-means inside each label, at each record [restarts; 0: no k-means]."""


@dataclass(frozen=True, kw_only=True)
class TheoryConfig:
    """A sweep: outer loops x settings x seeds."""

    name: str = "theory"
    """Name of the sweep; the default work directory is runs/NAME [text]."""
    seeds: int = 8
    """Runs of each setting, that differ in means, inputs and weights: 0, 1, ... [runs]."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    descent: DescentConfig = field(default_factory=DescentConfig)
    prediction: Literal["none", "frozen", "leaky", "lazy"] = "none"
    """What is drawn over the simulation [frozen: gates as at the start; leaky: with noise; lazy: first-layer NTK]."""
    memory_gib: float = 4.0
    """Memory for the runs that are computed at once; it sets the batch [GiB]."""


class Settings(NamedTuple):
    """The numbers that a program takes as arrays; names and units are those of the configs."""

    angle: float
    norm: float
    noise: float
    imbalance: float
    label_noise: float
    gain: float
    init_scale: float
    lr: float
    weight_decay: float


class Shape(NamedTuple):
    """The numbers that make a program of their own."""

    dimension: int
    train: int
    width: int


def settings_of(config: TheoryConfig) -> tuple[Settings, ...]:
    """Every combination of the swept numbers, the last varying fastest."""
    mixture, network, descent = config.mixture, config.network, config.descent
    return tuple(
        Settings(*numbers)
        for numbers in product(
            mixture.angle if mixture.means == "angle" else (90.0,),
            mixture.norm,
            mixture.noise,
            mixture.imbalance,
            mixture.label_noise,
            network.gain,
            network.init_scale,
            descent.lr,
            descent.weight_decay,
        )
    )


def shapes_of(config: TheoryConfig) -> tuple[Shape, ...]:
    """Every combination of the outer loops, the last varying fastest."""
    return tuple(Shape(*s) for s in product(config.mixture.dimension, config.mixture.train, config.network.width))


def check_theory(config: TheoryConfig) -> None:
    """Refuse what cannot be computed.

    Raises:
        UserError: naming the field, its value and what it may be.
    """
    _check_ranges(config)
    mixture, network, descent = config.mixture, config.network, config.descent
    gaussians, least = mixture.labels * mixture.components, min(mixture.dimension)
    orthogonal = mixture.means in ("orthonormal", "angle")
    dimension = f"{gaussians} or more: so many {mixture.means} means need as many dimensions"
    _require(not orthogonal or least >= gaussians, "mixture.dimension", least, dimension)
    _require((mixture.means == "file") == bool(mixture.means_file), "mixture.means-file", mixture.means_file or "empty",
             "given with mixture.means file, and only then")  # fmt: skip
    if mixture.means == "angle" and mixture.components > 1:
        widest = math.degrees(math.acos(-1 / (mixture.components - 1)))
        allowed = f"from 0 to {widest:g}: {mixture.components} means cannot be wider apart from each other"
        _require(all(0 <= a <= widest + 1e-9 for a in mixture.angle), "mixture.angle", mixture.angle, allowed)
    if mixture.covariance == "low_rank":
        _require(1 <= mixture.rank <= least, "mixture.rank", mixture.rank, f"from 1 to the dimension, {least}")
    examples, most = min(*mixture.train, mixture.test), max(mixture.imbalance)
    ratios = [most ** -(k / (mixture.labels - 1)) for k in range(mixture.labels)]
    needed = math.ceil(mixture.components * sum(ratios) / min(ratios))
    _require(examples >= needed, "mixture.train and mixture.test", examples, f"{needed} or more: one of each Gaussian")
    two = descent.loss != "logistic" or mixture.labels == 2
    _require(two, "mixture.labels", mixture.labels, "2 with descent.loss logistic; cross_entropy has more")
    narrow = not network.symmetric or all(width % mixture.labels == 0 for width in network.width)
    _require(narrow, "network.width", network.width, "a multiple of mixture.labels with network.symmetric")
    _check_prediction(config)


def _check_ranges(config: TheoryConfig) -> None:
    mixture, network, descent = config.mixture, config.network, config.descent
    counts = {
        "seeds": (config.seeds, 1),
        "mixture.labels": (mixture.labels, 2),
        "mixture.components": (mixture.components, 1),
        "mixture.test": (mixture.test, 1),
        "network.depth": (network.depth, 1),
        "descent.steps": (descent.steps, 1),
        "descent.records": (descent.records, 1),
        "descent.batch": (descent.batch, 0),
        "descent.restarts": (descent.restarts, 0),
    }
    for name, (value, least) in counts.items():
        _require(value >= least, name, value, f"{least} or more")
    _require(mixture.components <= MOST_COMPONENTS, "mixture.components", mixture.components, "6 or less")
    loops = {"mixture.dimension": mixture.dimension, "mixture.train": mixture.train, "network.width": network.width}
    for name, values in loops.items():
        _require(len(values) > 0 and min(values) >= 1, name, values, "one or more numbers of 1 or more")
    swept = {
        "mixture.angle": (mixture.angle, 0.0, 180.0),
        "mixture.norm": (mixture.norm, 0.0, math.inf),
        "mixture.noise": (mixture.noise, 0.0, math.inf),
        "mixture.imbalance": (mixture.imbalance, 1.0, math.inf),
        "mixture.label-noise": (mixture.label_noise, 0.0, 1.0),
        "network.gain": (network.gain, 0.0, math.inf),
        "network.init-scale": (network.init_scale, 0.0, math.inf),
        "descent.lr": (descent.lr, 0.0, math.inf),
        "descent.weight-decay": (descent.weight_decay, 0.0, math.inf),
    }
    for name, (numbers, low, high) in swept.items():
        fits = len(numbers) > 0 and all(math.isfinite(x) and low <= x <= high for x in numbers)
        _require(
            fits,
            name,
            numbers,
            f"one or more finite numbers of {low:g} {f'to {high:g}' if high < math.inf else 'or more'}",
        )
    _require(min(network.gain) > 0, "network.gain", network.gain, "above 0")
    _require(config.memory_gib > 0, "memory-gib", config.memory_gib, "above 0")


def _check_prediction(config: TheoryConfig) -> None:
    """A prediction is drawn only where its derivation holds."""
    mixture, network, descent = config.mixture, config.network, config.descent
    if config.prediction == "none":
        return
    needed = {
        "mixture.means orthonormal": mixture.means == "orthonormal",
        "mixture.labels 2": mixture.labels == 2,
        "mixture.imbalance 1": set(mixture.imbalance) == {1.0},
        "mixture.label-noise 0": set(mixture.label_noise) == {0.0},
        "network.depth 1": network.depth == 1,
        "network.activation relu": network.activation == "relu",
        "network.trained first": network.trained == "first",
        "descent.loss logistic": descent.loss == "logistic",
        "descent.batch 0": descent.batch == 0,
        "network.init-scale above 0": min(network.init_scale) > 0,
        "mixture.norm above 0": min(mixture.norm) > 0,
    }
    if config.prediction == "lazy":
        needed |= {"descent.weight-decay 0": set(descent.weight_decay) == {0.0}}
    if network.scaling == "sqrt":
        needed |= {"network.symmetric where network.scaling is sqrt": network.symmetric}
    if config.prediction != "leaky":
        needed |= {"mixture.noise 0": set(mixture.noise) == {0.0}}
    missing = [name for name, holds in needed.items() if not holds]
    if missing:
        raise UserError(
            f"prediction {config.prediction} is derived for {missing[0]}; change that, or --prediction none"
        )


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}, but must be {allowed}; change it in the config or with --{name}")
