# SPDX-License-Identifier: Apache-2.0
"""How many classes a super-class seems to have: `python docs/choice_of_k.py FILE OUTPUT`, super-classes label modulo 5.

FILE is an npz file with train [n d] and train_y [n]. Prints the table of docs/kmeans.md; OUTPUT (JSON) is the evidence.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.cluster import choose_k
from ncjax.storage.workdir import write_json

MOST = 5

with np.load(sys.argv[1]) as stored:
    points, labels = stored["train"], stored["train_y"]
evidence = {}
print("| super-class | truth | silhouette | gap | eigen-gap |\n| --- | --- | --- | --- | --- |")
for group in range(5):
    inside = labels % 5 == group
    found = choose_k(jax.random.key(0), jnp.asarray(points[inside]), MOST, references=3)
    print(f"| {group} | {len(set(labels[inside]))} | {found.silhouette} | {found.gap} | {found.eigen_gap} |")
    evidence[group] = {name: np.nan_to_num(np.asarray(value)).tolist() for name, value in found._asdict().items()}
write_json(Path(sys.argv[2]), evidence)
