import numpy as np
import pytest

from lexmax import IndexFormatError, IndexLockedError
from lexmax.index.storage import ArrayFile, ArrayFileWriter, replace_file, write_lock


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.lex"
    with ArrayFileWriter(path, "test") as out:
        out.add("offsets", np.arange(5, dtype=np.int64), structural=True)
        out.add("table", np.arange(12, dtype=np.float32).reshape(3, 4))
        out.add("empty", np.empty(0, np.uint16))
        with out.stream("bytes") as sink:
            sink.write(b"first ")
            sink.write(b"second")
    return path


def test_arrays_come_back_read_only_and_aligned(file):
    arrays = ArrayFile(file, "test")
    assert arrays["offsets"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["table"].shape == (3, 4)
    assert arrays["table"].dtype == np.float32
    assert len(arrays["empty"]) == 0
    assert arrays["bytes"].tobytes() == b"first second"
    assert not arrays["table"].flags.writeable
    assert arrays["table"].ctypes.data % 64 == 0


def test_every_single_flipped_bit_is_found(file):
    content = bytearray(file.read_bytes())
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        file.write_bytes(damaged)
        with pytest.raises(IndexFormatError):
            ArrayFile(file, "test")


def test_every_truncation_is_found(file):
    content = file.read_bytes()
    for size in range(len(content)):
        file.write_bytes(content[:size])
        with pytest.raises(IndexFormatError, match=r"a\.lex"):
            ArrayFile(file, "test")


def test_bulk_damage_is_found_when_asked_for(file):
    content = bytearray(file.read_bytes())
    entry = ArrayFile(file, "test")._entries["table"]
    content[entry["offset"]] ^= 1
    file.write_bytes(content)
    arrays = ArrayFile(file, "test", verify=False)
    with pytest.raises(IndexFormatError, match="table"):
        arrays.verify()


def test_an_array_of_another_version_is_asked_for_in_vain(file):
    with pytest.raises(IndexFormatError, match=r"a\.lex: expected an array 'rows', found .*build the index again"):
        ArrayFile(file, "test")["rows"]


def test_foreign_newer_other_kind_and_missing_files_are_refused(file, tmp_path):
    with pytest.raises(IndexFormatError, match="kind"):
        ArrayFile(file, "other")
    with pytest.raises(IndexFormatError, match="nothing there"):
        ArrayFile(tmp_path / "none.lex", "test")
    import struct
    import zlib

    content = bytearray(file.read_bytes())
    content[8:12] = struct.pack("<I", 99)
    content[56:60] = b"\0\0\0\0"
    prelude = bytes(content[:60])[:56]
    content[56:60] = struct.pack("<I", zlib.crc32(prelude))
    file.write_bytes(content)
    with pytest.raises(IndexFormatError, match="upgrade"):
        ArrayFile(file, "test")
    file.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(IndexFormatError, match="not a lexmax file"):
        ArrayFile(file, "test")


def test_a_file_whose_writing_failed_is_no_file(tmp_path):
    path = tmp_path / "b.lex"
    with pytest.raises(TypeError), ArrayFileWriter(path, "test") as out:
        out.add("a", np.array([1j]))
    with pytest.raises(IndexFormatError):
        ArrayFile(path, "test")


def test_only_known_dtypes_are_written(tmp_path):
    with pytest.raises(TypeError), ArrayFileWriter(tmp_path / "c.lex", "test") as out:
        out.add("a", np.array(["x"], dtype=object))


def test_replace_file_and_lock(tmp_path):
    replace_file(tmp_path / "m", b"1")
    replace_file(tmp_path / "m", b"2")
    assert (tmp_path / "m").read_bytes() == b"2"
    with write_lock(tmp_path / "lock"), pytest.raises(IndexLockedError), write_lock(tmp_path / "lock"):
        pass
    with write_lock(tmp_path / "lock"):
        pass
