import json
import re
import struct
import zlib

import numpy as np
import pytest

from lexmax import IndexFormatError, StorageError
from lexmax.index.array_files import ArrayFile, ArrayFileWriter
from lexmax.index.kernels.checksums import CHUNK_BYTES, Checked, crc32, is_unread, verify_span
from lexmax.index.preludes import read_record


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.lex"
    with ArrayFileWriter(path, "test") as out:
        out.add("offsets", np.arange(5, dtype=np.int64))
        out.add("table", np.arange(12, dtype=np.float32).reshape(3, 4))
        out.add("empty", np.empty(0, np.uint16))
        with out.stream("bytes") as sink:
            sink.write(b"first ")
            sink.write(b"second")
    return path


@pytest.fixture
def large(tmp_path):
    """An array of three chunks and a bit."""
    path = tmp_path / "large.lex"
    with ArrayFileWriter(path, "test") as out:
        out.add("numbers", np.random.default_rng(1).integers(0, 256, 3 * CHUNK_BYTES + 5, np.uint8))
    return path


def with_directory(path, text):
    """Replace the directory; every checksum is right again."""
    whole = bytearray(path.read_bytes())
    (offset,) = struct.unpack_from("<Q", whole, 44)
    n_chunks = -(-(offset - 64) // CHUNK_BYTES)
    tail = bytes(whole[offset : offset + 4 * n_chunks]) + text
    struct.pack_into("<I", whole, 52, zlib.crc32(tail))
    struct.pack_into("<I", whole, 56, zlib.crc32(bytes(whole[:56])))
    path.write_bytes(bytes(whole[:offset]) + tail)


def test_arrays_come_back_read_only_and_aligned(path):
    file = ArrayFile(path, "test")
    assert file.array("offsets", "int64", (5,)).tolist() == [0, 1, 2, 3, 4]
    table = file.array("table", "float32", (None, 4))
    assert table.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert not table.flags.writeable
    assert table.ctypes.data % 64 == 0
    assert len(file.array("empty", ("uint8", "uint16"), (0,))) == 0
    assert file.array("bytes", "uint8", (12,)).tobytes() == b"first second"
    assert file.sizes() == {"offsets": 40, "table": 48, "empty": 0, "bytes": 12}


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [("offsets", "int32", (5,)), ("offsets", "int64", (4,)), ("table", "float32", (None,)), ("table", "float32", (4, None))],
)
def test_an_array_of_another_type_or_shape_is_refused(path, name, dtype, shape):
    with pytest.raises(IndexFormatError, match=rf"a\.lex: expected arrays that fit each other: '{name}' of {dtype}"):
        ArrayFile(path, "test").array(name, dtype, shape)


def test_an_array_of_another_version_is_asked_for_in_vain(path):
    with pytest.raises(IndexFormatError, match=r"a\.lex: expected an array 'rows', found .*build the index again"):
        ArrayFile(path, "test").array("rows", "int64", (None,))


def test_every_single_flipped_bit_is_found(path):
    content = bytearray(path.read_bytes())
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        with pytest.raises(IndexFormatError):
            ArrayFile(path, "test").verify()


def test_every_truncation_is_found(path):
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(IndexFormatError, match=r"a\.lex"):
            ArrayFile(path, "test")


def test_a_chunk_is_verified_when_it_is_first_read(large):
    content = bytearray(large.read_bytes())
    content[64 + CHUNK_BYTES + 7] ^= 1
    large.write_bytes(content)
    file = ArrayFile(large, "test")
    numbers = file.unverified("numbers", "uint8", (None,))
    file.verify(numbers[:CHUNK_BYTES])
    file.verify(numbers[2 * CHUNK_BYTES :])
    file.verify(numbers[:0])
    with pytest.raises(IndexFormatError, match=r"CRC-32 [0-9a-f]{8} of bytes 65600 to 131136, of array 'numbers', found"):
        file.verify(numbers[CHUNK_BYTES - 1 : CHUNK_BYTES + 1])
    file.verify(numbers[:1])
    with pytest.raises(IndexFormatError, match="bytes 65600 to 131136"):  # what a kernel's caller asks
        file.raise_damage()


def test_memory_outside_the_file_is_none_of_its_arrays(path):
    with pytest.raises(IndexFormatError, match="memory of this file"):
        ArrayFile(path, "test").verify(np.zeros(4))


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 100, 65536])
def test_kernels_have_the_crc_of_zlib(n):
    data = np.random.default_rng(n).integers(0, 256, n, np.uint8)
    data.flags.writeable = False
    assert int(crc32(data)) == zlib.crc32(data.tobytes())


