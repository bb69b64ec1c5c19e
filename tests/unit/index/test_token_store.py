"""The token store: records that are bound to their documents and places."""

import numpy as np
import pytest
from token_vectors import clustered, token_vectors

from lexmax import IndexFormatError
from lexmax.index.array_files import ArrayFile, ArrayFileWriter
from lexmax.index.kernels import read_only
from lexmax.index.kernels.records import checksum, xxh64
from lexmax.index.multivector.clustering import train
from lexmax.index.multivector.codes import MultiVectorIndex, encode_tokens, write_multivector
from lexmax.index.multivector.locality import LEAF_DOCS, locality_order
from lexmax.index.multivector.store import FILE_NAME, KIND

WIDTHS = [3, 0, 8, 1, 8, 0, 16]
PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
MASK = (1 << 64) - 1


@pytest.fixture(scope="module")
def codec():
    return train(clustered(np.random.default_rng(2), 1000, 32), 32)


@pytest.fixture(scope="module")
def vectors():
    return token_vectors(np.random.default_rng(1), WIDTHS)


@pytest.fixture(params=[True, False], ids=["exact", "not exact"])
def folder(request, tmp_path, vectors, codec):
    rows, _ = encode_tokens(codec, vectors.offsets, iter([vectors.tokens]), 2, exact=request.param)
    write_multivector(tmp_path, rows, codec, 2)
    return tmp_path


def oracle(data, seed):
    """XXH64 after its specification, on Python's integers."""
    p1, p2, p3, p4, p5 = PRIMES

    def rotated(x, n):
        return ((x << n) | (x >> (64 - n))) & MASK

    def mixed(lane, word):
        return rotated((lane + word * p2) & MASK, 31) * p1 & MASK

    def words(data, n):
        return [int.from_bytes(data[i : i + n], "little") for i in range(0, len(data), n)]

    whole, eights = len(data) // 32 * 32, len(data) // 8 * 8
    found = (seed + p5) & MASK
    if whole:
        lanes = [(seed + p1 + p2) & MASK, (seed + p2) & MASK, seed, (seed - p1) & MASK]
        for i, word in enumerate(words(data[:whole], 8)):
            lanes[i % 4] = mixed(lanes[i % 4], word)
        found = sum(rotated(lane, n) for lane, n in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            found = ((found ^ mixed(0, lane)) * p1 + p4) & MASK
    found = (found + len(data)) & MASK
    for word in words(data[whole:eights], 8):
        found = (rotated(found ^ mixed(0, word), 27) * p1 + p4) & MASK
    rest = data[eights:]
    if len(rest) >= 4:
        found = (rotated(found ^ (words(rest[:4], 4)[0] * p1 & MASK), 23) * p2 + p3) & MASK
        rest = rest[4:]
    for byte in rest:
        found = rotated(found ^ (byte * p5 & MASK), 11) * p1 & MASK
    found = (found ^ found >> 33) * p2 & MASK
    found = (found ^ found >> 29) * p3 & MASK
    return found ^ found >> 32


def test_xxh64_is_the_published_one():
    assert int(xxh64(read_only(np.empty(0, np.uint8)), np.uint64(0))) == oracle(b"", 0) == 0xEF46DB3751D8E999
    assert int(xxh64(read_only(np.frombuffer(b"abc", np.uint8)), np.uint64(0))) == oracle(b"abc", 0) == 0x44BC2CF5AD770999
    rng = np.random.default_rng(3)
    for n in [*range(70), 1000, 4099]:
        data, seed = rng.integers(0, 256, n).astype(np.uint8), int(rng.integers(0, 1 << 63)) * 2 + 1
        assert int(xxh64(read_only(data), np.uint64(seed))) == oracle(data.tobytes(), seed)


def test_records_hold_what_documents_have(folder, vectors, codec):
    part = MultiVectorIndex(folder, codec)
    store = part.store
    assert store.directory_bytes <= 16 * part.n_docs + 8
    assert sorted(store.slots.tolist()) == list(range(len(WIDTHS)))
    rng = np.random.default_rng(1)
    for positions in ([4], [6, 2, 2, 0], rng.integers(0, len(WIDTHS), 30), []):
        positions = np.array(positions, np.int64)
        codes, encoded = store.unpack(positions)
        spans = [slice(*part.offsets[position : position + 2]) for position in positions]
        assert codes.tolist() == [code for span in spans for code in part.codes[span]]
        wanted = [vectors.tokens[span] for span in spans] or [np.empty((0, 32), np.float32)]
        found = codec.decode(codes, encoded)
        assert np.abs(found - np.concatenate(wanted)).max(initial=0) < (0.02 if store.nbits == 8 else 0.6)
    part.check()


def rewritten(folder, **changes):
    file = ArrayFile(folder / FILE_NAME, KIND)
    arrays = {name: file.array(name, entry.dtype, entry.shape).copy() for name, entry in file._entries.items()}
    for name, change in changes.items():
        change(arrays[name], arrays)
    (folder / FILE_NAME).unlink()
    with ArrayFileWriter(folder / FILE_NAME, KIND) as out:
        for name, array in arrays.items():
            out.add(name, array)


def test_records_that_change_places_are_noticed(folder, codec):
    """The file's own checksums are right: its writer, or what lies below it, took one record for another."""
    store = MultiVectorIndex(folder, codec).store
    first, second = (store.places(np.array([d])).firsts[0] * store.token_bytes for d in (2, 4))  # of equal length
    n = 8 * store.token_bytes

    def swap(records, _):
        records[first : first + n], records[second : second + n] = (
            records[second : second + n].copy(), records[first : first + n].copy(),
        )  # fmt: skip

    rewritten(folder, records=swap)
    store = MultiVectorIndex(folder, codec).store
    for position in (2, 4):
        with pytest.raises(IndexFormatError, match=f"document {position} of the segment, whose record has XXH64"):
            store.unpack(np.array([position]))
    assert len(store.unpack(np.array([0, 1, 3, 6]))[0]) == 20


def test_slots_that_change_places_are_noticed(folder, codec):
    def swap(slots, _):
        slots[[2, 4]] = slots[[4, 2]]

    rewritten(folder, slots=swap)
    with pytest.raises(IndexFormatError, match="XXH64"):
        MultiVectorIndex(folder, codec).store.unpack(np.array([2]))


def test_codes_that_name_no_centroid_are_refused_however_right_their_checksum(folder, codec):
    store = MultiVectorIndex(folder, codec).store
    first, token_bytes = int(store.places(np.array([0])).firsts[0]), store.token_bytes

    def outside(records, arrays):
        record = records[first * token_bytes : (first + 3) * token_bytes]
        record[:2].view(np.uint16)[0] = codec.n_centroids
        arrays["checks"][0] = checksum(read_only(record), np.int32(0), np.int64(first))

    rewritten(folder, records=outside)
    with pytest.raises(IndexFormatError, match="document 0 of the segment"):
        MultiVectorIndex(folder, codec).store.unpack(np.array([0, 1]))


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [("slots", 0, "another's"), ("slots", 0, 7), ("slots", 0, -1), ("starts", 3, 1000), ("starts", -1, 99)],
)
def test_directories_that_would_lead_kernels_astray_are_refused(folder, codec, name, at, value):
    rewritten(folder, **{name: lambda array, _: array.__setitem__(at, array[1] if value == "another's" else value)})
    with pytest.raises(IndexFormatError, match="arrays that fit each other"):
        MultiVectorIndex(folder, codec)


