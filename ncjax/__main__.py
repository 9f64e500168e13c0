# SPDX-License-Identifier: Apache-2.0
"""`python -m ncjax` is `ncjax`."""

from ncjax.cli import main

main()
