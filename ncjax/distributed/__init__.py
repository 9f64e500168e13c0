# SPDX-License-Identifier: Apache-2.0
"""Processes, device meshes, sharding."""
