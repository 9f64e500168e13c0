# SPDX-License-Identifier: Apache-2.0
"""The table of collapse as Markdown: measures down, splits and levels across."""

from typing import Any

MEASURES = {
    "nc1": "NC1, tr(S_W S_B^+) / K",
    "nc1_ratio": "NC1 ratio, tr S_W / tr S_B",
    "separation": "separation D, tr(S_W S_B^+)",
    "cdnv": "CDNV",
    "vci": "VCI",
    "nc2_equinorm": "NC2: lengths of the means, sd / mean",
    "nc2_equiangularity": "NC2: cosines of the means, sd",
    "nc2_angle": "NC2: mean of abs(cosine + 1/(K-1))",
    "nc2_etf": "NC2: distance to the simplex ETF",
    "nc3": "NC3: classifier and means",
    "nc3_etf": "NC3: W M^T to the simplex ETF",
    "nc3_equinorm": "NC3: lengths of the rows of W, sd / mean",
    "nc4": "NC4: nearest mean and classifier differ",
    "effective_rank_means": "effective rank of the means",
    "effective_rank_within": "effective rank inside classes",
    "cosine_spectrum": "cosine spectrum of the means",
}
WITHIN = {
    "distance_same_class": "squared distance: same class",
    "distance_merged_classes": "squared distance: merged classes",
    "distance_other_classes": "squared distance: other super-classes",
    "explained_variance": "variance inside super-classes explained by fine labels",
    "explained_by_super_class": "the same, by super-class",
    "silhouette": "silhouette of fine classes (squared Euclidean)",
    "silhouette_cosine": "silhouette of fine classes (cosine)",
    "c1": "Carbonnelle c1",
    "c2": "Carbonnelle c2",
    "c3": "Carbonnelle c3",
    "c4": "Carbonnelle c4",
}
PROBES = {
    "logistic_test": "logistic probe",
    "ridge_test": "ridge probe",
    "knn_test": "{knn_neighbours} nearest neighbours",
    "few_shot_test": "{few_shot_shots}-shot nearest mean",
}
MISSING = "–"


def collapse_summary(content: dict[str, Any]) -> str:
    """Markdown of what `ncjax evaluate FILE` found; ± is the standard deviation over resamples of the examples."""
    parts = []
    for layer in content["layers"]:
        title = f"{layer['file']}: " if len(content["layers"]) > 1 else ""
        if layer["bootstrap"]:
            title += f"± over {layer['bootstrap']} resamples of the examples"
        parts += [title.strip(": ")] if title else []
        parts += [_levels(layer), _within(layer), _accuracies(layer)]
        parts += ["Left out:\n\n" + "\n".join(f"- {line}" for line in layer["left_out"])] if layer["left_out"] else []
    if content["separation_law"]:
        lines = [["law of separation", "slope of log D a layer", "R2"]]
        lines += [[name, _text(law["slope"]), _text(law["r2"])] for name, law in content["separation_law"].items()]
        parts.append(_markdown(lines))
    return "\n\n".join(part for part in parts if part)


def _levels(layer: dict[str, Any]) -> str:
    columns = [(split, part) for split in layer["collapse"] for part in ("coarse", "fine")]
    columns = [(split, part) for split, part in columns if part in layer["collapse"][split]]
    lines = [["measure", *(f"{part}, {split}" for split, part in columns)]]
    lines += [
        [title, *(_cell(layer, split, part, name) for split, part in columns)] for name, title in MEASURES.items()
    ]
    for split in layer["collapse"]:
        lines.append([f"effective rank of all, {split}", _cell(layer, split, "all", "effective_rank")])
        lines[-1] += [""] * (len(columns) - 1)
    return _markdown(lines) if columns else ""


def _within(layer: dict[str, Any]) -> str:
    splits = [split for split, parts in layer["collapse"].items() if "within" in parts]
    lines = [["inside super-classes", *splits]]
    lines += [[title, *(_cell(layer, split, "within", name) for split in splits)] for name, title in WITHIN.items()]
    return _markdown(lines) if splits else ""


def _accuracies(layer: dict[str, Any]) -> str:
    probes = layer["probes"]
    lines = [["test accuracy on fine labels", "%"]]
    lines += [[title.format(**probes), f"{100 * probes[name]:.1f}"] for name, title in PROBES.items() if probes]
    lines += [[f"CLP: {view}", f"{100 * found['test_accuracy']:.1f}"] for view, found in layer["clp"].items()]
    return _markdown(lines) if len(lines) > 1 else ""


def _cell(layer: dict[str, Any], split: str, part: str, name: str) -> str:
    value = layer["collapse"][split][part][name]
    spread = ((layer["collapse_std"] or {}).get(split, {}).get(part, {})).get(name)
    if isinstance(value, list):
        return " ".join(_text(x) for x in value[:10]) + (" ..." if len(value) > 10 else "")
    return _text(value) if value is None or spread is None else f"{_text(value)} ± {spread:.1g}"


def _text(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g}"


def _markdown(lines: list[list[str]]) -> str:
    head, *body = lines
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))
