# SPDX-License-Identifier: Apache-2.0
"""The experiments of the results page by name: what they cost, what is finished, and the page made of their results.

`running.run_experiments` trains and evaluates, `page.write_page` writes docs/results.md.
"""

from ncjax.reproduce.experiment import SCALES, Experiment, Piece
from ncjax.reproduce.experiments import all_experiments, find_experiments

__all__ = ["SCALES", "Experiment", "Piece", "all_experiments", "find_experiments"]
