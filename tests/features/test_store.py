# SPDX-License-Identifier: Apache-2.0
"""features/EPOCH and members.json: what is written is read back, damage is named, older ones are read."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ncjax.cluster import stream_kmeans
from ncjax.errors import UserError
from ncjax.features.run import Run
from ncjax.features.store import load_features, open_features, saved_epochs
from ncjax.features.writing import save_features
from ncjax.storage.checksums import write_checksums
from ncjax.storage.workdir import read_run_file, write_run_file


def test_features_are_read_back_with_their_members(trained, tmp_path):
    found = trained.features(1)
    copy = tmp_path / "copy"
    shutil.copytree(trained.workdir, copy, ignore=shutil.ignore_patterns("features"))
    save_features(copy, found)
    again = load_features(copy, 1)
    for ours, theirs in zip(jax.tree.leaves(vars(found.train)), jax.tree.leaves(vars(again.train)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.members == found.members == trained.members
    assert again.default_map.name == "mod:5"
    assert again.class_names == tuple(f"bar {i}" for i in range(10))
    assert saved_epochs(copy) == (1,)


def test_features_of_an_earlier_version_are_read(trained, tmp_path):
    """Without a classifier, further layers, checksums and a mark of the run."""
    found = trained.features(2)
    write_run_file(trained.workdir, dataclasses.replace(read_run_file(trained.workdir), run=""))
    shutil.rmtree(trained.workdir / "features" / "2")

    def tree(split):
        arrays = {"features": split.layers["features"], "logits": split.logits}
        return arrays | {"fine": split.labels, "coarse": split.targets}

    content = {"train": tree(found.train), "test": tree(found.test)}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((trained.workdir / "features" / "2").absolute(), content)
    again = load_features(trained.workdir, 2)
    assert again.layers == ("features",)
    assert again.classifier is None
    np.testing.assert_array_equal(again.test.layers["features"], found.test.layers["features"])


def test_run_of_an_earlier_version_has_its_members_from_its_config(tmp_path):
    from ncjax.config import Config, DataConfig, ModelConfig, OptimConfig
    from ncjax.pipeline import train

    config = Config(
        labels=("mod:5", "fine"),
        data=DataConfig(train_examples=160, test_examples=60),
        model=ModelConfig(name="mlp", width=4),
        optim=OptimConfig(epochs=1, batch=80),
    )
    run = train(config, workdir=tmp_path / "run")
    (run.workdir / "members.json").unlink()
    assert Run.open(run.workdir).members == run.members


def test_members_file_says_who_they_are(trained):
    content = json.loads((trained.workdir / "members.json").read_text())
    assert list(content["members"]) == [member.name for member in trained.members]
    assert content["members"]["fine/lr=0.05/wd=5e-4/seed=0"]["lr"] == 0.05
    (trained.workdir / "members.json").write_text('{"members": 3}')
    with pytest.raises(UserError, match=r"members\.json"):
        Run.open(trained.workdir)


def test_one_member_is_read_from_disk_where_it_is_indexed(trained):
    rows = open_features(trained.workdir, 2, member=1)
    found = np.asarray(trained.features(2).train.layers["features"][1])
    np.testing.assert_array_equal(np.asarray(rows[3:9]), found[3:9])
    result = stream_kmeans(jax.random.key(0), rows, 3)
    assert result.labels.shape == (160,)
    with pytest.raises(UserError, match="no member 2"):
        open_features(trained.workdir, 2, member=2)


def test_one_changed_bit_is_noticed(trained):
    folder = trained.workdir / "features" / "1"
    file = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="is not what was written"):
        load_features(trained.workdir, 1)
    write_checksums(folder)  # damage that checksums do not see
    for part in folder.rglob("*"):
        if part.is_file() and part.name != "sha256.json":
            part.write_bytes(b"")
    write_checksums(folder)
    with pytest.raises(UserError, match="cannot be read"):
        load_features(trained.workdir, 1)


NAMES = ("run[1]", "[a-z]", "*", "what?", "a{b}", "50% #1", "$HOME", "~", "né", "a'b\"c", "a\nb")


@pytest.mark.parametrize("name", NAMES)
def test_features_are_read_back_from_folders_of_any_name(name, trained, tmp_path):
    found, workdir = trained.features(1), tmp_path / name / "run"
    shutil.copytree(trained.workdir, workdir, ignore=shutil.ignore_patterns("features"))
    save_features(workdir, found)
    again = Run.open(workdir).features(1)
    np.testing.assert_array_equal(again.test.layers["features"], found.test.layers["features"])
    np.testing.assert_array_equal(open_features(workdir, 1)[:4], found.train.layers["features"][0][:4])
    assert saved_epochs(workdir) == (1,)
