# SPDX-License-Identifier: Apache-2.0
"""Configs check their ranges; `ncjax theory` ends with exit code 2 and one line that names the field and its flag."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ncjax.cli.main import main
from ncjax.config import from_dict_of, load_config_of, to_dict
from ncjax.errors import UserError
from ncjax.theory.config import MixtureConfig, NetworkConfig, TheoryConfig
from tests.runs import messages

CONFIGS = Path(__file__).parents[2] / "configs"
BAD = {
    "--mixture.dimension 3": "mixture.dimension is 3, but must be 4 or more: so many orthonormal means need",
    "--network.width 0": "network.width is (0,), but must be one or more whole numbers of 1 or more",
    "--mixture.noise -0.1": "mixture.noise is (-0.1,), but must be one or more finite numbers of 0 or more",
    "--mixture.noise nan": "mixture.noise",
    "--descent.lr": "descent.lr is (), but must be one or more",
    "--mixture.train": "mixture.train is (), but must be one or more",
    "--seeds 0": "seeds is 0",
    "--prediction none --mixture.means angle --mixture.components 3 --mixture.angle 130": "mixture.angle",
    "--prediction none --mixture.covariance low_rank --mixture.rank 999": "mixture.rank is 999",
    "--prediction none --mixture.imbalance 0.5": "mixture.imbalance",
    "--prediction none --mixture.imbalance 999": "one of each Gaussian",
    "--prediction none --mixture.label-noise 1.5": "mixture.label_noise",
    "--prediction none --mixture.labels 3": "mixture.labels is 3, but must be 2 with descent.loss logistic",
    "--prediction none --mixture.components 7 --mixture.dimension 64": "mixture.components is 7, but must be from 1",
    "--prediction none --network.symmetric --network.width 5": "a multiple of mixture.labels",
    "--prediction none --network.gain 0": "network.gain",
    "--prediction none --mixture.means file": "mixture.means_file is empty, but must be a path",
    "--prediction none --mixture.means file --mixture.means-file nowhere.npy": "cannot read the means in nowhere.npy",
    "--prediction none --mixture.means file --mixture.means-file flat.npy": "flat.npy has shape (3,), but must hold",
    "--network.activation gelu": "prediction leaky is derived for network.activation relu",
    "--prediction frozen": "prediction frozen is derived for mixture.noise 0",
    "--memory-gib 0": "memory_gib is 0.0, but must be above 0; change it in the config file or with --memory-gib",
    "--network.depth 0": "network.depth is 0",
    "--descent.steps x": "descent.steps",
}


@pytest.mark.parametrize("options", BAD)
def test_bad_input_is_one_line_and_exit_code_2(options, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    np.save("flat.npy", np.zeros(3))
    monkeypatch.setattr(sys, "argv", ["ncjax", "theory", str(CONFIGS / "theory_phase.py"), *options.split()])
    monkeypatch.setattr("ncjax.theory.sweep.use_every_core", lambda: None)
    with pytest.raises(SystemExit) as stop:
        main()
    error = messages(capsys.readouterr().err)
    assert stop.value.code == 2
    assert len(error) == 1
    assert error[0].startswith("ncjax: error: ")
    assert BAD[options] in error[0]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("theory_*.py")), ids=lambda path: path.stem)
def test_every_config_is_possible_and_survives_json(path):
    config = load_config_of(TheoryConfig, path)
    assert config.name == path.stem
    assert from_dict_of(TheoryConfig, to_dict(config)) == config


def test_values_of_another_type_are_refused_with_the_field():
    """In a process of its own: here, beartype would refuse them first."""
    cases = {
        "MixtureConfig(noise=0.2)": "mixture.noise is 0.2, but must be one or more finite numbers of 0 or more",
        "MixtureConfig(means='cube')": "mixture.means is cube, but must be one of orthonormal, angle, sphere, file",
        "MixtureConfig(components=2.0)": "mixture.components is 2.0, but must be a whole number, from 1 to 6",
        "NetworkConfig(activation='swish')": "network.activation is swish, but must be one of relu, leaky_relu",
        "DescentConfig(lr=[0.1])": "descent.lr is [0.1], but must be one or more finite numbers",
        "TheoryConfig(prediction='best')": "prediction is best, but must be one of none, frozen, leaky, lazy",
    }
    program = "from ncjax.errors import UserError; from ncjax.theory.config import *\n"
    program += "".join(f"try: {case}\nexcept UserError as error: print(error)\n" for case in cases)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CONFIGS.parent, capture_output=True, text=True, check=True
    )
    for line, message in zip(done.stdout.splitlines(), cases.values(), strict=True):
        assert line.startswith(message)


def test_errors_of_the_library_name_fields_and_no_flags():
    with pytest.raises(UserError, match=r"^network.init_scale is \(-1.0,\), but must be .* 0 or more$"):
        NetworkConfig(init_scale=(-1.0,))
    with pytest.raises(UserError, match=r"^mixture.labels is 3, but must be 2 with descent.loss logistic"):
        TheoryConfig(mixture=MixtureConfig(labels=3))
