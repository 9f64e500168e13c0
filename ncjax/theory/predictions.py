# SPDX-License-Identifier: Apache-2.0
r"""Predictions of the hidden representation, derived for infinite width; NumPy in float64, no simulation.

The setting: `K = 2 q` orthogonal means `mu_i` of length `r`, `q` of each of two labels `y = +1, -1`, equally many
examples of each; `f(x) = gain m^-p sum_j a_j relu(w_j . x)` with `a_j = +1` or `-1` fixed, weights `w_j` that start as
`N(0, s^2)` and descend on the logistic loss at speed `m^(2p-1) / gain^2`, with weight decay `lambda`.

**One step.** The pre-activation of unit `j` at a mean is `v_ji = w_j . mu_i`; it starts as `S u`, `S = s r`, with `u`
independent over means and units, because the means are orthogonal. Without noise the gradient of the loss is
`-(1/K) sum_i y_i sigma(-y_i f(mu_i)) gain m^-p a_j 1(v_ji > 0) mu_i`, so

    v_ji <- (1 - lr lambda) v_ji + a_j y_i lr c 1(v_ji > 0),    c = r^2 sigma(-y_i f(mu_i)) / (K gamma),

`gamma = gain m^(1-p)`. The means do not mix, and by symmetry `y_i f(mu_i)` is the same for all of them.

**Frozen gates.** Where unit and mean agree (`a_j y_i = +1`) an open gate is pushed open and a closed one is not pushed:
gates stay as they start. Where they disagree an open gate is pushed until it closes, and then stays at 0. Weight decay
multiplies all by `k = (1 - lr lambda)^t` and changes no sign. With `g = sum_tau lr c_tau / (S k_tau+1)`, the push in
units of what is left of the start,

    v = S k (u + g) 1(u > 0)  where they agree,    v = S k max(u - g, 0)  where they do not,

and `p1, p2, q1, q2`, the first two moments of both over `u ~ N(0, 1)`, are closed (`frozen_moments`). Half of the units
agree, so `y f = gamma S k (p1 - q1) / 2`, which gives `c` and the next `g`: `g` is a function of time with no free
number. Two means of one label have independent `u` and the same half of the units, so the inner product of their
hidden vectors is `(p1^2 + q1^2) / 2` a unit, their squared length `(p2 + q2) / 2`; for two labels it is `p1 q1`. Hence

    cosine in a label = (p1^2 + q1^2) / (p2 + q2),    between labels = 2 p1 q1 / (p2 + q2).

At `g = 0` both are `1/pi`; as `g` grows the first tends to 1/2 and the second to 0. Of an angle of 90 degrees between
the inputs, 60 are left for ever: without noise neither time nor weight decay collapses the Gaussians of a label.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, ndtr

from ncjax.theory.config import Settings, Shape, TheoryConfig
from ncjax.theory.network import POWERS

NODES, REACH = 400, 7.0  # of the quadrature over u


class Moments(NamedTuple):
    """First and second moments of hidden activations, in units of `S k`."""

    p1: Float[np.ndarray, "*t"]  # units that agree with the label
    p2: Float[np.ndarray, "*t"]
    q1: Float[np.ndarray, "*t"]  # units that do not
    q2: Float[np.ndarray, "*t"]


def frozen_moments(g: Float[np.ndarray, "*t"] | float) -> Moments:
    """`E (u + g) 1(u > 0)`, `E (u + g)^2 1(u > 0)`, `E max(u - g, 0)`, `E max(u - g, 0)^2` over `u ~ N(0, 1)`.

    With the normal density `phi` and distribution `Phi`: `int_0 u phi = phi(0)`, `int_0 u^2 phi = 1/2`,
    `int_g u phi = phi(g)`, `int_g u^2 phi = g phi(g) + Phi(-g)`.
    """
    g = np.asarray(g, np.float64)
    at_zero, at_g, above = _density(0.0), _density(g), ndtr(-g)
    p1, p2 = at_zero + g / 2, 0.5 + 2 * g * at_zero + g**2 / 2
    q1, q2 = at_g - g * above, np.maximum((1 + g**2) * above - g * at_g, 0.0)
    return Moments(*map(np.asarray, (p1, p2, q1, q2)))


def cosines(moments: Moments) -> tuple[Float[np.ndarray, "*t"], Float[np.ndarray, "*t"]]:
    """Cosine of two hidden means of one label, and of two labels."""
    p1, p2, q1, q2 = moments
    return (p1**2 + q1**2) / (p2 + q2), 2 * p1 * q1 / (p2 + q2)


class Prediction(NamedTuple):
    """At each recorded step, by the names of the recorded metrics; distances are those of examples, a hidden unit."""

    train_loss: Float[np.ndarray, "t"]
    within: Float[np.ndarray, "t"]
    between_gaussians: Float[np.ndarray, "t"]
    between_labels: Float[np.ndarray, "t"]
    cosine_gaussians: Float[np.ndarray, "t"]
    cosine_labels: Float[np.ndarray, "t"]
    push: Float[np.ndarray, "t"]  # g


def predict(config: TheoryConfig, shape: Shape, settings: Settings, steps: Int[np.ndarray, "t"]) -> Prediction | None:
    """The prediction that `config.prediction` names, at these steps; None where it is none."""
    if config.prediction == "none":
        return None
    if config.prediction == "leaky":
        return leaky_gates(config, shape, settings, steps)
    return frozen_gates(config, shape, settings, steps)


def frozen_gates(config: TheoryConfig, shape: Shape, settings: Settings, steps: Int[np.ndarray, "t"]) -> Prediction:
    """Frozen gates, or their lazy limit: the recurrence of `g`, step by step, and what follows from it; no noise.

    The lazy limit is the first-layer NTK: `gamma` is large, so `g`, of order `1 / gamma`, is small, and the network is
    linear in its weights. At orthogonal means the kernel is `r^2 / 2` on the diagonal and 0 elsewhere, so that
    `y f = gamma S g / 2`. The moments move the inner products of hidden vectors at order `g^2` alone: they stay those
    of the start, the arc-cosine kernel, and all distances with them.
    """
    lazy, count = config.prediction == "lazy", config.mixture.labels * config.mixture.components
    gamma, start = _gamma(config, shape, settings), settings.init_scale * settings.norm
    kept = (1 - settings.lr * settings.weight_decay) ** np.arange(steps[-1] + 1)
    push, margin = np.zeros(steps[-1] + 1), np.zeros(steps[-1] + 1)
    for step in range(steps[-1] + 1):
        moments = frozen_moments(push[step])
        margin[step] = gamma * start * kept[step] * (push[step] if lazy else moments.p1 - moments.q1) / 2
        if step < steps[-1]:
            force = settings.norm**2 * expit(-margin[step]) / (count * gamma)
            push[step + 1] = push[step] + settings.lr * force / (start * kept[step + 1])
    moments = frozen_moments(0 * push[steps] if lazy else push[steps])
    return _prediction(margin[steps], start * kept[steps], moments, np.zeros(len(steps)), push[steps])


def leaky_gates(config: TheoryConfig, shape: Shape, settings: Settings, steps: Int[np.ndarray, "t"]) -> Prediction:
    r"""Frozen gates with noise: closed gates leak, and the angle is lost.

    An example is `mu_i + xi`, `|xi|^2` about `noise^2`, so its pre-activation is `v + tau z`, `z ~ N(0, 1)`, and a gate
    with `v < 0` is open on the share `Phi(v / tau)` of its Gaussian's examples. The step above becomes

        v <- (1 - lr lambda) v + a y lr c Phi(v / tau),

    for every starting value `u` a curve of its own: closed gates of units that agree creep open, first those with
    `|u| < tau / S`. Once open in both Gaussians of a label a unit no longer tells them apart, and the cosine tends
    to 1. Two things make `tau`: the weights at the start, `noise s k`, and the learnt ones, which lie along the means:
    `tau^2 = noise^2 (s^2 k^2 + L / d)`, `L = q (E_+ + E_-) / r^2`, `E` the mean of `(v - S k u)^2` over units that
    agree or do not. (That `L` is its mean over units is one approximation of this prediction; the other is that no
    example is memorised: `n / K` is large against `1 + noise^2`.) A gate `u < 0` escapes within the push
    `int_u^0 du / Phi(u S / tau)`, about `exp(u^2 S^2 / 2 tau^2)`, so the angle is lost where `noise / r` exceeds about
    `1 / sqrt(2 log g)`, or `g noise / r` exceeds about `sqrt(d)`; and `log g` grows as `lambda t`.

    Moments are integrals over `u` (Gauss-Legendre), of `E max(v + tau z, 0) = tau phi(v / tau) + v Phi(v / tau)` and
    `E max(v + tau z, 0)^2 = (v^2 + tau^2) Phi(v / tau) + v tau phi(v / tau)`.
    """
    gamma, q = _gamma(config, shape, settings), config.mixture.components
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    u, weights = REACH * nodes, REACH * weights * _density(REACH * nodes)
    start, keep, push = settings.init_scale * settings.norm, 1 - settings.lr * settings.weight_decay, 0.0
    v, wanted, found = start * np.stack([u, u]), set(steps.tolist()), []  # units that agree, units that do not
    for step in range(steps[-1] + 1):
        kept = keep**step
        learnt = q * (((v - start * kept * u) ** 2) @ weights).sum() / settings.norm**2
        tau = settings.noise * np.sqrt((settings.init_scale * kept) ** 2 + learnt / shape.dimension)
        ratio = v / max(tau, 1e-30)
        open_share, bump = ndtr(ratio), tau * _density(ratio)
        hidden = bump + v * open_share
        p1, q1 = hidden @ weights
        if step in wanted:
            p2, q2 = hidden**2 @ weights
            within = 2 * (((v**2 + tau**2) * open_share + v * bump - hidden**2) @ weights).mean()
            found.append((gamma * (p1 - q1) / 2, p1, p2, q1, q2, within, push))
        force = settings.norm**2 * expit(-gamma * (p1 - q1) / 2) / (2 * q * gamma)
        v = keep * v + settings.lr * force * np.array([[1.0], [-1.0]]) * open_share
        push += settings.lr * force / (start * kept * keep)
    margin, p1, p2, q1, q2, spread, pushes = np.array(found).T
    return _prediction(margin, np.ones(len(steps)), Moments(p1, p2, q1, q2), spread, pushes)


def _prediction(
    margin: np.ndarray, size: np.ndarray, moments: Moments, within: np.ndarray, push: np.ndarray
) -> Prediction:
    p1, p2, q1, q2 = moments
    same, other = cosines(moments)
    return Prediction(
        train_loss=np.logaddexp(0, -margin),
        within=within,
        between_gaussians=size**2 * (p2 + q2 - p1**2 - q1**2) + within,
        between_labels=size**2 * (p2 + q2 - 2 * p1 * q1) + within,
        cosine_gaussians=same,
        cosine_labels=other,
        push=push,
    )


def _gamma(config: TheoryConfig, shape: Shape, settings: Settings) -> float:
    return float(settings.gain * shape.width ** (1 - POWERS[config.network.scaling]))


def _density(x: Float[np.ndarray, "*t"] | float) -> Float[np.ndarray, "*t"]:
    return np.asarray(np.exp(-(np.asarray(x, np.float64) ** 2) / 2) / np.sqrt(2 * np.pi))