def test_widths_of_another_part_are_refused(folder, codec):
    def other(starts, arrays):
        starts[1:] = np.cumsum(np.roll(np.diff(starts), 1))

    rewritten(folder, starts=other)
    with pytest.raises(IndexFormatError, match="arrays that fit each other"):
        MultiVectorIndex(folder, codec)


def test_a_store_with_other_codes_is_found_by_check(tmp_path, vectors, codec):
    rows, _ = encode_tokens(codec, vectors.offsets, iter([vectors.tokens]), 2, exact=True)
    write_multivector(tmp_path, rows, codec, 2)
    other = tmp_path / "other"
    other.mkdir()
    rows.codes[:] = np.roll(rows.codes, 1)
    write_multivector(other, rows, codec, 2)
    (other / FILE_NAME).replace(tmp_path / FILE_NAME)
    with pytest.raises(IndexFormatError, match=r"the codes of multivector\.lex"):
        MultiVectorIndex(tmp_path, codec).check()


def test_documents_about_one_thing_stand_side_by_side(codec):
    rng = np.random.default_rng(5)
    n_topics, per_topic, n_tokens = 16, 64, 5
    topics = rng.permutation(np.repeat(np.arange(n_topics), per_topic))
    words = rng.permutation(codec.n_centroids)[: 2 * n_topics].reshape(n_topics, 2)
    codes = words[topics][:, rng.integers(0, 2, n_tokens)].reshape(-1).astype(np.uint16)
    order = locality_order(np.arange(0, n_tokens * len(topics) + 1, n_tokens), codes, codec)
    assert sorted(order.tolist()) == list(range(len(topics)))
    together = np.mean(topics[order[1:]] == topics[order[:-1]])
    assert together > 0.8 > 0.1 > np.mean(topics[1:] == topics[:-1])
    alike = np.zeros(3 * LEAF_DOCS, np.uint16)
    assert sorted(locality_order(np.arange(len(alike) + 1), alike, codec)) == list(range(len(alike)))
    assert len(locality_order(np.zeros(1, np.int64), alike[:0], codec)) == 0
