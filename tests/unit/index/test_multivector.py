"""The files of a segment's token vectors."""

import shutil

import numpy as np
import pytest
from token_vectors import clustered, token_vectors

from lexmax import IndexFormatError, RepresentationError
from lexmax.index.array_files import ArrayFile, ArrayFileWriter
from lexmax.index.multivector.clustering import train
from lexmax.index.multivector.codes import (
    FILE_NAME,
    KIND,
    MultiVectorIndex,
    TokenRows,
    encode_tokens,
    write_multivector,
)
from lexmax.index.multivector.residual import Encoded
from lexmax.index.multivector.store import FILE_NAME as STORE_NAME
from lexmax.index.multivector.store import KIND as STORE_KIND
from lexmax.index.representations.multivectors import MultiVectors

WIDTHS = [3, 0, 40, 1, 0, 16]


@pytest.fixture(scope="module")
def vectors():
    return token_vectors(np.random.default_rng(1), WIDTHS)


@pytest.fixture(scope="module")
def codec():
    return train(clustered(np.random.default_rng(2), 1000, 32), 32)


@pytest.fixture
def folder(tmp_path, vectors, codec):
    write(tmp_path, vectors, codec)
    return tmp_path


def write(folder, vectors, codec, *, exact=True, nbits=2):
    batches = iter([vectors.tokens[:20], vectors.tokens[20:20], vectors.tokens[20:]])
    rows, errors = encode_tokens(codec, vectors.offsets, batches, nbits, exact=exact)
    write_multivector(folder, rows, codec, nbits)
    return rows, errors


def test_what_is_written_is_read(folder, vectors, codec):
    index = MultiVectorIndex(folder, codec)
    assert (index.n_docs, index.dim, index.nbits, index.totals()) == (6, 32, 2, {"n_tokens": 60})
    assert index.offsets.tolist() == vectors.offsets.tolist()
    assert np.abs(index.tokens(codec, 0, 6) - vectors.tokens).max() < 0.02  # from 8 bits
    assert index.tokens(codec, 1, 2).shape == (0, 32)
    rotated = index.tokens(codec, 0, 6, rotated=True)
    assert np.array_equal(index.tokens(codec, 2, 4, rotated=True), rotated[3:44])  # rotation is BLAS's, whose bits vary
    assert np.allclose(index.tokens(codec, 2, 4), index.tokens(codec, 0, 6)[3:44], atol=1e-5)
    assert np.allclose(rotated @ codec.rotation.T, index.tokens(codec, 0, 6), atol=1e-5)
    index.check()
    for centroid in range(codec.n_centroids):
        listed = index.list_documents[index.list_starts[centroid] : index.list_starts[centroid + 1]]
        expected = [d for d in range(6) if centroid in index.codes[index.offsets[d] : index.offsets[d + 1]]]
        assert listed.tolist() == expected


def test_the_residual_is_what_centroids_leave_over(tmp_path, vectors, codec):
    rows, errors = write(tmp_path, vectors, codec)
    centroids = codec.mean + codec.centroid_scale * (codec.centroids[rows.codes].astype(float) - 128)
    assert errors["residual"] == pytest.approx(
        np.linalg.norm(codec.rotate(vectors.tokens) - centroids, axis=1).mean(), rel=1e-4
    )


def test_without_exact_tokens_the_small_ones_are_decoded(tmp_path, vectors, codec):
    write(tmp_path, vectors, codec, exact=False, nbits=4)
    index = MultiVectorIndex(tmp_path, codec)
    assert index.small is None
    assert index.store.nbits == 4
    rows = index.rows()
    assert rows.exact is None
    assert np.allclose(index.tokens(codec, 0, 6), codec.decode(rows.codes, rows.small), atol=1e-5)


def test_rows_of_live_documents(folder, vectors, codec):
    index = MultiVectorIndex(folder, codec)
    live = np.array([True, True, False, True, False, True])
    rows, whole = index.rows(live), index.rows()
    kept = np.repeat(live, WIDTHS)
    assert rows.offsets.tolist() == [0, 3, 3, 4, 20]
    assert np.array_equal(rows.codes, whole.codes[kept])
    for part, all_of_it in ((rows.small, whole.small), (rows.exact, whole.exact)):
        assert np.array_equal(part.levels, all_of_it.levels[kept])
        assert np.array_equal(part.scalars, all_of_it.scalars[kept])
    assert index.rows(np.zeros(6, np.bool_)).offsets.tolist() == [0]


def test_no_documents_and_documents_without_tokens(tmp_path, codec):
    for n in (0, 3):
        empty = MultiVectors.of([np.empty((0, 32), np.float32)] * n, 32)
        write(tmp_path, empty, codec)
        index = MultiVectorIndex(tmp_path, codec)
        index.check()
        assert (index.n_docs, index.totals()) == (n, {"n_tokens": 0})
        assert index.tokens(codec, 0, n).shape == (0, 32)
        assert len(index.rows().codes) == 0


