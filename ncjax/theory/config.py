# SPDX-License-Identifier: Apache-2.0
"""A sweep of the synthetic setting, as frozen dataclasses; `ncjax.config` has the conventions.

Tuples of numbers are swept: every combination is a setting. Fields that change an array's shape (dimension, train,
width) are outer loops, each with a compiled program of its own; all others are arrays of one program. Ranges are
checked when a config is made; dataclasses.replace checks too, so change parts that depend on each other at once.
"""

import math
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, NamedTuple, get_args

from ncjax.errors import UserError

MAX_COMPONENTS = 6  # k-means clusters are matched to Gaussians by trying every order

Means = Literal["orthonormal", "angle", "sphere", "file"]
Covariance = Literal["isotropic", "diagonal", "low_rank"]
Activation = Literal["relu", "leaky_relu", "gelu", "erf", "linear"]
Trained = Literal["first", "all"]
Scaling = Literal["mean", "sqrt"]
Loss = Literal["logistic", "cross_entropy", "squared"]
PredictionName = Literal["none", "frozen", "leaky", "lazy"]


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Labels, each a mixture of Gaussians of equal weight."""

    labels: int = 2
    """Coarse labels: what the network is trained on [labels; 2 or more]."""
    components: int = 2
    """Gaussians of each label [Gaussians; 1 to 6]."""
    dimension: tuple[int, ...] = (64,)
    """Dimensions of the inputs; an outer loop [dimensions]."""
    means: Means = "orthonormal"
    """Directions of the means [angle: orthogonal between labels; sphere: drawn at random; file: mixture.means_file]."""
    means_file: str = ""
    """Array of the means, label by label [path of .npy, shape (labels * components, dimension)]."""
    angle: tuple[float, ...] = (90.0,)
    """Angle between the means of one label, with means angle; swept [degrees]."""
    norm: tuple[float, ...] = (1.0,)
    """Length of every mean, a factor on those of a file; swept [1]."""
    covariance: Covariance = "isotropic"
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

    def __post_init__(self) -> None:
        """Checks ranges, and that the fields fit together."""
        _whole("mixture.labels", self.labels, 2)
        _whole("mixture.components", self.components, 1, MAX_COMPONENTS)
        _whole("mixture.test", self.test, 1)
        _one_of("mixture.means", self.means, Means)
        _one_of("mixture.covariance", self.covariance, Covariance)
        _sizes("mixture.dimension", self.dimension)
        _sizes("mixture.train", self.train)
        _numbers("mixture.angle", self.angle, 0.0, 180.0)
        _numbers("mixture.norm", self.norm, 0.0)
        _numbers("mixture.noise", self.noise, 0.0)
        _numbers("mixture.imbalance", self.imbalance, 1.0)
        _numbers("mixture.label_noise", self.label_noise, 0.0, 1.0)
        _check_means(self)
        if self.covariance == "low_rank":
            _whole("mixture.rank", self.rank, 1, min(self.dimension))
        examples, most = min(*self.train, self.test), max(self.imbalance)
        ratios = [most ** -(k / (self.labels - 1)) for k in range(self.labels)]
        needed = math.ceil(self.components * sum(ratios) / min(ratios))
        allowed = f"{needed} or more: one of each Gaussian"
        _require(examples >= needed, "mixture.train and mixture.test", examples, allowed)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """`f(x) = gain * width^-p * sum_j a_j phi(w_j . x)`."""

    width: tuple[int, ...] = (256,)
    """Hidden units of each layer; an outer loop [units]."""
    depth: int = 1
    """Hidden layers [layers]."""
    activation: Activation = "relu"
    """phi [one of the listed names; the slope of leaky_relu is 0.1]."""
    trained: Trained = "first"
    """Layers that are trained; the others stay as they start [first: the first hidden layer]."""
    scaling: Scaling = "mean"
    """p of the output [mean: 1; sqrt: 1/2]."""
    gain: tuple[float, ...] = (1.0,)
    """Factor on the output; swept [1]."""
    init_scale: tuple[float, ...] = (0.01,)
    """Standard deviation of the first layer's weights; swept [1]."""
    symmetric: bool = False
    """Units start as groups of equal weights, one of each label, so that the output starts at 0 [yes or no]."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        _sizes("network.width", self.width)
        _whole("network.depth", self.depth, 1)
        _one_of("network.activation", self.activation, Activation)
        _one_of("network.trained", self.trained, Trained)
        _one_of("network.scaling", self.scaling, Scaling)
        _numbers("network.gain", self.gain, 0.0)
        _require(min(self.gain) > 0, "network.gain", self.gain, "above 0")
        _numbers("network.init_scale", self.init_scale, 0.0)


@dataclass(frozen=True, kw_only=True)
class DescentConfig:
    """`W <- (1 - lr * weight_decay) W - lr * width^(2p - 1) / gain^2 * gradient`: time is `lr * step`."""

    loss: Loss = "logistic"
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

    def __post_init__(self) -> None:
        """Checks ranges."""
        _one_of("descent.loss", self.loss, Loss)
        _numbers("descent.lr", self.lr, 0.0)
        _numbers("descent.weight_decay", self.weight_decay, 0.0)
        _whole("descent.batch", self.batch, 0)
        _whole("descent.steps", self.steps, 1)
        _whole("descent.records", self.records, 1)
        _whole("descent.restarts", self.restarts, 0)


@dataclass(frozen=True, kw_only=True)
class TheoryConfig:
    """A sweep: outer loops x settings x seeds."""

    name: str = "theory"
    """Name of the sweep; the default work directory is runs/NAME [text]."""
    seeds: int = 8
    """Runs of each setting, that differ in means, inputs and weights: seed, seed + 1, ... [runs]."""
    seed: int = 0
    """The first of the seeds [from 0]."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    descent: DescentConfig = field(default_factory=DescentConfig)
    prediction: PredictionName = "none"
    """Prediction drawn over a simulation [frozen: gates as at the start; leaky: with noise; lazy: first-layer NTK]."""
    memory_gib: float = 4.0
    """Memory for the runs that are computed at once; it sets the size of their groups [GiB]."""

    def __post_init__(self) -> None:
        """Checks ranges, and that the parts fit together."""
        _whole("seeds", self.seeds, 1)
        _whole("seed", self.seed, 0, 2**31 - 1)
        _require(self.memory_gib > 0, "memory_gib", self.memory_gib, "above 0")
        _one_of("prediction", self.prediction, PredictionName)
        mixture, network = self.mixture, self.network
        two = self.descent.loss != "logistic" or mixture.labels == 2
        _require(two, "mixture.labels", mixture.labels, "2 with descent.loss logistic; cross_entropy has more")
        groups = not network.symmetric or all(width % mixture.labels == 0 for width in network.width)
        _require(groups, "network.width", network.width, "a multiple of mixture.labels with network.symmetric")
        _check_prediction(self)


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


