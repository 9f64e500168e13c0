# SPDX-License-Identifier: Apache-2.0
from ncjax.storage.temporary import TemporaryFolder


def test_folder_goes_with_its_last_user():
    folder = TemporaryFolder()
    also = folder
    (folder.path / "file").write_text("content")
    path = folder.path
    del folder
    assert path.is_dir()
    del also
    assert not path.exists()
