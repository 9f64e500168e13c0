# SPDX-License-Identifier: Apache-2.0
"""How many classes a super-class seems to have: `python docs/scripts/choice_of_k.py FILE OUTPUT`.

FILE is an npz file with train [n d] and train_y [n]; the super-class is the label modulo 5. Prints the table of
docs/kmeans.md; OUTPUT (JSON) is the evidence.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.cluster import choose_num_clusters
from ncjax.report.markdown import markdown_table
from ncjax.storage.atomic import write_json

MOST = 5


def main() -> None:
    """Choose, print, write."""
    with np.load(sys.argv[1]) as stored:
        points, labels = stored["train"], stored["train_y"]
    evidence: dict[int, dict[str, object]] = {}
    lines = [["super-class", "truth", "silhouette", "gap", "eigen-gap"]]
    for group in range(5):
        inside = labels % 5 == group
        found = choose_num_clusters(jax.random.key(0), jnp.asarray(points[inside]), MOST, references=3)
        chosen = (group, len(set(labels[inside])), found.silhouette, found.gap, found.eigen_gap)
        lines.append(list(map(str, chosen)))
        evidence[group] = {name: np.nan_to_num(np.asarray(value)).tolist() for name, value in found._asdict().items()}
    print(markdown_table(lines))
    write_json(Path(sys.argv[2]), evidence)


if __name__ == "__main__":
    main()