@pytest.mark.parametrize(("name", "kind"), [(FILE_NAME, KIND), (STORE_NAME, STORE_KIND)])
def test_a_flipped_bit_in_any_array_and_a_short_file_are_found(folder, codec, name, kind):
    path = folder / name
    whole = path.read_bytes()
    entries = ArrayFile(path, kind)._entries
    assert len(entries) == (7 if kind == KIND else 4)
    for array, entry in entries.items():
        at = (entry.offset + entry.end) // 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(IndexFormatError, match=rf"of array .*{array!r}") as caught:
            MultiVectorIndex(folder, codec).rows()
        assert caught.value.path == path
    for n_bytes in (0, 63, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(IndexFormatError, match=name):
            MultiVectorIndex(folder, codec)


def test_the_codec_must_be_the_one_it_was_written_with(folder, vectors, codec):
    for other in (
        train(clustered(np.random.default_rng(3), 500, 32), 16),
        train(clustered(np.random.default_rng(3), 500, 64), 32),
    ):
        with pytest.raises(IndexFormatError, match="arrays that fit"):
            MultiVectorIndex(folder, other)


def all_arrays(file):
    return {name: file.array(name, entry.dtype, entry.shape).copy() for name, entry in file._entries.items()}


def changed(array, at, value):
    copy = array.copy()
    copy[at] = value
    return copy


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("shape", lambda a: changed(a, 0, 7)),
        ("shape", lambda a: changed(a, 2, 3)),
        ("offsets", lambda a: changed(a, 1, 50)),
        ("offsets", lambda a: changed(a, -1, 61)),
        ("offsets", lambda a: a[:-1]),
        ("codes", lambda a: changed(a, 5, 32)),
        ("codes", lambda a: a[:-1]),
        ("list_starts", lambda a: changed(a, 3, 10_000)),
        ("list_starts", lambda a: a[1:]),
        ("list_documents", lambda a: changed(a, 0, 6)),
        ("list_documents", lambda a: changed(a, 0, -1)),
        ("levels", lambda a: a[:, :-1]),
        ("scalars", lambda a: a[:-1]),
    ],
)
def test_arrays_that_would_lead_kernels_astray_are_refused(folder, codec, name, change):
    """Checksums are right, contents are not: a foreign or faulty writer."""
    file = ArrayFile(folder / FILE_NAME, KIND)
    arrays = all_arrays(file)
    arrays[name] = change(arrays[name])
    (folder / FILE_NAME).unlink()
    with ArrayFileWriter(folder / FILE_NAME, KIND) as out:
        for array, values in arrays.items():
            out.add(array, values)
    with pytest.raises(IndexFormatError, match="arrays that fit"):
        MultiVectorIndex(folder, codec)


def test_exact_tokens_of_other_documents_are_refused(folder, tmp_path_factory, vectors, codec):
    other = tmp_path_factory.mktemp("other")
    write(other, vectors.select(np.arange(3)), codec)
    shutil.copy(other / STORE_NAME, folder / STORE_NAME)
    with pytest.raises(IndexFormatError, match="fit each other"):
        MultiVectorIndex(folder, codec)


def test_check_finds_lists_that_do_not_follow_from_the_codes(tmp_path, vectors, codec):
    rows, _ = write(tmp_path, vectors, codec)
    other = np.roll(rows.codes, 5)
    file = ArrayFile(tmp_path / FILE_NAME, KIND)
    arrays = all_arrays(file) | {"codes": other}
    (tmp_path / FILE_NAME).unlink()
    with ArrayFileWriter(tmp_path / FILE_NAME, KIND) as out:
        for array, values in arrays.items():
            out.add(array, values)
    index = MultiVectorIndex(tmp_path, codec)
    with pytest.raises(IndexFormatError, match="lists that follow"):
        index.check()


def test_token_rows_are_written_as_they_are(tmp_path, codec):
    rows = TokenRows(
        offsets=np.array([0, 2], np.int64),
        codes=np.array([31, 31], np.uint16),
        small=Encoded(np.arange(16, dtype=np.uint8).reshape(2, 8), np.array([[1, 2], [3, 4]], np.uint8)),
        exact=None,
    )
    write_multivector(tmp_path, rows, codec, 2)
    index = MultiVectorIndex(tmp_path, codec)
    codes, stored = index.store.unpack(np.arange(1))
    assert codes.tolist() == [31, 31]
    assert stored.levels.tolist() == rows.small.levels.tolist()
    assert stored.scalars.tolist() == [[1, 2], [3, 4]]
    assert index.list_documents.tolist() == [0]  # once, however many tokens
    assert index.list_starts.tolist() == [0] * 32 + [1]


@pytest.mark.parametrize(
    ("offsets", "tokens", "message"),
    [
        ([0, 1], np.full((1, 4), 0.6, np.float32), "token 0 has 1.2"),
        ([0, 1], np.full((1, 4), np.nan, np.float32), "token 0 has nan"),
        ([0, 2], np.full((1, 4), 0.5, np.float32), "end at the number"),
        ([1, 1], np.full((1, 4), 0.5, np.float32), "start at 0"),
        ([0, 1, 0, 1], np.full((1, 4), 0.5, np.float32), "never fall"),
        ([0, 1], np.full((1, 4), 0.5, np.float64), "float32"),
        ([0, 0], np.empty((0, 0), np.float32), "dim"),
    ],
)
def test_token_vectors_are_checked(offsets, tokens, message):
    with pytest.raises(RepresentationError, match=message):
        MultiVectors(np.array(offsets, np.int64), tokens)


def test_the_round_trip_is_measured(tmp_path, vectors, codec):
    rows, errors = write(tmp_path, vectors, codec, exact=True)
    for name, encoded in (("round_trip", rows.small), ("exact_round_trip", rows.exact)):
        distances = np.linalg.norm(vectors.tokens - codec.decode(rows.codes, encoded), axis=1)
        assert errors[name] == pytest.approx(distances.mean(), rel=0.05)
    assert errors["exact_round_trip"] < errors["round_trip"] < errors["residual"]
