# SPDX-License-Identifier: Apache-2.0
"""The HTML page and the tables of a work directory: reads results, computes nothing."""

from ncjax.report.evaluation_tables import evaluation_summary
from ncjax.report.page import write_report
from ncjax.report.run_tables import run_summary

__all__ = ["evaluation_summary", "run_summary", "write_report"]
