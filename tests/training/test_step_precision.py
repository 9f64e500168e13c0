# SPDX-License-Identifier: Apache-2.0
"""The precision of all products and convolutions of a training, read from its lowered programs."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ncjax.config import ModelConfig
from ncjax.models import from_nnx, layers
from ncjax.ops.member_conv import conv2d_accelerator
from ncjax.training.forward import forward
from ncjax.training.functions import OwnFunctions
from ncjax.training.loop import prepare
from ncjax.training.state import init_state
from ncjax.training.step import train_chunk

WORDS = {"float32": "highest", "tf32": "high", "bfloat16": "default"}
NETWORKS = {"cnn": ModelConfig(name="cnn", width=4), "mlp": ModelConfig(name="mlp", width=8)}


def products(text):
    """(result type, precision) of each product and convolution of a program as HLO."""
    found = re.findall(r" = (\w+)\[[\d,]*\]\S* (?:dot|convolution)\((.*)", text)
    words = [re.findall(r"operand_precision=\{(\w+),(\w+)\}", rest) for _, rest in found]
    return [(kind, set(word[0]) if word else {"default"}) for (kind, _), word in zip(found, words, strict=True)]


def programs(run):
    """The chunk of steps, and the forward pass in eval mode."""
    state = jax.eval_shape(partial(init_state, run.spec), run.ensemble)
    step = jax.jit(partial(train_chunk, run.spec)).lower(state, run.images, run.ensemble, np.int32(1))
    images = run.images.test, run.images.mean, run.images.std
    return step.as_text("hlo"), jax.jit(partial(forward, run.spec)).lower(state, *images).as_text("hlo")


@pytest.fixture(params=["cpu", "accelerator"])
def platform(request, monkeypatch):
    """Convolutions as CPUs have them, and as accelerators have."""
    if request.param == "accelerator":
        monkeypatch.setattr(layers, "conv2d", lambda x, kernel, *, stride=1: conv2d_accelerator(x, kernel, stride))


@pytest.mark.parametrize("precision", WORDS)
@pytest.mark.parametrize("network", NETWORKS)
def test_all_products_have_the_precision_and_the_last_layer_is_exact(precision, network, config, dataset, platform):
    optim = dataclasses.replace(config.optim, precision=precision)
    run = prepare(dataclasses.replace(config, model=NETWORKS[network], optim=optim, seeds=2), dataset)
    step, in_eval_mode = map(products, programs(run))
    inner, (last,) = in_eval_mode[:-1], in_eval_mode[-1:]
    assert last == ("f32", {"highest"})
    kind = "bf16" if precision == "bfloat16" else "f32"
    assert set(map(str, inner)) == {str((kind, {WORDS[precision]}))}
    exact = [one for one in step if one == ("f32", {"highest"})]
    others = [one for one in step if one not in exact]
    assert len(step) >= 3 * len(in_eval_mode) - 1  # one forward, two backward, but for the images themselves
    if precision == "float32":
        assert others == []
    else:
        assert len(exact) == 3
        assert set(map(str, others)) == {str((kind, {WORDS[precision]}))}


def test_networks_of_the_callers_own_have_it_too(config, dataset):
    class Net(nnx.Module):
        def __init__(self, image_shape, num_classes, *, rngs):
            self.last = nnx.Linear(int(np.prod(image_shape)), num_classes, rngs=rngs)

        def __call__(self, images, train):
            x = images.reshape(len(images), -1)
            return self.last(x), x

    for precision, word in (("float32", "highest"), ("tf32", "high")):
        optim = dataclasses.replace(config.optim, precision=precision)
        run = prepare(dataclasses.replace(config, optim=optim), dataset, OwnFunctions(network=from_nnx(Net)))
        for program in programs(run):
            assert {str(words) for _, words in products(program)} == {str({word})}


def test_precision_is_what_the_config_says_whatever_jax_is_told(config, dataset):
    run = prepare(dataclasses.replace(config, model=NETWORKS["mlp"]), dataset)
    with jax.default_matmul_precision("bfloat16"):
        assert {str(words) for _, words in products(programs(run)[0])} == {"{'highest'}"}


def test_bfloat16_and_float32_differ_in_numbers(config, dataset):
    """As a check that the activations are what the precision says."""
    logits = []
    for precision in ("float32", "bfloat16"):
        optim = dataclasses.replace(config.optim, precision=precision)
        run = prepare(dataclasses.replace(config, optim=optim), dataset)
        images = run.images.test, run.images.mean, run.images.std
        logits.append(np.asarray(forward(run.spec, init_state(run.spec, run.ensemble), *images)["logits"]))
    gap = np.abs(logits[0] - logits[1]).max()
    assert 1e-5 < gap < 0.1 * np.abs(logits[0]).max() + jnp.finfo(jnp.bfloat16).eps
