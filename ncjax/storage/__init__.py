# SPDX-License-Identifier: Apache-2.0
"""What knows of files: work directories, atomic writes, checksums, caches."""
