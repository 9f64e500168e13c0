# SPDX-License-Identifier: Apache-2.0
"""A section of a page."""

from typing import NamedTuple

from ncjax.report.example_figures import ClusterImages
from ncjax.report.figure import Figure
from ncjax.report.table import Table


class Section(NamedTuple):
    """A title with what stands under it."""

    name: str
    title: str
    lead: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    clusters: tuple[ClusterImages, ...] = ()
