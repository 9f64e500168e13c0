# SPDX-License-Identifier: Apache-2.0
"""Other common names of the same networks' weights, told apart by the names alone."""

from ncjax.config import ModelConfig
from ncjax.torch_port.networks import find_twin
from ncjax.torch_port.twin import StateDict


def to_torchvision_names(config: ModelConfig, state: StateDict) -> StateDict:
    """The same weights under the names of our twins; names that are not recognized stay.

    Known are those of the widely copied pytorch-cifar networks; the rules stand in the twin's file. The DenseNet there
    puts new channels before the old ones where torchvision puts them behind: the channels are reordered, too.

    Raises:
        UserError: the network has no twin.
    """
    return find_twin(config.name).to_torchvision(config, state)
