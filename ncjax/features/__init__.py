# SPDX-License-Identifier: Apache-2.0
"""Features: extraction from a run, storage, readers of files."""
