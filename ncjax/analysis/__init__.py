# SPDX-License-Identifier: Apache-2.0
"""What features hold: linear probes, cluster-and-linear-probe, collapse to coarse and to fine labels."""
