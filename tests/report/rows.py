# SPDX-License-Identifier: Apache-2.0
"""Typed results with known numbers, and the work directories that hold them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ncjax.report import templates
from ncjax.report.groups import Quantity
from ncjax.report.templates import Drawn
from ncjax.results import Evaluation, Measurement, MetricInfo, Provenance, Row, ViewInfo
from ncjax.storage.metrics import Record

UNDRAWN = Drawn("<svg></svg>", "{}", "data:,", "data:,")
METRICS = {
    "accuracy": MetricInfo(label="accuracy on the labels of training", scope="accuracy", better="higher"),
    "probe": MetricInfo(label="logistic probe", scope="probe", better="higher"),
    "probe_gradient_norm": MetricInfo(label="gradient norm", scope="probe", better="lower"),
    "clp": MetricInfo(label="CLP", scope="clp", better="higher"),
    "clp_oracle": MetricInfo(label="CLP, matched on the test set", scope="clp"),
    "cluster_accuracy": MetricInfo(label="accuracy of the clusters", scope="clp", better="higher"),
    "cluster_ari": MetricInfo(label="ARI", scope="clp", better="higher"),
    "cluster_nmi": MetricInfo(label="NMI", scope="clp", better="higher"),
    "nc1": MetricInfo(label="NC1, tr(S_W S_B^+) / K", scope="level", short="NC1", low=0.0, better="lower"),
    "nc1_ratio": MetricInfo(label="NC1 ratio", scope="level"),
    "nc3": MetricInfo(label="NC3: classifier and means", scope="level", short="NC3", low=0.0, high=2.0),
    "cosine_spectrum": MetricInfo(label="cosine spectrum", scope="level"),
    "effective_rank": MetricInfo(label="effective rank of all", scope="all"),
    "silhouette": MetricInfo(
        label="silhouette of fine classes", scope="within", short="silhouette", low=-1.0, high=1.0
    ),
    "explained_by_super_class": MetricInfo(label="the same, by super-class", scope="within"),
}
VIEWS = {"raw": ViewInfo(label="raw features"), "tsne": ViewInfo(label="t-SNE")}
COARSE_TEST = Quantity("accuracy", "test", "coarse")
Values = Mapping[Quantity, float | None]


def clp(view: str = "raw") -> Quantity:
    return Quantity("clp", view=view)


def numbers(accuracy: float = 0.8) -> dict[Quantity, float | None]:
    """What the main tables show of one network, with a CLP of this accuracy."""
    scores = {Quantity(f"cluster_{name}", "train", view="raw"): 0.5 for name in ("accuracy", "ari", "nmi")}
    distances = {"same_class": 1.0, "merged_classes": 2.0, "other_classes": 9.0}
    return {
        Quantity("accuracy", "train", "coarse"): 0.99,
        COARSE_TEST: 0.9,
        Quantity("probe", "train"): 0.98,
        Quantity("probe", "test"): 0.85,
        Quantity("nc1", "train", "coarse"): 0.0123,
        Quantity("nc1", "test", "coarse"): 0.2,
        Quantity("nc1", "train", "fine"): 1.5,
        Quantity("nc1", "test", "fine"): 2.5,
        **{Quantity(f"distance_{name}", "train", "within"): value for name, value in distances.items()},
        clp(): accuracy,
        Quantity("clp_oracle", view="raw"): accuracy + 0.01,
        **scores,
    }


def measure(values: Values, stds: Values | None = None) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(
            metric=q.metric,
            split=q.split,
            level=q.level,
            view=q.view,
            index=q.index,
            value=value,
            std=(stds or {}).get(q),
        )
        for q, value in values.items()
    )


def make_row(kind: str = "trained", seed: int = 0, accuracy: float = 0.8, **fields: object) -> Row:
    """A member of the run, or a control; `values` are those of `numbers` where they are not given."""
    setting = {"label_map": "mod:5", "lr": 0.1, "weight_decay": 5e-4, "epoch": 20, "member": seed} | fields
    values = setting.pop("values", None) or numbers(accuracy)
    stds = setting.pop("stds", None)
    name = f"{setting['label_map']}/lr={setting['lr']:g}/wd={setting['weight_decay']:g}/seed={seed}"
    common = {"name": name, "class_distances": ((1.0, 2.0), (2.0, 1.0)), "measurements": measure(values, stds)}
    return Row(kind=kind, seed=seed, **(common | setting))


def changed(row: Row, values: Values, stds: Values | None = None) -> Row:
    """A row with other, or more, measurements."""
    new = measure(values, stds)
    names = {(m.metric, m.split, m.level, m.view) for m in new}
    kept = tuple(m for m in row.measurements if (m.metric, m.split, m.level, m.view) not in names)
    return replace(row, measurements=(*kept, *new))


def make_evaluation(rows: Sequence[Row], *, notes: Sequence[str] = (), **provenance: object) -> Evaluation:
    return Evaluation(
        rows=tuple(rows),
        metrics=METRICS,
        views=VIEWS,
        notes=tuple(notes),
        provenance=Provenance(**({"name": "toy", "dataset": "digits"} | provenance)),
    )


def make_workdir(folder: Path, rows: Sequence[Row], *, notes: Sequence[str] = (), **provenance: object) -> Path:
    (folder / "results").mkdir(parents=True)
    evaluation = make_evaluation(rows, notes=notes, **provenance)
    (folder / "results" / "evaluation.json").write_text(evaluation.to_json())
    return folder


def write_metrics(folder: Path, records: Sequence[Record]) -> None:
    (folder / "metrics.jsonl").write_text("".join(record.to_json() + "\n" for record in records))


def make_record(step: int, members: int, failed: Sequence[int] = ()) -> Record:
    """Curves of members `m0`, `m1`, ...; the training loss of some is not a number."""
    names = [f"m{number}" for number in range(members)]
    curves = {
        f"{split}_{what}": dict.fromkeys(names, 0.5) for split in ("train", "test") for what in ("loss", "accuracy")
    }
    curves["train_loss"] |= {names[number]: float("nan") for number in failed}
    return Record(step=step, epoch=step // 10, wall_secs=float(step), values=curves)


def write_run_file(folder: Path, config: Mapping[str, object]) -> None:
    (folder / "config.json").write_text(json.dumps({"config": config, "command": "ncjax train", "versions": {}}))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, for tests of their words: charts take a second each, and have tests of their own."""
    monkeypatch.setattr(templates, "draw", lambda figure: UNDRAWN)
    monkeypatch.setattr(templates, "bundle", lambda: "")
