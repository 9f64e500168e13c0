# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files: bit for bit there and back, what training code puts around weights, and bad files."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from copy import deepcopy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ncjax.config import ModelConfig
from ncjax.errors import UserError
from ncjax.torch_port.files import read_state_dict, write_state_dict
from ncjax.torch_port.networks import make_network
from tests.tensors import ODD_TENSORS
from tests.torch_port.conftest import CLASSES

CNN = (ModelConfig(name="cnn", width=2), (8, 8, 3))


def network_of(config, image_shape):
    """A network in evaluation mode whose weights and statistics are nowhere zero or one."""
    generator = torch.Generator().manual_seed(0)
    network = make_network(config, image_shape, CLASSES).eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            low = -0.5 if tensor.ndim > 1 else 0.3
            tensor.uniform_(low, low + 1, generator=generator)
    return network


def arrays_of(network):
    state = network.state_dict()
    return {name: tensor.numpy() for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def assert_same_bits(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name


@pytest.fixture
def cnn():
    return network_of(*CNN)


# ------------------------------------------------------------------ there and back


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_written_weights_come_back_and_load_strictly(architecture, suffix, tmp_path):
    network = network_of(*architecture)
    path = tmp_path / f"weights{suffix}"
    write_state_dict(path, arrays_of(network))
    assert_same_bits(read_state_dict(path), arrays_of(network))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]

    content = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    again = make_network(*architecture, CLASSES).eval()
    again.load_state_dict(content, strict=True)
    height, width, channels = architecture[1]
    images = torch.randn(3, channels, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = network(images)
        assert torch.isfinite(logits).all()
        assert torch.equal(again(images), logits)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_extreme_numbers_survive_bit_for_bit(suffix, tmp_path):
    limits = np.finfo(np.float32)
    state = {
        "fc.weight": np.array([[-0.0, 1e-45, limits.tiny], [limits.max, limits.min, 1 / 3]], np.float32),
        "fc.bias": np.zeros((0,), np.float32),
        "scale": np.array(2.5, np.float32),
    }
    write_state_dict(tmp_path / f"weights{suffix}", state)
    assert_same_bits(read_state_dict(tmp_path / f"weights{suffix}"), state)


@pytest.mark.parametrize("name", ["weights.npz", "weights.onnx", "weights", "weights.PT", ".pt"])
def test_other_suffixes_are_not_written(name, tmp_path):
    with pytest.raises(UserError, match=rf"{name} must end with \.pt, \.pth or \.safetensors: the suffix"):
        write_state_dict(tmp_path / name, {"fc.bias": np.ones(2, np.float32)})
    assert not list(tmp_path.iterdir())


def test_writing_replaces_a_file_and_makes_folders(cnn, tmp_path):
    path = tmp_path / "new" / "folder" / "weights.pt"
    write_state_dict(path, {"fc.bias": np.ones(2, np.float32)})
    write_state_dict(path, arrays_of(cnn))
    assert_same_bits(read_state_dict(path), arrays_of(cnn))
    assert os.listdir(path.parent) == [path.name]


# ------------------------------------------------------------------ what training code puts around weights

WRAPPED = {
    "nothing": lambda state: state,
    "state_dict": lambda state: {"state_dict": state},
    "model_state_dict and epoch": lambda state: {"epoch": 7, "model_state_dict": state, "loss": 0.25},
    "net of pytorch-cifar": lambda state: {"net": state, "acc": 91.2, "epoch": 3},
    "nested": lambda state: {"model": {"state_dict": state}, "args": {"lr": 0.1}},
    "optimizer": lambda state: {"state_dict": state, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}}},
    "tensor beside it": lambda state: {"epoch": 3, "state_dict": state, "best_acc1": torch.tensor(91.2)},
    "the name of the model": lambda state: {"model": "resnet18", "net": state, "acc": 95.1},
    "the options of the model": lambda state: {"model": {"name": "cnn", "width": 2}, "network": state},
    "an empty wrapper before it": lambda state: {"state_dict": {}, "model": state},
    "an unusual name": lambda state: {"epoch": 3, "ema": state, "optimizer": {"step": torch.tensor(3)}},
    "averages beside it": lambda state: {"model": state, "model_ema": {n: 0.5 * t for n, t in state.items()}},
    "four deep": lambda state: {"a": {"model": {"net": {"state_dict": state}}}},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_weights_are_found_in_what_training_code_saves(cnn, wrap, tmp_path):
    """`tensor beside it` is what PyTorch's own ImageNet example saves: its best accuracy is a tensor."""
    torch.save(wrap(cnn.state_dict()), tmp_path / "checkpoint.pt")
    assert_same_bits(read_state_dict(tmp_path / "checkpoint.pt"), arrays_of(cnn))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module.net.", "network.", "model._orig_mod.module."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_prefixes_are_dropped(cnn, prefix, suffix, tmp_path):
    state = {prefix + name: tensor for name, tensor in cnn.state_dict().items()}
    path = tmp_path / f"checkpoint{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    assert_same_bits(read_state_dict(path), arrays_of(cnn))


def test_prefix_of_some_names_stays(cnn, tmp_path):
    state = OrderedDict(("net." + name, tensor) for name, tensor in cnn.state_dict().items())
    state["centre"] = torch.ones(2)
    torch.save(state, tmp_path / "checkpoint.pt")
    assert "net.fc.weight" in read_state_dict(tmp_path / "checkpoint.pt")


def compiled(module):
    return torch.compile(module, backend="eager")


def wrapped_part(cnn, wrap):
    """The state of a copy of the network of which one part is inside another module."""
    copy = deepcopy(cnn)
    copy.bn1 = wrap(copy.bn1)
    return copy.state_dict()


MODULES = {
    "DataParallel": lambda cnn: torch.nn.DataParallel(cnn).state_dict(),
    "AveragedModel": lambda cnn: torch.optim.swa_utils.AveragedModel(cnn).state_dict(),
    "AveragedModel in a dict": lambda cnn: {"epoch": 1, "swa": torch.optim.swa_utils.AveragedModel(cnn).state_dict()},
    "AveragedModel of DataParallel": lambda cnn: torch.optim.swa_utils.AveragedModel(
        torch.nn.DataParallel(cnn)
    ).state_dict(),
    "compiled": lambda cnn: compiled(cnn).state_dict(),
    "compiled inside a module": lambda cnn: torch.nn.ModuleDict({"net": compiled(cnn)}).state_dict(),
    "a part in DataParallel": lambda cnn: wrapped_part(cnn, torch.nn.DataParallel),
    "a part compiled": lambda cnn: wrapped_part(cnn, compiled),
    "a part compiled in DataParallel": lambda cnn: wrapped_part(
        cnn, lambda part: torch.nn.DataParallel(compiled(part))
    ),
    "averages of a network with a part compiled": lambda cnn: (
        {f"module.{name}": tensor for name, tensor in wrapped_part(cnn, compiled).items()}
        | {"n_averaged": torch.tensor(3)}
    ),
    "FSDP": lambda cnn: {
        f"_fsdp_wrapped_module.{name.replace('.', '._checkpoint_wrapped_module.', 1)}": tensor
        for name, tensor in cnn.state_dict().items()
    },
}


@pytest.mark.parametrize("state_of", MODULES.values(), ids=MODULES)
def test_modules_around_a_network_or_its_parts_leave_no_trace(cnn, state_of, tmp_path):
    torch.save(state_of(cnn), tmp_path / "wrapped.pt")
    assert_same_bits(read_state_dict(tmp_path / "wrapped.pt"), arrays_of(cnn))


def test_weights_of_two_networks_are_not_mixed(cnn, tmp_path):
    state = cnn.state_dict()
    torch.save(state | {f"module.{name}": tensor + 1 for name, tensor in state.items()}, tmp_path / "two.pt")
    assert "holds conv1.weight twice, once as module.conv1.weight" in refused(tmp_path / "two.pt")
    torch.save({"net": state, "model": {name: tensor + 1 for name, tensor in state.items()}}, tmp_path / "two.pt")
    assert "several state_dicts ('model', 'net')" in refused(tmp_path / "two.pt")
    torch.save({"generator": state, "discriminator": state, "epoch": 3}, tmp_path / "two.pt")
    assert "several state_dicts ('generator', 'discriminator')" in refused(tmp_path / "two.pt")


def test_legacy_format_is_read(cnn, tmp_path):
    torch.save({"net": cnn.state_dict()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(tmp_path / "old.pth")
    assert_same_bits(read_state_dict(tmp_path / "old.pth"), arrays_of(cnn))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_precisions_become_float32(cnn, dtype, suffix, tmp_path):
    state = {name: torch.from_numpy(array).to(dtype) for name, array in arrays_of(cnn).items()}
    path = tmp_path / f"checkpoint{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    expected = {name: np.array(tensor.tolist(), np.float32) for name, tensor in state.items()}
    assert_same_bits(read_state_dict(path), expected)


def test_trained_parameters_and_strided_tensors_are_read(tmp_path):
    base = torch.arange(24.0).reshape(2, 3, 4)
    torch.save({"a": torch.nn.Parameter(base), "b": base.permute(2, 0, 1), "c": base[:, 1]}, tmp_path / "x.pt")
    expected = {"a": base.numpy(), "b": np.ascontiguousarray(base.numpy().transpose(2, 0, 1)), "c": base.numpy()[:, 1]}
    found = read_state_dict(tmp_path / "x.pt")
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


# ------------------------------------------------------------------ bad files


def refused(path):
    with pytest.raises(UserError) as caught:
        read_state_dict(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_missing_and_empty_files_and_folders(suffix, tmp_path):
    path = tmp_path / f"checkpoint{suffix}"
    assert "no file at" in refused(path)
    path.write_bytes(b"")
    refused(path)
    path.unlink()
    path.mkdir()
    refused(path)


@pytest.mark.parametrize("cut", [1, 3, 40, 0.2, 0.5, 0.9, -30, -1])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files(cnn, kind, cut, tmp_path):
    path = tmp_path / ("checkpoint.safetensors" if kind == "safetensors" else "checkpoint.pt")
    if kind == "safetensors":
        save_file(cnn.state_dict(), path)
    else:
        torch.save(cnn.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    refused(path)


@pytest.mark.parametrize("cut", [18, 28, 200, 400, 600])
def test_legacy_file_truncated_inside_its_pickles(cnn, cut, tmp_path):
    torch.save(cnn.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes((tmp_path / "old.pt").read_bytes()[:cut])
    refused(tmp_path / "old.pt")


NO_CHECKPOINTS = {
    "text": b"these are no weights\n",
    "pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "page of a web server": b"<!DOCTYPE html>\n<title>404 Not Found</title>\n",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(60),
    "zip without weights": b"PK\x05\x06" + bytes(18),
    "pickle that stores what is not there": b"q\x00.",
    "pickle that needs what it never stored": b"h\x05.",
    "pickle that ends in a number": b"M\x01",
    "random bytes": np.random.default_rng(0).bytes(1000),
    "more random bytes": np.random.default_rng(2).bytes(64),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_files_that_are_no_checkpoints(content, suffix, tmp_path):
    path = tmp_path / f"checkpoint{suffix}"
    path.write_bytes(content)
    refused(path)


class Code:
    """Unpickling it makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("protocol", [2, pickle.DEFAULT_PROTOCOL])
def test_raw_pickle_with_code_is_not_executed(cnn, protocol, tmp_path):
    path, marker = tmp_path / "checkpoint.pt", tmp_path / "executed"
    content = pickle.dumps({"fc.bias": Code(marker)}, protocol=protocol)
    path.write_bytes(content)
    assert "nothing of it was executed" in refused(path)
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()  # so the file was dangerous


@pytest.mark.parametrize("new_format", [True, False])
def test_checkpoint_with_code_is_not_executed(cnn, new_format, tmp_path):
    path, marker = tmp_path / "checkpoint.pt", tmp_path / "executed"
    content = {"state_dict": cnn.state_dict(), "extra": Code(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    assert "nothing of it was executed" in refused(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_whole_module_is_refused(cnn, tmp_path):
    torch.save(cnn, tmp_path / "module.pt")
    assert "model.state_dict()" in refused(tmp_path / "module.pt")


def test_torchscript_archive_is_refused(cnn, tmp_path):
    """What makes a TorchScript archive for PyTorch is the record `constants.pkl`."""
    torch.save(cnn.state_dict(), tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "a") as archive:
        archive.writestr("script/constants.pkl", pickle.dumps((), protocol=2))
    refused(tmp_path / "script.pt")


BAD_CONTENT = {
    "empty": ({}, "nothing"),
    "a list": ([torch.ones(2)], "a list"),
    "a tensor": (torch.ones(2), "Tensor"),
    "a number": (3, "int"),
    "no weights": ({"epoch": 3}, "epoch (int)"),
    "empty wrapper": ({"state_dict": {}, "epoch": 3}, "nothing"),
    "a number among weights": ({"fc.bias": torch.ones(2), "epoch": 3}, "epoch (int)"),
    "integers": ({"fc.bias": torch.arange(3)}, "fc.bias is torch.int64"),
    "bytes, as of quantised weights": ({"fc.bias": torch.ones(3, dtype=torch.uint8)}, "fc.bias is torch.uint8"),
    "complex": ({"fc.bias": torch.ones(3, dtype=torch.complex64)}, "fc.bias is torch.complex64"),
    "NaN": ({"fc.bias": torch.tensor([1.0, float("nan")])}, "fc.bias holds NaN or infinite"),
    "inf": ({"bn1.running_var": torch.tensor([float("inf")])}, "bn1.running_var holds NaN or infinite"),
    "half -inf": ({"fc.bias": torch.tensor([-float("inf")], dtype=torch.float16)}, "fc.bias holds NaN or infinite"),
    "too large for float32": ({"fc.bias": torch.tensor([1e300], dtype=torch.float64)}, "fc.bias"),
    "sparse": ({"fc.bias": torch.eye(3).to_sparse()}, "fc.bias"),
    "without storage": ({"fc.bias": torch.ones(3, device="meta")}, "fc.bias"),
    **{kind: ({"fc.weight": torch.ones(2), "fc.bias": tensor}, "fc.bias is") for kind, tensor in ODD_TENSORS.items()},
}


@pytest.mark.parametrize(("content", "message"), BAD_CONTENT.values(), ids=BAD_CONTENT)
def test_content_that_is_no_weights(content, message, tmp_path):
    torch.save(content, tmp_path / "checkpoint.pt")
    assert message in refused(tmp_path / "checkpoint.pt")


def test_bad_weights_in_safetensors(tmp_path):
    save_file({"fc.bias": torch.tensor([float("nan")])}, tmp_path / "x.safetensors")
    assert "fc.bias holds NaN" in refused(tmp_path / "x.safetensors")
    save_file({"fc.bias": torch.arange(3)}, tmp_path / "x.safetensors")
    assert "fc.bias is torch.int64" in refused(tmp_path / "x.safetensors")
    save_file({}, tmp_path / "x.safetensors")
    assert "nothing" in refused(tmp_path / "x.safetensors")


# ------------------------------------------------------------------ bad places


def everything_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write_refused(path, state):
    with pytest.raises(UserError) as caught:
        write_state_dict(path, state)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("place", ["a folder", "under a file", "deep under a file", "a name that is too long"])
def test_place_that_cannot_be_written_keeps_no_draft(cnn, place, suffix, tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / f"folder{suffix}").mkdir()
    path = {
        "a folder": tmp_path / f"folder{suffix}",
        "under a file": tmp_path / "file" / f"weights{suffix}",
        "deep under a file": tmp_path / "file" / "deep" / f"weights{suffix}",
        "a name that is too long": tmp_path / f"{'x' * 300}{suffix}",
    }[place]
    before = everything_under(tmp_path)
    write_refused(path, arrays_of(cnn))
    assert everything_under(tmp_path) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_full_disk_keeps_the_older_file_and_no_draft(cnn, suffix, tmp_path, monkeypatch):
    path = tmp_path / f"weights{suffix}"
    write_state_dict(path, arrays_of(cnn))
    before = path.read_bytes()

    def stop_half_way(content, draft):
        draft.write_bytes(io.BytesIO(before).read(100))
        raise OSError(28, "No space left on device")

    name = "save_file" if suffix == ".safetensors" else "torch.save"
    monkeypatch.setattr(f"ncjax.torch_port.files.{name}", stop_half_way)
    write_refused(path, {"fc.bias": np.ones(2, np.float32)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
