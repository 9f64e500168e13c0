# SPDX-License-Identifier: Apache-2.0
"""`python -m ncjax` is `ncjax`."""

from ncjax.cli.main import main

main()
