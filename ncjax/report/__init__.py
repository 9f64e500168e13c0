# SPDX-License-Identifier: Apache-2.0
"""The HTML page and the tables of a work directory: reads results, computes nothing."""

from ncjax.report.page import write_report
from ncjax.report.table import summary

__all__ = ["summary", "write_report"]
