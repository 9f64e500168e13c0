# SPDX-License-Identifier: Apache-2.0
"""Folders that live as long as something uses them."""

import shutil
import tempfile
import weakref
from pathlib import Path


class TemporaryFolder:
    """A new folder, deleted when this object is no longer used, or at the end of the process."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="ncjax-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
