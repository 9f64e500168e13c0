# SPDX-License-Identifier: Apache-2.0
"""Features in small pieces are those of one piece: on any mesh, resident or streamed, kept on disk or gathered."""

import dataclasses

import numpy as np
import pytest

from ncjax.config import MeshConfig
from ncjax.features import outputs
from ncjax.features.extraction import extract, keep_features
from ncjax.features.feature_set import whole
from ncjax.features.store import load_features
from ncjax.training import streaming
from ncjax.training.loop import prepare
from ncjax.training.state import init_state
from tests.runs import arrays_of

LAYERS = ("first", "features")


@pytest.fixture
def three(small_config):
    """Six members, so that groups of four overlap."""
    return dataclasses.replace(small_config, seeds=3, data=dataclasses.replace(small_config.data, streamed=False))


def extracted(config, dataset, **mesh):
    prepared = prepare(dataclasses.replace(config, mesh=MeshConfig(**mesh)), dataset)
    return prepared, init_state(prepared.spec, prepared.ensemble)


MESHES = [{}, {"member": 2}, {"data": 4}, {"member": 2, "data": 4}, {"member": 4, "data": 2}]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_pieces_of_any_size_are_the_whole(three, dataset, mesh, streamed, monkeypatch):
    expected = arrays_of(extract(*extracted(three, dataset), dataset, LAYERS))
    data = dataclasses.replace(three.data, streamed=streamed)
    prepared, state = extracted(dataclasses.replace(three, data=data), dataset, **mesh)
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 3 * 16 * dataset.train.images[0].nbytes)  # the last one is not full
    for most in (2**30, 2**13, 1):
        monkeypatch.setattr(outputs, "PIECE_BYTES", most)
        found = arrays_of(extract(prepared, state, dataset, LAYERS))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_what_is_written_in_pieces_is_what_is_gathered(three, dataset, mesh, trained, monkeypatch):
    prepared, state = extracted(three, dataset, **mesh)
    expected = arrays_of(extract(prepared, state, dataset, LAYERS))
    monkeypatch.setattr(outputs, "PIECE_BYTES", 2**12)
    keep_features(trained.workdir, prepared, state, dataset, LAYERS, 7)
    (trained.workdir / "members.json").unlink()
    monkeypatch.setattr("ncjax.features.store.read_members", lambda workdir: described(prepared, dataset))
    for on_disk in (False, True):
        kept = load_features(trained.workdir, 7, on_disk=on_disk)
        splits = {name: getattr(kept, name) for name in ("train", "test")}
        held = {name: {layer: whole(rows) for layer, rows in split.layers.items()} for name, split in splits.items()}
        parts = {
            name: dataclasses.replace(split, layers=held[name], logits=whole(split.logits))
            for name, split in splits.items()
        }
        for ours, theirs in zip(arrays_of(dataclasses.replace(kept, **parts)), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def described(prepared, dataset):
    from ncjax.features.store import describe_members

    return describe_members(prepared.config, dataset, from_memory=True)


def test_no_piece_is_larger_than_its_limit(three, dataset, monkeypatch):
    """Unless a single batch of a single member is."""
    monkeypatch.setattr(outputs, "PIECE_BYTES", 2**13)
    prepared, state = extracted(three, dataset)
    shapes = outputs.output_shapes(prepared, LAYERS)
    pieces = list(outputs.pieces_of(prepared, state, dataset, "train", shapes))
    sizes = [sum(array.nbytes for array in piece.outputs.values()) for piece in pieces]
    assert len(sizes) > 6
    assert max(sizes) <= 2**13
    members = {(int(member), piece.first) for piece in pieces for member in piece.members}
    assert {member for member, _ in members} == set(range(6))
