# SPDX-License-Identifier: Apache-2.0
"""The Markdown table."""

from ncjax.report.markdown import markdown_table


def test_table_has_a_rule_under_its_head() -> None:
    assert markdown_table([["a", "b"], ("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
