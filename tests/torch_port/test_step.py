# SPDX-License-Identifier: Apache-2.0
"""How PyTorch's side computes: the precision, the mode of compilation, and options of earlier files."""

import dataclasses
import warnings

import pytest
import torch

from ncjax.config import OptimConfig
from ncjax.errors import UserError
from ncjax.torch_port.step import TorchOptions, make_step, read_options, set_precision


def switches():
    """What PyTorch says about TF32: products, convolutions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def restored():
    yield
    set_precision("float32")


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("float32", ("highest", False)), ("tf32", ("high", True)), ("bfloat16", ("highest", False))],
)
def test_a_step_sets_the_switches_of_its_precision(precision, expected):
    make_step(torch.nn.Linear(2, 2), OptimConfig(), 0.0, 2, TorchOptions(precision="tf32"))
    make_step(torch.nn.Linear(2, 2), OptimConfig(), 0.0, 2, TorchOptions(precision=precision))
    assert switches() == expected


def test_bfloat16_is_autocast_and_nothing_else_is():
    for precision, dtype in (("float32", torch.float32), ("tf32", torch.float32), ("bfloat16", torch.bfloat16)):
        seen = []
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
        network.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.dtype))
        step = make_step(network, OptimConfig(), 0.0, 3, TorchOptions(precision=precision))
        step(torch.ones(2, 1, 2, 2), torch.tensor([0, 1]), 0.1)
        assert seen == [dtype]
        assert next(network.parameters()).dtype == torch.float32


@pytest.mark.parametrize("mode", ["eager", "default", "reduce-overhead", "max-autotune"])
def test_the_mode_is_that_of_compilation(mode, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network, mode: asked.append(mode) or network)
    make_step(torch.nn.Linear(2, 2), OptimConfig(), 0.0, 2, TorchOptions(mode=mode))
    assert asked == ([] if mode == "eager" else [mode])


def test_texts_differ_and_are_those_of_earlier_results():
    assert str(TorchOptions()) == "eager"
    assert str(TorchOptions(mode="default", channels_last=True)) == "compile, channels_last"
    assert str(TorchOptions(mode="reduce-overhead", precision="bfloat16")) == "compile reduce-overhead, bfloat16"
    assert str(TorchOptions(mode="max-autotune", precision="tf32")) == "compile max-autotune, tf32"


def test_options_are_read_back_and_those_of_earlier_versions_too():
    options = TorchOptions(mode="max-autotune", channels_last=True, precision="tf32")
    assert read_options(dataclasses.asdict(options), "file") == options
    earlier = {"channels_last": True, "compiled": True, "bfloat16": True}
    assert read_options(earlier, "file") == TorchOptions(channels_last=True, mode="default", precision="bfloat16")
    assert read_options(dict.fromkeys(earlier, False), "file") == TorchOptions()
    with pytest.raises(UserError, match=r"^file: mode is 'fast', but must be eager or default or reduce-overhead or"):
        read_options({"mode": "fast"}, "file")
