# SPDX-License-Identifier: Apache-2.0
"""Verbs that begin with a config: it is found by path or by name, and its values are the defaults of the overrides."""

import functools
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from ncjax.cli.parsing import asks_help, flags_of, options_in, parse
from ncjax.config import Config, load_config_of
from ncjax.errors import UserError, did_you_mean
from ncjax.paths import user_path
from ncjax.tables import names_of

C = TypeVar("C")
T = TypeVar("T")
READ_BY = {  # fields that some names of another field alone read
    "data.tfds_name": ("data.source", ("tfds",)),
    "model.dense_blocks": ("model.name", ("densenet",)),
    "loss.label_smoothing": ("loss.name", ("cross_entropy",)),
    "loss.true_weight": ("loss.name", ("squared_error",)),
    "loss.true_value": ("loss.name", ("squared_error",)),
    "optim.momentum": ("optim.name", ("sgd",)),
    "optim.nesterov": ("optim.name", ("sgd",)),
    "optim.beta1": ("optim.name", ("adamw",)),
    "optim.beta2": ("optim.name", ("adamw",)),
}
FIELD = re.compile(r"[a-z_]+(?:\.[a-z_]+)*")


@dataclass(frozen=True)
class Start(Generic[C]):
    """What the first argument of a verb leads to.

    Attributes:
        verb: the command so far, for help and messages.
        config: whose values are the defaults.
        rest: the other arguments.
    """

    verb: str
    config: C
    rest: Sequence[str]


def start(verb: str, arguments: Sequence[str]) -> Start[Config]:
    """Reads the experiment that the first argument names; where that is an option, the config has its defaults.

    Args:
        verb: the command without `ncjax`.
        arguments: what follows it.

    Raises:
        UserError: there is no argument, or it names no experiment.
    """
    return start_of(Config, verb, arguments, "coarse_cifar10_cpu")


def start_of(kind: type[C], verb: str, arguments: Sequence[str], example: str) -> Start[C]:
    """`start` for another kind of config.

    Args:
        kind: what the config must be.
        verb: the command without `ncjax`.
        arguments: what follows it.
        example: a shipped config of this kind, for the message.

    Raises:
        UserError: there is no argument, or it names no config of this kind.
    """
    if not arguments:
        raise UserError(f"ncjax {verb} needs a config file or the name of a shipped config: ncjax {verb} {example}")
    if arguments[0].startswith("-"):
        return Start(f"{verb} CONFIG", kind(), arguments)
    return Start(f"{verb} {arguments[0]}", load_config_of(kind, find_config(arguments[0])), arguments[1:])


def find_config(name: str) -> Path:
    """Returns the file of a config: the path itself, or the file of the shipped config of this name.

    Raises:
        UserError: there is neither.
    """
    path, shipped = user_path(name), shipped_configs()
    if path.is_file():
        return path
    if name in shipped:
        return shipped[name]
    known = ", ".join(shipped)
    close = did_you_mean(name, shipped)
    raise UserError(f"no config file at {name}, and no shipped config of this name{close}; shipped are: {known}")


def shipped_configs() -> dict[str, Path]:
    """Returns the files of the package ncjax.configs by the names of their configs."""
    found = (Path(str(file)) for file in files("ncjax.configs").iterdir())
    return {file.stem: file for file in sorted(found) if file.suffix == ".py" and not file.stem.startswith("_")}


def config_and_workdir(begun: Start[Config]) -> tuple[Config, Path]:
    """Parses the overrides of an experiment and its work directory.

    Raises:
        UserError: they do not fit.
    """

    def options(
        config: Annotated[Config, tyro.conf.arg(name="")] = begun.config, workdir: Path | None = None
    ) -> tuple[Config, Path]:
        """An ensemble of members: labels x learning rates x weight decays x seeds.

        Args:
            config: The experiment.
            workdir: Where everything is written [path; none: runs/NAME].
        """
        return config, workdir_of(config.name, workdir)

    return parse_config(begun, options)


