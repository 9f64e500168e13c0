# SPDX-License-Identifier: Apache-2.0
"""The measures of collapse in float64 NumPy, from the formulas and example by example, to compare with."""

import numpy as np
from sklearn.metrics import silhouette_samples


def moments(x, y):
    """Class means from their mean, and the covariances inside and between classes."""
    x, classes = x.astype(np.float64), np.unique(y)
    means = np.stack([x[y == c].mean(0) for c in classes])
    residual = x - means[np.searchsorted(classes, y)]
    centred = means - means.mean(0)
    return centred, residual.T @ residual / len(x), centred.T @ centred / len(classes)


def effective_rank(values):
    p = np.maximum(values, 0) / np.maximum(values, 0).sum()
    p = p[p > 0]
    return np.exp(-(p * np.log(p)).sum())


def level(x, y):
    means, within, between = moments(x, y)
    k, x = len(means), x.astype(np.float64)
    rank = min(k - 1, x.shape[1])
    values, vectors = np.linalg.eigh(between)
    top = vectors[:, -rank:] / np.sqrt(values[-rank:])
    nc1 = np.trace(top.T @ within @ top) / k
    variances = np.array([((x[y == c] - x[y == c].mean(0)) ** 2).sum(1).mean() for c in np.unique(y)])
    pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
    apart = {(i, j): ((means[i] - means[j]) ** 2).sum() for i, j in pairs}
    lengths = np.linalg.norm(means, axis=1)
    cosines = means @ means.T / np.outer(lengths, lengths)
    off = np.array([cosines[i, j] for i, j in pairs])
    gram, frame = means @ means.T, (np.eye(k) - 1 / k) / np.sqrt(k - 1)
    return {
        "nc1": nc1,
        "nc1_ratio": np.trace(within) / np.trace(between),
        "separation": nc1 * k,
        "cdnv": np.mean([(variances[i] + variances[j]) / (2 * apart[i, j]) for i, j in pairs]),
        "vci": 1 - np.trace(np.linalg.pinv(within + between) @ between) / rank,
        "nc2_equinorm": lengths.std() / lengths.mean(),
        "nc2_equiangularity": off.std(),
        "nc2_angle": np.abs(off + 1 / (k - 1)).mean(),
        "nc2_etf": np.linalg.norm(gram / np.linalg.norm(gram) - frame),
        "effective_rank_means": effective_rank(np.linalg.svd(means)[1] ** 2),
        "effective_rank_within": effective_rank(np.linalg.eigvalsh(within)),
        "cosine_spectrum": np.linalg.eigvalsh(cosines)[::-1],
    }


def duality(x, y, weights):
    means, _, _ = moments(x, y)
    k, weights = len(means), weights.astype(np.float64)
    product, lengths = weights @ means.T, np.linalg.norm(weights, axis=1)
    frame = (np.eye(k) - 1 / k) / np.sqrt(k - 1)
    return {
        "nc3": np.linalg.norm(weights / np.linalg.norm(weights) - means / np.linalg.norm(means)),
        "nc3_etf": np.linalg.norm(product / np.linalg.norm(product) - frame),
        "nc3_equinorm": lengths.std() / lengths.mean(),
    }


def nc4(x, means, weights, bias):
    x = x.astype(np.float64)
    nearest = ((x[:, None] - means[None]) ** 2).sum(-1).argmin(1)
    return (nearest != (x @ weights.T + bias).argmax(1)).mean()


def distance_matrix(x, y):
    groups = [x[y == c].astype(np.float64) for c in np.unique(y)]
    return np.array([[((a[:, None] - b[None]) ** 2).sum(-1).mean() for b in groups] for a in groups])


def within(x, fine, super_class):
    x, super_class = x.astype(np.float64), np.asarray(super_class)
    coarse, f = super_class[fine], len(super_class)
    distances = distance_matrix(x, fine)
    same = np.eye(f, dtype=bool)
    merged = (super_class[:, None] == super_class[None]) & ~same
    inside = {c: sum(((x[fine == j] - x[fine == j].mean(0)) ** 2).sum() for j in np.flatnonzero(super_class == c))
              for c in np.unique(coarse)}  # fmt: skip
    total = {c: ((x[coarse == c] - x[coarse == c].mean(0)) ** 2).sum() for c in np.unique(coarse)}
    several = [c for c in inside if (super_class == c).sum() > 1]
    return {
        "distance_same_class": distances[same].mean(),
        "distance_merged_classes": distances[merged].mean(),
        "distance_other_classes": distances[~merged & ~same].mean(),
        "explained_variance": 1 - sum(inside[c] for c in several) / sum(total[c] for c in several),
        "explained_by_super_class": [1 - inside[c] / total[c] if c in several else np.nan for c in inside],
        **silhouettes(x, fine, coarse, several),
        **intraclass(x, fine, coarse),
    }


def silhouettes(x, fine, coarse, several):
    found = {"sqeuclidean": np.full(len(x), np.nan), "cosine": np.full(len(x), np.nan)}
    for c in several:
        for metric, scores in found.items():
            scores[coarse == c] = silhouette_samples(x[coarse == c], fine[coarse == c], metric=metric)
    by_class = [found["cosine"][fine == j].mean() for j in np.unique(fine[np.isin(coarse, several)])]
    return {
        "silhouette": np.nanmean(found["sqeuclidean"]),
        "silhouette_cosine": np.nanmean(found["cosine"]),
        "c2": np.median(by_class),
    }


def intraclass(x, fine, coarse):
    """As measures.py of the authors has it: the 30 best neurons, features as they are; but deviations have a floor."""

    def best(values):
        return np.sort(values)[-30:].mean()

    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(lengths > 0, lengths, 1)
    selectivity = []
    for j in np.unique(fine):
        of, rest = x[fine == j], x[(coarse == coarse[fine == j][0]) & (fine != j)]
        if len(rest):
            deviations = np.maximum(of.std(0) + rest.std(0), 1e-4 * x.std(0))
            selectivity.append(best((of.mean(0) - rest.mean(0)) / deviations))
    groups = [coarse == c for c in np.unique(coarse)]
    return {
        "c1": np.median(selectivity),
        "c3": np.mean([best(x[group].std(0) / x.std(0)) for group in groups]),
        "c4": np.mean([(1 - unit[group] @ unit[group].T).std() for group in groups]) / (1 - unit @ unit.T).std(),
    }
