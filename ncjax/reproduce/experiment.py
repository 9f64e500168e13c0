# SPDX-License-Identifier: Apache-2.0
"""What an experiment is: pieces that are trained and finished one after the other, the most valuable first."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ncjax.config import Config, DataConfig, MeshConfig, ModelConfig, to_dict

Scale = Literal["try", "cores", "gpu", "slice"]
SCALES: dict[Scale, str] = {
    "try": "minutes on two cores",
    "cores": "two cores",
    "gpu": "one GPU",
    "slice": "a slice",
}  # the last ones are the sizes that results are of; the first one shows that the way works, and nothing else
SMALL_WIDTHS = {"densenet": 4, "mlp": 8}  # of networks that are tried; of others 4
TRIED_IMAGES, TRIED_TEST_IMAGES = 600, 200
TRY_MINUTES = 2.0


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Members that are trained, evaluated and finished together.

    Attributes:
        name: of the piece, one word; different within an experiment at a scale.
        config: whose members they are.
        setting: what the members of several pieces have in common; their results are one table. Empty: there is one.
        minutes: that it takes, an estimate; None: not known.
        measured: whether the estimate is from a rate that was measured on such a machine.
        controls: whether raw pixels are measured too.
        compare: whether PyTorch trains the same members.
    """

    name: str
    config: Config
    setting: str = ""
    minutes: float | None = None
    measured: bool = False
    controls: bool = False
    compare: bool = False

    @property
    def members(self) -> int:
        """How many finished members the piece makes; a comparison is finished as one."""
        config = self.config
        settings = len(config.optim.lr) * len(config.optim.weight_decay)
        return 1 if self.compare else len(config.labels) * settings * config.seeds


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment at every scale that it is defined at.

    Attributes:
        name: one word.
        question: that it answers, in one line.
        needs: folder or files that hold its data, as a person would name them; empty: none.
        pieces: of each scale, the most valuable first.
    """

    name: str
    question: str
    needs: str
    pieces: Mapping[Scale, tuple[Piece, ...]]

    def at(self, scale: Scale) -> tuple[Piece, ...]:
        """The pieces of a scale, none where it is not defined; `try` is a small form of the first one that is."""
        if scale != "try":
            return self.pieces.get(scale, ())
        first = next(self.pieces[one] for one in ("cores", "gpu", "slice") if self.pieces.get(one))
        return tuple(map(reduced, first))


def reduced(piece: Piece) -> Piece:
    """The same members on few images with a narrow network for two epochs: for trying the way, not for a number."""
    config = piece.config
    small = {"densenet": (2, 2)}.get(config.model.name, ModelConfig.dense_blocks)
    width = min(config.model.width, SMALL_WIDTHS.get(config.model.name, 4))
    tested = 0 if config.data.validation_fraction else TRIED_TEST_IMAGES
    config = dataclasses.replace(
        config,
        seeds=min(config.seeds, 2),
        data=dataclasses.replace(config.data, train_examples=TRIED_IMAGES, test_examples=tested),
        model=dataclasses.replace(config.model, width=width, dense_blocks=small),
        optim=dataclasses.replace(config.optim, epochs=2, schedule_epochs=0, batch=32, precision="float32"),
        mesh=MeshConfig(),
        evaluate=dataclasses.replace(
            config.evaluate, epochs=(0,) if config.evaluate.epochs else (), restarts=2, observe_epochs=0
        ),
        chunk_steps=4,
    )
    return dataclasses.replace(piece, config=config, minutes=TRY_MINUTES, measured=False)


def decisive(config: Config) -> Mapping[str, Any]:
    """What decides the numbers of a member: the config without where the data lie, what it runs on and who is beside.

    Members that differ by label map, learning rate, weight decay or seed have the same.
    """
    data = dataclasses.replace(config.data, path="", cache_dir="", streamed=DataConfig.streamed)
    evaluate = dataclasses.replace(
        config.evaluate, epochs=(), variants=("raw",), layers=("features",), control_maps=1, memory_gib=0.0
    )
    same = dataclasses.replace(
        config,
        name="",
        labels=("fine",),
        seeds=1,
        seed=0,
        data=data,
        optim=dataclasses.replace(config.optim, lr=(0.1,), weight_decay=(0.0,)),
        mesh=MeshConfig(),
        evaluate=evaluate,
        chunk_steps=1,
        checkpoint_minutes=0.0,
        checkpoint_epochs=0,
        tensorboard=False,
    )
    return to_dict(same)
