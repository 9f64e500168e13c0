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
from ncjax.report.groups import KINDS, UNTRAINED, Group, Quantity, group_rows, last_epochs
from ncjax.report.main_result import CEILING, COARSE_TEST, clp
from ncjax.report.markdown import markdown_table
from ncjax.report.number_formats import percent
from ncjax.results import Evaluation
from ncjax.storage.npy import load_npz

CONFIG = "shifted_digits"
LABEL_MAP = "mod:5"
FEATURES = Path(str(files("ncjax"))) / "data" / "coarse_cifar10_features.npz"
CONTROLS = (*UNTRAINED, "shuffled")
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


class Act(NamedTuple):
    """One network or several that were trained on coarse labels, and what they are compared with."""

    trained: Scores
    others: Mapping[str, Scores]  # controls, and in act two networks on fine labels, by what they are
    fine: tuple[float, ...]  # test accuracy of networks that were trained on fine labels, on these


def demo_verb(arguments: Sequence[str]) -> None:
    """Shows the effect in two acts, and says in two sentences what was shown."""
    config, workdir = config_and_workdir(Start("demo", load_config(find_config(CONFIG)), arguments))
    print_text(f"{BEGINNING}\n{ACT_ONE}")
    load_jax()
    from ncjax.distributed.processes import on_main_process

    one, sources = _act_one()
    on_main_process(lambda: print_text(_act_one_text(one, sources)))
    members = len(config.labels) * len(config.optim.lr) * len(config.optim.weight_decay) * config.seeds
    on_main_process(lambda: print_text(ACT_TWO.format(members=members)))
    run = train_config(config, workdir, command("demo", arguments))
    with naming_flags(Config):
        found = run_evaluation(run)
    two = _act_two(found, config.evaluate.headline)
    on_main_process(lambda: _finish(workdir, one, two))


def _finish(workdir: Path, one: Act, two: Act) -> None:
    with stage("report", str(workdir)):
        from ncjax.report import write_report

        page = write_report(workdir)
    print_text(f"\n{_table(two)}\n\nreport: {page.absolute()}\n\n{_first_sentence(one)}\n\n{_second_sentence(two)}")


def _act_one() -> tuple[Act, str]:
    """Evaluates the features of the package; where they and the controls come from is the second thing returned."""
    from ncjax.pipeline import evaluate_files

    content = json.loads(str(load_npz(FEATURES, lambda names: ["provenance"])["provenance"]))
    controls = content["controls"]
    found = evaluate_files([FEATURES], label_map=LABEL_MAP, views=(EvaluateConfig.headline,), bootstrap=0)
    act = Act(
        trained=_scores(group_rows(found.rows)[0], EvaluateConfig.headline),
        others={
            KINDS[kind]: Scores(*((controls["scores"][kind][name],) for name in Scores._fields)) for kind in UNTRAINED
        },
        fine=(content["fine_label_network"]["test_accuracy"],),
    )
    sources = (
        f"Features: {content['network']}; {content['training']}; {content['hardware']}; {content['pictures']}; "
        f"{content['kept']}.\n\n"
        f"Controls: {controls['command']}: {controls['network']}, {controls['pictures']}."
    )
    return act, sources


def _act_two(found: Evaluation, view: str) -> Act:
    """The networks and controls at the last epoch; of several settings of a kind the first."""
    groups = {group.kind: group for group in reversed(last_epochs(group_rows(found.rows)))}
    scores = {kind: _scores(groups[kind], view) for kind in KINDS if kind in groups}
    return Act(
        trained=scores.pop("trained", Scores((), (), ())),
        others={KINDS[kind]: of for kind, of in scores.items()},
        fine=groups["fine"].values(COARSE_TEST) if "fine" in groups else (),
    )


def _scores(group: Group, view: str) -> Scores:
    clusters = group.values(Quantity("cluster_accuracy", "train", view=view))
    return Scores(clusters, group.values(clp(view)), group.values(CEILING))


def _act_one_text(one: Act, sources: str) -> str:
    clusters, names, probe = one.trained.cells()
    real = f"\nreal features: clusters {clusters} %, CLP {names} %, probe on true labels {probe} %"
    return f"{real}\n\n{_table(one)}\n\n{sources}"


def _table(act: Act) -> str:
    scores = {KINDS["trained"]: act.trained, **act.others}
    return markdown_table([HEAD, *([name, *of.cells()] for name, of in scores.items())])


def _first_sentence(one: Act) -> str:
    return _sentence("A ResNet-18 that saw only five coarse labels of CIFAR-10", one)


def _second_sentence(two: Act) -> str:
    count = len(two.trained.clp)
    seeds = f"{count} seed{'s' * (count != 1)}"
    return _sentence(f"Networks trained here on five coarse labels of shifted digits ({seeds})", two)


def _sentence(who: str, act: Act) -> str:
    clusters, names, probe = act.trained.cells()
    controls = ", ".join(f"{KINDS[x]} {act.others[KINDS[x]].cells()[0]} %" for x in CONTROLS if KINDS[x] in act.others)
    return (
        f"{who} kept the ten classes apart: clusters inside the super-classes are {clusters} % right ({controls}; "
        f"chance is 50 %), and CLP names the class of {names} % of the test pictures, against {probe} % of a probe on "
        f"the true labels and {percent(act.fine)} % of training on the ten classes."
    )
