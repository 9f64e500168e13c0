# SPDX-License-Identifier: Apache-2.0
from tests.features.conftest import small_config, trained

__all__ = ["small_config", "trained"]