def test_spans_cover_the_chunks_that_they_touch(large):
    checked = ArrayFile(large, "test").checked
    n = len(checked.content)
    spans = [(CHUNK_BYTES - 1, CHUNK_BYTES, [0]), (CHUNK_BYTES, 3 * CHUNK_BYTES, [1, 2]), (n - 1, n, [3]), (0, n, [0, 1, 2, 3])]
    for first, end, chunks in spans:
        fresh = Checked(checked.content, checked.checksums, np.zeros_like(checked.states))
        assert is_unread(fresh.states, first, end)
        verify_span(fresh, first, end)
        assert np.flatnonzero(fresh.states).tolist() == chunks
        assert not is_unread(fresh.states, first, end)
    verify_span(checked, 0, 0)
    verify_span(checked, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES)
    assert not checked.states.any()


@pytest.mark.parametrize(
    "directory",
    [
        "", "{", "[]", "1", "null", '{"a": 1}', '{"a": []}', '{"a": ["int64", [1], 64, 0]}', "[" * 100_000, "\xff",
        *(f'{{"a": ["int64", {shape}, 64]}}' for shape in ("5", "[-1]", "[1.5]", "[true]", "[1e30]", "[100000]", "[0, 1e30]")),
        '{"a": ["int64", [4611686018427387904, 2], 64]}', '{"a": ["object", [1], 64]}', '{"a": [["int64"], [1], 64]}',
        *(f'{{"a": ["int64", [1], {offset}]}}' for offset in ("-64", "0", "65", '"64"', "64000", "9" * 5000)),
        '{"a": ["int64", [2], 64], "b": ["int64", [1], 64]}',
    ],
)  # fmt: skip
def test_a_malformed_directory_with_right_checksums_is_refused(path, directory):
    with_directory(path, directory.encode("latin-1"))
    with pytest.raises(IndexFormatError, match=r"a\.lex: expected"):
        ArrayFile(path, "test").array("a", "int64", (None,))


def test_a_directory_that_was_only_rewritten_is_taken(path):
    whole = path.read_bytes()
    directory = json.loads(whole[whole.rindex(b"{") :])
    with_directory(path, json.dumps(directory, indent=1).encode())
    assert ArrayFile(path, "test").array("offsets", "int64", (5,)).tolist() == [0, 1, 2, 3, 4]


def test_a_file_is_told_from_its_equal(path, tmp_path):
    one = read_record(path)
    assert one == ArrayFile(path, "test").record
    assert re.fullmatch("[0-9a-f]{32}", one.id)
    with ArrayFileWriter(tmp_path / "b.lex", "test") as out:
        out.add("a", np.zeros(1, np.int64))
    with ArrayFileWriter(tmp_path / "c.lex", "test") as out:
        out.add("a", np.zeros(1, np.int64))
    b, c = read_record(tmp_path / "b.lex"), read_record(tmp_path / "c.lex")
    assert b.n_bytes == c.n_bytes
    assert b.id != c.id


def test_foreign_newer_older_other_kind_and_missing_files_are_refused(path, tmp_path):
    with pytest.raises(IndexFormatError, match="kind"):
        ArrayFile(path, "other")
    with pytest.raises(IndexFormatError, match="nothing there"):
        ArrayFile(tmp_path / "none.lex", "test")
    for version, advice in ((99, "upgrade"), (1, "build the index again")):
        content = bytearray(path.read_bytes())
        struct.pack_into("<I", content, 8, version)
        struct.pack_into("<I", content, 56, zlib.crc32(bytes(content[:56])))
        (tmp_path / "v.lex").write_bytes(content)
        with pytest.raises(IndexFormatError, match=advice):
            ArrayFile(tmp_path / "v.lex", "test")
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(IndexFormatError, match="not a lexmax file"):
        ArrayFile(path, "test")


def test_a_file_whose_writing_failed_is_no_file(tmp_path):
    path = tmp_path / "b.lex"
    with pytest.raises(TypeError), ArrayFileWriter(path, "test") as out:
        out.add("a", np.array([1j]))
    with pytest.raises(IndexFormatError):
        ArrayFile(path, "test")


def test_what_the_disk_refuses_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"b\.lex: cannot be written"):
        ArrayFileWriter(tmp_path / "no folder" / "b.lex", "test")
    (tmp_path / "full").symlink_to("/dev/full")
    with (
        pytest.raises(StorageError, match="full: cannot be written: No space left"),
        ArrayFileWriter(tmp_path / "full", "test") as out,
    ):
        out.add("a", np.zeros(1 << 20, np.int64))


def test_only_known_dtypes_are_written(tmp_path):
    with pytest.raises(TypeError), ArrayFileWriter(tmp_path / "c.lex", "test") as out:
        out.add("a", np.array(["x"], dtype=object))
