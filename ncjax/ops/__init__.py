# SPDX-License-Identifier: Apache-2.0
"""What knows of hardware: convolutions and their lowerings, products, compiler options."""