def _check_means(mixture: MixtureConfig) -> None:
    gaussians, least = mixture.labels * mixture.components, min(mixture.dimension)
    orthogonal = mixture.means in ("orthonormal", "angle")
    allowed = f"{gaussians} or more: so many {mixture.means} means need as many dimensions"
    _require(not orthogonal or least >= gaussians, "mixture.dimension", least, allowed)
    fits, found = (mixture.means == "file") == bool(mixture.means_file), mixture.means_file or "empty"
    _require(fits, "mixture.means_file", found, "a path with mixture.means file, and empty otherwise")
    if mixture.means == "angle" and mixture.components > 1:
        widest = math.degrees(math.acos(-1 / (mixture.components - 1)))
        allowed = f"from 0 to {widest:g}: {mixture.components} means cannot be wider apart from each other"
        _require(all(0 <= a <= widest + 1e-9 for a in mixture.angle), "mixture.angle", mixture.angle, allowed)


def _check_prediction(config: TheoryConfig) -> None:
    """A prediction is drawn only where its derivation holds."""
    mixture, network, descent = config.mixture, config.network, config.descent
    if config.prediction == "none":
        return
    needed = {
        "mixture.means orthonormal": mixture.means == "orthonormal",
        "mixture.labels 2": mixture.labels == 2,
        "mixture.imbalance 1": set(mixture.imbalance) == {1.0},
        "mixture.label_noise 0": set(mixture.label_noise) == {0.0},
        "network.depth 1": network.depth == 1,
        "network.activation relu": network.activation == "relu",
        "network.trained first": network.trained == "first",
        "descent.loss logistic": descent.loss == "logistic",
        "descent.batch 0": descent.batch == 0,
        "network.init_scale above 0": min(network.init_scale) > 0,
        "mixture.norm above 0": min(mixture.norm) > 0,
    }
    if config.prediction == "lazy":
        needed |= {"descent.weight_decay 0": set(descent.weight_decay) == {0.0}}
    if network.scaling == "sqrt":
        needed |= {"network.symmetric where network.scaling is sqrt": network.symmetric}
    if config.prediction != "leaky":
        needed |= {"mixture.noise 0": set(mixture.noise) == {0.0}}
    missing = [name for name, holds in needed.items() if not holds]
    if missing:
        raise UserError(
            f"prediction {config.prediction} is derived for {missing[0]}; change that, or set prediction to none"
        )


def _whole(name: str, value: object, least: int, most: int | None = None) -> None:
    allowed = f"{least} or more" if most is None else f"from {least} to {most}"
    if type(value) is not int:
        raise UserError(f"{name} is {value!r}, but must be a whole number, {allowed}")
    _require(least <= value and (most is None or value <= most), name, value, allowed)


def _sizes(name: str, values: object) -> None:
    fits = isinstance(values, tuple) and len(values) > 0 and all(type(x) is int and x >= 1 for x in values)
    _require(fits, name, values, "one or more whole numbers of 1 or more")


def _numbers(name: str, values: object, low: float, high: float = math.inf) -> None:
    allowed = f"one or more finite numbers of {low:g} {f'to {high:g}' if high < math.inf else 'or more'}"
    numbers = values if isinstance(values, tuple) else ()
    fits = all(isinstance(x, int | float) and math.isfinite(x) and low <= x <= high for x in numbers)
    _require(fits and len(numbers) > 0, name, values, allowed)


def _one_of(name: str, value: object, names: object) -> None:
    known = get_args(names)
    _require(value in known, name, value, f"one of {', '.join(known)}")


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}, but must be {allowed}")
