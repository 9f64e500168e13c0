# SPDX-License-Identifier: Apache-2.0
"""The one evaluator: views, clusters, linear probes, CLP."""
