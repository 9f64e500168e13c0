# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules as a factor of the peak rate."""

from typing import Literal

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def schedule_factor(
    kind: Literal["constant", "step", "cosine", "one_cycle"], total_steps: int, step: Int[Array, ""]
) -> Float[Array, ""]:
    """Learning rate at `step` divided by the peak rate, in [0, 1].

    constant: 1. step: 1, 0.1, 0.01 in the three thirds of the run. cosine: `(1 + cos(pi * step / total)) / 2`.
    one_cycle: from 1/25 to 1 over the first 30 % and down to 1/250,000 at the end, both along cosines (Smith and
    Topin 2019, in the form of `torch.optim.lr_scheduler.OneCycleLR`).

    Args:
        kind: shape of the schedule.
        total_steps: length of the run, in steps.
        step: steps already taken.
    """
    match kind:
        case "constant":
            return jnp.ones(())
        case "step":
            boundaries = {max(total_steps // 3, 1): 0.1, max(2 * total_steps // 3, 2): 0.1}
            return jnp.asarray(optax.piecewise_constant_schedule(1.0, boundaries)(step), jnp.float32)
        case "cosine":
            return jnp.asarray(optax.cosine_decay_schedule(1.0, max(total_steps, 1))(step), jnp.float32)
        case "one_cycle":
            cycle = optax.cosine_onecycle_schedule(max(total_steps, 4), 1.0, 0.3, 25.0, 1e4)
            return jnp.asarray(cycle(step), jnp.float32)
