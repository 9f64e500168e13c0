# SPDX-License-Identifier: Apache-2.0
"""The one error that a user of ncjax can cause."""


class UserError(ValueError):
    """Bad input, in one line: what is wrong, where, and what to do. The command line prints it and exits with 2."""
