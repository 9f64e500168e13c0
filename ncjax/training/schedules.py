# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules as a factor of the peak rate, and their table."""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ncjax.tables import find_named

Schedule = Callable[[Int[Array, ""], int], Float[Array, ""]]  # (steps already taken, length of the schedule) -> [0, 1]


def constant(step: Int[Array, ""], total_steps: int) -> Float[Array, ""]:
    """Returns 1 at every step."""
    del step, total_steps
    return jnp.ones(())


def thirds(step: Int[Array, ""], total_steps: int) -> Float[Array, ""]:
    """Returns 1, 0.1 and 0.01 in the three thirds of the run."""
    boundaries = {max(total_steps // 3, 1): 0.1, max(2 * total_steps // 3, 2): 0.1}
    return jnp.asarray(optax.piecewise_constant_schedule(1.0, boundaries)(step), jnp.float32)


def cosine(step: Int[Array, ""], total_steps: int) -> Float[Array, ""]:
    """Returns `(1 + cos(pi * step / total_steps)) / 2`."""
    return jnp.asarray(optax.cosine_decay_schedule(1.0, max(total_steps, 1))(step), jnp.float32)


def one_cycle(step: Int[Array, ""], total_steps: int) -> Float[Array, ""]:
    """Rises from 1/25 to 1 over the first 30 % and falls to 1/250,000 at the end, both along cosines.

    Source: Smith and Topin 2019, in the form of `torch.optim.lr_scheduler.OneCycleLR`.
    """
    cycle = optax.cosine_onecycle_schedule(max(total_steps, 4), 1.0, 0.3, 25.0, 1e4)
    return jnp.asarray(cycle(step), jnp.float32)


def factor_at(
    schedule: Schedule, step: Int[Array, ""], length: int, total_steps: int, warmup_steps: int = 0
) -> Float[Array, ""]:
    """The factor of the peak rate at a step of a run; from step `length` on, that of the step before `length`.

    In the first `warmup_steps` steps it is multiplied by `(step + 1) / warmup_steps`: the linear warm-up of Goyal et
    al. 2017, for large batches.
    """
    at = jnp.minimum(step, length - 1) if length < total_steps else step
    factor = jnp.asarray(schedule(at, length), jnp.float32)
    return factor * jnp.minimum(1.0, (step + 1) / warmup_steps).astype(jnp.float32) if warmup_steps else factor


SCHEDULES: dict[str, Schedule] = {"constant": constant, "step": thirds, "cosine": cosine, "one_cycle": one_cycle}


def find_schedule(name: str) -> Schedule:
    """The schedule of this name in `SCHEDULES`.

    Raises:
        UserError: the name is unknown.
    """
    return find_named(SCHEDULES, name, "optim.schedule")
