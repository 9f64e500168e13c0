# SPDX-License-Identifier: Apache-2.0
"""The verbs of the command line in one table: their overview loads nothing, so that `ncjax --help` comes at once."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import NamedTuple

from ncjax.cli.columns import two_columns
from ncjax.errors import UserError, did_you_mean


class Verb(NamedTuple):
    """One verb.

    Attributes:
        usage: what follows its name.
        summary: what it does, in one line.
        function: `MODULE.NAME` in ncjax.cli, imported when the verb is used; it gets what follows the verb.
    """

    usage: str
    summary: str
    function: str


VERBS = {
    "demo": Verb("", "the effect in two acts: features of CIFAR-10, then made here from digits", "demo.demo_verb"),
    "run": Verb("CONFIG [overrides]", "train, evaluate and report", "training.run_verb"),
    "train": Verb("CONFIG [overrides]", "train or resume, and keep features", "training.train_verb"),
    "features": Verb("WORKDIR", "export the kept features as npz", "analysis.features_verb"),
    "evaluate": Verb(
        "WORKDIR | FILE --labels ...",
        "k-means, probes and collapse metrics of a run, or of files of features",
        "analysis.evaluate_verb",
    ),
    "report": Verb(
        "WORKDIR ...", "write report.html from the results and print the main tables", "analysis.report_verb"
    ),
    "status": Verb(
        "WORKDIR", "what a run is at: epochs, accuracies, time left, whether it is running", "status.status_verb"
    ),
    "compare": Verb(
        "CONFIG [overrides]",
        "the same training in PyTorch and in ncjax: speed, memory, accuracies, CLP",
        "exchange.compare_verb",
    ),
    "import": Verb(
        "CONFIG --checkpoints FILE ...",
        "PyTorch checkpoints as a run, ready for ncjax evaluate",
        "exchange.import_verb",
    ),
    "export": Verb(
        "WORKDIR", "a member's weights as a PyTorch state_dict (.pt or .safetensors)", "exchange.export_verb"
    ),
    "theory": Verb(
        "CONFIG [overrides]",
        "the synthetic setting: a sweep of Gaussian mixtures and shallow networks",
        "theory.theory_verb",
    ),
    "reproduce": Verb(
        "[NAME ...]", "the experiments of the results page: their cost, or run them", "reproduce.reproduce_verb"
    ),
    "bench": Verb("NAME", "measure speed", "benchmarks.bench_verb"),
    "data": Verb("", "list the sources of images: what is there, and what each needs", "datasets.data_verb"),
    "list": Verb(
        "[KIND]", "list experiments, sources, networks, label maps and views, one line each", "listing.list_verb"
    ),
}
OF_DATA = {
    "fetch": Verb("NAME", "download a data set into the cache folder, or prepare one of TFDS", "datasets.fetch_verb"),
}
BENCHMARKS = {
    "train": Verb(
        "CONFIG [overrides]",
        "images/s of one member, and of every way of running PyTorch",
        "benchmarks.bench_train_verb",
    ),
    "ensemble": Verb(
        "CONFIG [overrides]",
        "images/s of all members at once, and of one run after the other",
        "benchmarks.bench_ensemble_verb",
    ),
    "input": Verb(
        "CONFIG [overrides]",
        "images/s that streaming delivers, and that the training step consumes",
        "benchmarks.bench_input_verb",
    ),
    "kmeans": Verb("WORKLOAD", "seconds of k-means, scikit-learn, faiss and ott-jax", "benchmarks.bench_kmeans_verb"),
    "probe": Verb("", "seconds of linear probes, and of scikit-learn's", "benchmarks.bench_probe_verb"),
    "evaluate": Verb("", "seconds of a whole evaluation, and of scikit-learn's", "benchmarks.bench_evaluate_verb"),
    "collapse": Verb("", "seconds of all collapse metrics, and of one product X^T X", "benchmarks.bench_collapse_verb"),
    "theory": Verb("", "run-steps/s of the synthetic setting, and of PyTorch", "benchmarks.bench_theory_verb"),
    "accelerator": Verb(
        "",
        "on an accelerator: values, training, evaluation, ensembles and k-means",
        "benchmarks.bench_accelerator_verb",
    ),
    "startup": Verb("", "ncjax --help, and the demo on first and later starts", "benchmarks.bench_startup_verb"),
}
GROUPS = {
    "experiments": ("demo", "run", "reproduce"),
    "their stages, one by one": ("train", "status", "evaluate", "report", "features"),
    "data, and what else there is": ("data", "list"),
    "beside PyTorch": ("compare", "import", "export"),
    "the synthetic setting": ("theory",),
    "speed": ("bench",),
}  # of VERBS; those in no group are listed after them
INNER = {"bench": BENCHMARKS, "data": OF_DATA}  # tables of verbs that have verbs of their own
OVERRIDES = """
CONFIG is a Python file, or the name of a shipped config such as coarse_cifar10.
Overrides name its fields: --optim.lr 0.01 --seeds 8 --labels mod:5 fine. Each
verb has --help, which lists them with their units; ncjax --version says which
version this is. Progress is drawn on stderr; with --quiet none is."""
QUIET = "--quiet"  # of every verb


def dispatch(path: str, kind: str, verbs: Mapping[str, Verb], arguments: Sequence[str]) -> None:
    """Calls the verb that the first argument names with the others; without one, or for help, prints all of them.

    Args:
        path: the command so far, such as `ncjax bench`.
        kind: what its verbs are called in messages.
        verbs: the table.
        arguments: what follows the path.

    Raises:
        UserError: there is no verb of this name, or the verb raises it.
    """
    if shows_overview(arguments):
        print(overview(path, kind, verbs, GROUPS if verbs is VERBS else {}))
        return
    name, *rest = arguments
    if name not in verbs:
        raise UserError(f"unknown {kind} {name!r}{did_you_mean(name, verbs)}; known: {', '.join(verbs)}")
    module, function = verbs[name].function.split(".")
    call: Callable[[list[str]], None] = getattr(import_module(f"ncjax.cli.{module}"), function)
    call(rest)


def shows_overview(arguments: Sequence[str]) -> bool:
    """Returns whether `dispatch` prints all verbs."""
    return not arguments or arguments[0] in ("-h", "--help")


def overview(path: str, kind: str, verbs: Mapping[str, Verb], groups: Mapping[str, Sequence[str]]) -> str:
    """Returns a line for each verb, and for each of the verbs that a verb has, under the titles of groups."""
    grouped = {name for names in groups.values() for name in names}
    parts = {title: [name for name in names if name in verbs] for title, names in groups.items()}
    parts["others" if groups else ""] = [name for name in verbs if name not in grouped]
    rows = {title: {k: v for one in names for k, v in _rows(path, one, verbs[one])} for title, names in parts.items()}
    width = max(len(usage) for found in rows.values() for usage in found)
    text = [f"usage: {path} {kind.upper()} ..."]
    for title, found in rows.items():
        if found:
            text += ["", *([f"{title}:"] if title else []), two_columns(found, width)]
    return "\n".join([*text, OVERRIDES])


def _rows(path: str, name: str, verb: Verb) -> list[tuple[str, str]]:
    """The usage and the summary of a verb, then those of its own verbs."""
    inner = INNER.get(name, {}) if path == "ncjax" else {}
    own = [(f"{path} {name} {verb.usage}".strip(), verb.summary)]
    return own + [(f"{path} {name} {one} {found.usage}".strip(), found.summary) for one, found in inner.items()]
