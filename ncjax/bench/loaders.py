# SPDX-License-Identifier: Apache-2.0
"""Other libraries that decode an image folder: PyTorch's DataLoader and tf.data, with the random crops of ncjax."""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ncjax.bench.interleave import Peer, Timer
from ncjax.config import Config
from ncjax.data.cuts import ASPECT_RATIOS
from ncjax.data.workers import processors
from ncjax.paths import user_path

LOADED_SECS = 4.0  # of one call of a timer, at least


def loader_peers(config: Config, members_per_image: float) -> tuple[Mapping[str, Peer], list[str]]:
    """Those that are installed, for a streamed image folder with random crops; and notes on what is left out.

    Each gives uint8 batches of `image_size`, in as many processes or threads as there are processors.

    Args:
        config: the folder and its crops.
        members_per_image: how many members train on an image that is decoded.
    """
    if config.data.source != "image_folder" or not config.data.crop_scale:
        return {}, []
    peers, notes = {}, []
    known: Mapping[str, tuple[str, Callable[[Config], Iterator[Any]]]] = {
        "PyTorch DataLoader": ("torchvision", torch_batches),
        "tf.data": ("tensorflow", tf_batches),
    }
    for name, (library, batches) in known.items():
        if importlib.util.find_spec(library) is None:
            notes.append(f"{name} is not measured: {library} is not installed.")
        else:
            peers[name] = Peer(partial(loader_timer, config, batches, members_per_image), (library,))
    return peers, notes


def loader_timer(config: Config, batches: Callable[[Config], Iterator[Any]], members_per_image: float) -> Timer:
    """Images per second of all members that an endless iterator of batches gives."""
    iterator = batches(config)

    def measure() -> float:
        taken, started = 0, time.perf_counter()
        while time.perf_counter() - started < LOADED_SECS:
            next(iterator)
            taken += config.optim.batch
        return members_per_image * taken / (time.perf_counter() - started)

    return measure


def torch_batches(config: Config) -> Iterator[Any]:
    """Shuffled batches of torchvision's ImageFolder, in one process a processor."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    data = config.data
    crop = transforms.RandomResizedCrop(data.image_size, (data.crop_scale, 1.0), ASPECT_RATIOS)
    folder = os.fspath(user_path(data.path) / "train")
    pictures = datasets.ImageFolder(folder, transforms.Compose([crop, transforms.PILToTensor()]))
    workers, batch = processors(), config.optim.batch
    loader = DataLoader(pictures, batch, True, num_workers=workers, drop_last=True, persistent_workers=True)
    while True:
        yield from loader


def tf_batches(config: Config) -> Iterator[Any]:
    """Shuffled batches of tf.data: JPEG files, of which the crop alone is decoded, scaled with antialiasing."""
    import tensorflow as tf

    data = config.data
    files = [os.fspath(file) for file in sorted((user_path(data.path) / "train").glob("*/*"))]

    def picture(file: Any) -> Any:
        content = tf.io.read_file(file)
        shape = tf.image.extract_jpeg_shape(content)
        whole = tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4])
        area, ratios = (data.crop_scale, 1.0), ASPECT_RATIOS
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            shape,
            whole,
            aspect_ratio_range=ratios,
            area_range=area,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.stack([begin[0], begin[1], size[0], size[1]])
        cut = tf.image.decode_and_crop_jpeg(content, window, channels=3)
        scaled = tf.image.resize(cut, [data.image_size] * 2, antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(scaled), 0, 255), tf.uint8)

    source = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files)).repeat()
    loaded = source.map(picture, num_parallel_calls=processors()).batch(config.optim.batch).prefetch(2)
    yield from loaded.as_numpy_iterator()