def parse_config(begun: Start[Config], options: Callable[..., T]) -> T:
    """`parse` for a function with an argument `config`, an experiment; the help ends with the names that tables know.

    Raises:
        UserError: as `parse`; of a field, with its option. Or an option was set that the experiment does not read.
    """
    flags = {name.replace("_", "-").replace(".no-", ".") for name, *_ in options_in(begun.rest)}

    @functools.wraps(options)
    def checked(*values: Any, config: Config, **named: Any) -> T:
        check_applies(config, flags)
        return options(*values, config=config, **named)

    with naming_flags(Config):
        return parse(begun.verb, checked, begun.rest, known_names if asks_help(begun.rest) else None)


def check_applies(config: Config, flags: Collection[str]) -> None:
    """Refuses options that the chosen source, network, loss or optimizer of ncjax does not read.

    Args:
        config: the experiment.
        flags: the options that were set.

    Raises:
        UserError: one was set in vain; it is named, and what would read it.
    """
    for field, (chooser, readers) in READ_BY.items():
        flag, chosen = f"--{field.replace('_', '-')}", operator.attrgetter(chooser)(config)
        if flag in flags and chosen not in readers and chosen in _table(chooser):
            raise UserError(f"{flag} does not apply: {chooser} {chosen} does not read it, but {', '.join(readers)}")
    if "--data.path" in flags and config.data.source in (table := _table("data.source")):
        source = table[config.data.source]
        if not getattr(source, "needs", True):
            raise UserError(f"--data.path does not apply: data.source {config.data.source} reads no files")


def _table(field: str) -> Mapping[str, object]:
    """The table of ncjax that resolves the names of a field."""
    return tables()[field][0]


def workdir_of(name: str, workdir: Path | None) -> Path:
    """Returns the work directory; None: runs/NAME."""
    return workdir or Path("runs") / name


@contextmanager
def naming_flags(kind: type[object]) -> Iterator[None]:
    """Adds to errors about fields of a config the options that set them."""
    try:
        yield
    except UserError as error:
        text, flags = str(error), flags_of(kind)
        named = [f"--{field.replace('_', '-')}" for field in _fields(text)]
        unsaid = [flag for flag in dict.fromkeys(named) if flag in flags and flag not in text]
        if not unsaid:
            raise
        raise UserError(f"{text.rstrip('.')}; change it in the config file or with {' or '.join(unsaid)}") from error


def _fields(text: str) -> list[str]:
    """What may be fields in a message: the word at its start, and all words with dots."""
    first = FIELD.match(text)
    dotted = [word for word in FIELD.findall(text) if "." in word]
    return [*([first[0]] if first else []), *dotted]


def known_names() -> str:
    """Returns the names that fields take, from the tables that resolve them."""
    named = {field: names_of(table, kind) for field, (table, kind) in tables().items()}
    lines = [f"  --{field:17}  {', '.join(names)}" for field, names in named.items() if names]
    return "\n".join(["known names:", *lines])


def tables() -> dict[str, tuple[Mapping[str, object], str]]:
    """Returns, for each field that takes a name, the table that resolves it and its key in `ncjax.tables.TABLES`."""
    from ncjax.data import SOURCES
    from ncjax.data.label_maps import LABEL_MAPS
    from ncjax.evaluation.views import VIEWS
    from ncjax.models import NETWORKS
    from ncjax.training.augmentation import AUGMENTATIONS
    from ncjax.training.losses import LOSSES
    from ncjax.training.optimizers import OPTIMIZERS
    from ncjax.training.schedules import SCHEDULES

    return {
        "data.source": (SOURCES, "data.source"),
        "data.augment": (AUGMENTATIONS, "data.augment"),
        "labels": (LABEL_MAPS, "label map"),
        "model.name": (NETWORKS, "model.name"),
        "loss.name": (LOSSES, "loss.name"),
        "optim.name": (OPTIMIZERS, "optim.name"),
        "optim.schedule": (SCHEDULES, "optim.schedule"),
        "evaluate.variants": (VIEWS, "view"),
        "evaluate.headline": (VIEWS, "view"),
    }
