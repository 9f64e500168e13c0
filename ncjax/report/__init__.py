# SPDX-License-Identifier: Apache-2.0
"""The HTML page, the figures and the tables of work directories: reads results, computes nothing."""

from ncjax.report.evaluation_tables import evaluation_summary
from ncjax.report.figure import Figure, write_figures
from ncjax.report.page import figures_of, write_report
from ncjax.report.run_tables import run_summary

__all__ = ["Figure", "evaluation_summary", "figures_of", "run_summary", "write_figures", "write_report"]
