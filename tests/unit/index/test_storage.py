import pytest

from lexmax import IndexLockedError
from lexmax.index.storage import replace_file, write_lock


def test_replace_file_and_lock(tmp_path):
    replace_file(tmp_path / "m", b"1")
    replace_file(tmp_path / "m", b"2")
    assert (tmp_path / "m").read_bytes() == b"2"
    with write_lock(tmp_path / "lock"), pytest.raises(IndexLockedError), write_lock(tmp_path / "lock"):
        pass
    with write_lock(tmp_path / "lock"):
        pass
