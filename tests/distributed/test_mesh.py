# SPDX-License-Identifier: Apache-2.0
import jax
import pytest

from ncjax.config import MeshConfig
from ncjax.distributed.mesh import make_mesh, mesh_shape, row_mesh
from ncjax.errors import UserError


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MeshConfig(), (1, 1)),
        (MeshConfig(member=2, data=3), (2, 3)),
        (MeshConfig(member=0, data=2), (4, 2)),
        (MeshConfig(member=4, data=0), (4, 2)),
        (MeshConfig(member=3, data=0), (3, 2)),
        (MeshConfig(member=0, data=16), (1, 16)),
    ],
)
def test_zero_is_all_devices_that_are_left(config, expected):
    assert mesh_shape(config, 8) == expected


def test_the_mesh_has_members_and_data():
    mesh = make_mesh(MeshConfig(member=2, data=0), batch=16)
    assert dict(mesh.shape) == {"member": 2, "data": 4}
    assert set(mesh.devices.flat) == set(jax.devices())
    assert make_mesh(MeshConfig(member=2, data=1), batch=3).devices.ravel().tolist() == jax.devices()[:2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            MeshConfig(member=3, data=3),
            "mesh of 3 x 3 needs 9 devices, but 8 cpu found; lower mesh.member",
        ),
        (MeshConfig(data=0), "mesh.data is 8, but must be a divisor of optim.batch = 12"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        make_mesh(config, batch=12)


def test_every_device_of_several_processes_is_used(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="uses 4 of the 8 devices of 2 processes; set mesh"):
        make_mesh(MeshConfig(member=4), batch=12)
    assert row_mesh(MeshConfig()).size == 8


def test_rows_lie_on_as_many_devices_as_the_run_has():
    assert row_mesh(MeshConfig()) is None
    assert dict(row_mesh(MeshConfig(member=2, data=3)).shape) == {"rows": 6}
    assert dict(row_mesh(MeshConfig(member=2, data=0)).shape) == {"rows": 8}
    assert dict(row_mesh(MeshConfig(member=16, data=16)).shape) == {"rows": 8}  # a run of a larger machine
