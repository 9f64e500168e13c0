# SPDX-License-Identifier: Apache-2.0
"""A set of TensorFlow Datasets that is made in memory; importing this module makes TFDS know its name."""

import numpy as np
import tensorflow_datasets as tfds

from tests.animals import COUNTS, NAMES, images_of, labels_of


class Animals(tfds.core.GeneratorBasedBuilder):
    """Noise with labels."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        image, label = tfds.features.Image(shape=(5, 4, 3)), tfds.features.ClassLabel(names=NAMES)
        features = {"image": image, "label": label, "weight": tfds.features.Scalar(np.float32)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        for i, (image, label) in enumerate(zip(images_of(split), labels_of(split), strict=True)):
            yield i, {"image": image, "label": int(label), "weight": 0.5}
