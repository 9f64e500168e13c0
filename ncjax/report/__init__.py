# SPDX-License-Identifier: Apache-2.0
"""The HTML page of a work directory: reads results, computes nothing."""

from ncjax.report.page import write_report

__all__ = ["write_report"]
