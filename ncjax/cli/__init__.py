# SPDX-License-Identifier: Apache-2.0
"""The command line: parsing, exit codes, what a person sees."""
