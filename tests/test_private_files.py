"""Files of a store are for its own user only."""

import os
import stat

import pytest

from logstore.node.node_dir import NodeDir
from logstore.process.private_files import as_private_as, private_dir


def test_a_folder_is_made_for_its_own_user_only_and_one_that_was_open_is_closed(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    for name in ("made/in/depth", "open"):
        private_dir(tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700


@pytest.mark.parametrize(("mode", "wanted"), [(0o700, 0o600), (0o755, 0o644)])
def test_a_command_makes_files_as_private_as_the_folder_they_are_for(tmp_path, mode, wanted):
    folder = tmp_path / "storage"
    folder.mkdir()
    folder.chmod(mode)
    before = os.umask(0o022)
    try:
        as_private_as(folder / "not" / "made")
        (folder / "file").touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "file").stat().st_mode) == wanted


def test_no_file_of_a_running_store_may_be_opened_by_others(dev):
    root = NodeDir(dev.data).path
    open_to_others = {
        path
        for folder, folders, files in os.walk(root)
        for path in (os.path.join(folder, name) for name in (*folders, *files))
        if os.path.lexists(path) and stat.S_IMODE(os.lstat(path).st_mode) & 0o077 and not os.path.islink(path)
    }
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert open_to_others == set()
