# SPDX-License-Identifier: Apache-2.0
"""Which other loaders stand beside ours, and what is said of those that are not installed."""

import importlib.util

import pytest

from ncjax.bench.loaders import loader_peers, loader_timer
from ncjax.config import Config, DataConfig, OptimConfig

FOLDER = DataConfig(source="image_folder", path="pictures", streamed=True, image_size=32, crop_scale=0.08)


@pytest.mark.parametrize("data", [DataConfig(), DataConfig(source="image_folder", path="pictures", streamed=True)])
def test_only_random_crops_of_a_folder_have_peers(data):
    assert loader_peers(Config(data=data), 1.0) == ({}, [])


def test_what_is_not_installed_is_said(monkeypatch):
    found = {"torchvision": object(), "tensorflow": None}
    monkeypatch.setattr(importlib.util, "find_spec", found.get)
    peers, notes = loader_peers(Config(data=FOLDER), 3.0)
    assert list(peers) == ["PyTorch DataLoader"]
    assert peers["PyTorch DataLoader"].imports == ("torchvision",)
    assert notes == ["tf.data is not measured: tensorflow is not installed."]


def test_a_rate_counts_the_members_that_an_image_is_for(monkeypatch):
    monkeypatch.setattr("ncjax.bench.loaders.LOADED_SECS", 1.0)
    clock = iter([0.0, 0.2, 0.9, 1.1, 1.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    config = Config(data=FOLDER, optim=OptimConfig(batch=10))
    measure = loader_timer(config, lambda config: iter(range(100)), 3.0)
    assert measure() == pytest.approx(3 * 20 / 1.5)
