# SPDX-License-Identifier: Apache-2.0
from tests.features.conftest import trained, trained_once

__all__ = ["trained", "trained_once"]
