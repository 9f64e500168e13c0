# SPDX-License-Identifier: Apache-2.0
"""The measurements behind every claim of speed."""
