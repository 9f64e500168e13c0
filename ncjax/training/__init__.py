# SPDX-License-Identifier: Apache-2.0
"""Training of an ensemble of members in one compiled program."""
