# SPDX-License-Identifier: Apache-2.0
"""`ncjax demo`: the effect on features of CIFAR-10 that travel in the package, then made here from digits."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from ncjax.cli.analysis import run_evaluation
from ncjax.cli.configs import Start, config_and_workdir, find_config, naming_flags
from ncjax.cli.parsing import command
from ncjax.cli.progress import load_jax
from ncjax.cli.tables import print_text
from ncjax.cli.training import train_config
from ncjax.config import Config, EvaluateConfig, load_config
from ncjax.events import stage
from ncjax.report.groups import KINDS, Group, Quantity, group_rows, last_epochs, percent
from ncjax.report.main_result import CEILING, clp
from ncjax.report.markdown import markdown_table
from ncjax.results import Evaluation
from ncjax.storage.npy import load_npz

CONFIG = "shifted_digits"
LABEL_MAP = "mod:5"
FEATURES = Path(str(files("ncjax"))) / "data" / "coarse_cifar10_features.npz"
RANDOM, PIXELS = KINDS["random_init"], KINDS["raw_pixels"]
HEAD = ["network", "clusters", "CLP", "probe on true labels"]
BEGINNING = """ncjax demo: what a network knows of classes that nobody told it.

CIFAR-10 has ten classes; the networks here saw five, each of them two classes merged. Their features are clustered
inside each of the five: 50 % right is chance. CLP is a linear classifier on these clusters, scored on test pictures
against the ten classes."""
ACT_ONE = """
Act one: a ResNet-18 of real pictures. Its features are evaluated now; the controls were measured before."""
ACT_TWO = """
Act two: the effect made here, from scikit-learn's digits at random places ({members} networks)."""


class Scores(NamedTuple):
    """Of networks alike, one number each [0 to 1]."""

    clusters: tuple[float, ...]  # training examples whose cluster is that of their class
    clp: tuple[float, ...]
    probe: tuple[float, ...]

    def cells(self) -> list[str]:
        """Returns means and spreads in per cent."""
        return [percent(values) for values in self]


class ActOne(NamedTuple):
    """Of the features in the package."""

    trained: Scores
    controls: Mapping[str, Scores]  # by what they are
    fine: float  # test accuracy of the network that was trained on fine labels
    sources: tuple[str, str]  # where the features and the controls come from


def demo_verb(arguments: Sequence[str]) -> None:
    """Shows the effect in two acts, and says in two sentences what was shown."""
    config, workdir = config_and_workdir(Start("demo", load_config(find_config(CONFIG)), arguments))
    print(f"{BEGINNING}\n{ACT_ONE}", flush=True)
    load_jax()
    from ncjax.distributed.processes import on_main_process

    one = _act_one()
    on_main_process(lambda: print_text(_act_one_text(one)))
    members = len(config.labels) * len(config.optim.lr) * len(config.optim.weight_decay) * config.seeds
    on_main_process(lambda: print(ACT_TWO.format(members=members), flush=True))
    run = train_config(config, workdir, command("demo", arguments))
    with naming_flags(Config):
        found = run_evaluation(run)
    two = _act_two(found, config.evaluate.headline)
    on_main_process(lambda: _finish(workdir, one, two))


def _finish(workdir: Path, one: ActOne, two: Mapping[str, Scores]) -> None:
    with stage("report", str(workdir)):
        from ncjax.report import write_report

        page = write_report(workdir)
    print_text(f"\n{_table(two)}\n\nreport: {page.absolute()}\n\n{_first_sentence(one)}\n\n{_second_sentence(two)}")


def _act_one() -> ActOne:
    """Evaluates the features of the package."""
    from ncjax.pipeline import evaluate_files

    content = json.loads(str(load_npz(FEATURES, lambda names: ["provenance"])["provenance"]))
    measured = content["controls"]["scores"]
    found = evaluate_files([FEATURES], label_map=LABEL_MAP, views=(EvaluateConfig.headline,), bootstrap=0)
    controls = {kind: measured[kind] for kind in (RANDOM, PIXELS)}
    return ActOne(
        trained=_scores(group_rows(found.rows)[0], EvaluateConfig.headline),
        controls={
            kind: Scores(*(tuple(one[name] for one in networks) for name in Scores._fields))
            for kind, networks in controls.items()
        },
        fine=content["fine_label_network"]["test_accuracy"],
        sources=(
            f"{content['network']}; {content['training']}; {content['hardware']}; {content['pictures']}; "
            f"{content['kept']}.",
            f"{content['controls']['command']}, on {content['controls']['pictures']}.",
        ),
    )


def _act_two(found: Evaluation, view: str) -> dict[str, Scores]:
    """The networks and controls at the last epoch, by what they are; of several settings of a kind the first."""
    groups = last_epochs(group_rows(found.rows))
    return {KINDS.get(group.kind, group.kind): _scores(group, view) for group in reversed(groups)}


def _scores(group: Group, view: str) -> Scores:
    clusters = group.values(Quantity("cluster_accuracy", "train", view=view))
    return Scores(clusters, group.values(clp(view)), group.values(CEILING))


def _act_one_text(one: ActOne) -> str:
    scores = {KINDS["trained"]: one.trained, **one.controls}
    clusters, names, probe = one.trained.cells()
    features, controls = one.sources
    return "\n\n".join(
        (
            f"\nreal features: clusters {clusters} %, CLP {names} %, probe on true labels {probe} %",
            _table(scores),
            f"A network that was trained on the ten classes has {100 * one.fine:.1f} % on the test set.",
            f"Features: {features}",
            f"Controls: {controls}",
        )
    )


def _table(scores: Mapping[str, Scores]) -> str:
    return markdown_table([HEAD, *([name, *of.cells()] for name, of in scores.items())])


def _first_sentence(one: ActOne) -> str:
    return _sentence(
        "A ResNet-18 that saw only five coarse labels of CIFAR-10",
        one.trained,
        one.controls,
        f"{100 * one.fine:.1f} % of a network that was trained on the ten classes",
    )


def _second_sentence(two: Mapping[str, Scores]) -> str:
    controls = {name: two[name] for name in (RANDOM, PIXELS, KINDS["shuffled"]) if name in two}
    trained, fine = (two.get(KINDS[kind], Scores((), (), ())) for kind in ("trained", "fine"))
    seeds = len(trained.clp)
    return _sentence(
        f"Networks trained here on five coarse labels of digits ({seeds} {'seed' if seeds == 1 else 'seeds'})",
        trained,
        controls,
        f"{percent(fine.clp)} % of CLP on networks that were trained on the ten classes",
    )


def _sentence(who: str, trained: Scores, controls: Mapping[str, Scores], fine: str) -> str:
    clusters, names, probe = trained.cells()
    others = ", ".join(f"{name} {scores.cells()[0]} %" for name, scores in controls.items())
    return (
        f"{who} kept the ten classes apart: clusters inside its super-classes are {clusters} % right ({others}; chance "
        f"is 50 %), and CLP names the class of {names} % of the test pictures, where a probe on the true labels names "
        f"{probe} %, and {fine}."
    )
