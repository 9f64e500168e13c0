# SPDX-License-Identifier: Apache-2.0
"""The PyTorch side of every comparison: twins of our networks, their weights both ways, the same training.

The only package of ncjax that imports PyTorch, and it does so at once: import it inside the function that needs it.
"""

from ncjax.errors import UserError

try:
    import safetensors
    import torch
except ImportError as error:
    raise UserError(f"this needs PyTorch and safetensors ({error}); run: pip install 'ncjax[torch]'") from error

__all__ = ["safetensors", "torch"]
