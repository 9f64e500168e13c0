# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 on ImageNet: super-classes, random super-classes of as many classes, and the 1,000 classes themselves.

Command: `ncjax run configs/coarse_imagenet.py --data.path FOLDER`, where FOLDER holds train/<id>/*, val/<id>/* and
superclasses.csv (WordNet id, super-class). With TFDS's array_record: `--data.source tfds --data.tfds-name imagenet2012
--data.test-split validation`, and super-classes by `--labels file:PATH fine`. A task of BREEDS, from a folder with its
hierarchy: `--data.classes breeds:entity13:HIERARCHY --labels breeds:entity13:HIERARCHY fine`, or living17 likewise.
Hardware: a slice of accelerators, whose memory, bytes and time docs/scaling.md counts; `--data.workers N` decodes in N
processes on each host. Expected: about 76 % of the 1,000 classes after 90 epochs, as Goyal et al. 2017 report for
ResNet-50; ncjax has not trained on ImageNet yet.
"""

from ncjax.config import Config, DataConfig, EvaluateConfig, LossConfig, MeshConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    return Config(
        name="coarse_imagenet",
        labels=("superclass", "fine", "random:10:0"),
        data=DataConfig(
            source="image_folder",
            path="data/imagenet",
            test_split="val",
            streamed=True,
            image_size=224,
            resize=256,
            crop_scale=0.08,
            flip=True,
        ),
        model=ModelConfig(name="resnet50", width=64),
        loss=LossConfig(label_smoothing=0.1),
        optim=OptimConfig(
            lr=(0.4,),
            weight_decay=(1e-4,),
            schedule="cosine",
            warmup_epochs=5,
            batch=1024,
            epochs=90,
            precision="bfloat16",
        ),
        mesh=MeshConfig(member=1, data=0),
        evaluate=EvaluateConfig(epochs=(0, 30, 60), observe_epochs=5),
        chunk_steps=5,
    )
