# SPDX-License-Identifier: Apache-2.0
"""One experiment a file, each with `get_config()`. Run by path; the wheel carries them as `ncjax.configs`."""
