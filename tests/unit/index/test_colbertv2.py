"""ColBERTv2's codec against its published layout, and against the same arithmetic in torch."""

import numpy as np
import pytest
import torch
from token_vectors import clustered, unit

from lexmax.index.multivector import colbertv2
from lexmax.index.multivector.colbertv2 import BITS, ColbertV2Codec, pack, unpack

DIM, N_CENTROIDS = 32, 48


@pytest.fixture(scope="module")
def tokens():
    return clustered(np.random.default_rng(1), 3000, DIM)


@pytest.fixture(scope="module")
def centroids():
    return unit(np.random.default_rng(DIM).standard_normal((N_CENTROIDS, DIM)))


@pytest.fixture(scope="module", params=BITS)
def codec(request, centroids):
    return ColbertV2Codec.fit(centroids, clustered(np.random.default_rng(2), 2000, DIM), request.param)


@pytest.mark.parametrize(
    ("nbits", "buckets", "expected"),
    [(2, [1, 2, 3, 0], 0x9C), (4, [1, 14], 0x87), (1, [1, 0, 0, 0, 0, 0, 0, 1], 0x81), (8, [1], 0x80), (8, [6], 0x60)],
)
def test_bytes_are_those_of_colbert(nbits, buckets, expected):
    rows = np.array([buckets], np.uint8)
    assert pack(rows, nbits).tolist() == [[expected]]
    assert unpack(np.array([[expected]], np.uint8), nbits).tolist() == [buckets]


@pytest.mark.parametrize("nbits", BITS)
def test_what_is_packed_is_unpacked(nbits):
    buckets = np.random.default_rng(3).integers(0, 1 << nbits, (50, 24)).astype(np.uint8)
    packed = pack(buckets, nbits)
    assert packed.shape == (50, 24 * nbits // 8)
    assert np.array_equal(unpack(packed, nbits), buckets)


def test_buckets_are_quantiles_of_the_held_out_residuals(centroids):
    heldout = clustered(np.random.default_rng(2), 500, DIM)
    codec = ColbertV2Codec.fit(centroids, heldout, 2)
    residuals = torch.from_numpy(heldout - centroids[(heldout @ centroids.T).argmax(axis=1)])
    points = torch.arange(0, 4) / 4
    assert np.allclose(codec.cutoffs, residuals.quantile(points[1:]), atol=1e-6)
    assert np.allclose(codec.weights, residuals.quantile(points + 0.125), atol=1e-6)


def test_encoding_and_decoding_agree_with_torch(codec, tokens):
    codes, packed = codec.encode(tokens)
    given, centroids = torch.from_numpy(tokens), torch.from_numpy(codec.centroids)
    expected_codes = (centroids @ given.T).max(dim=0).indices
    assert np.array_equal(codes, expected_codes)
    buckets = torch.bucketize(given - centroids[expected_codes], torch.from_numpy(codec.cutoffs))
    assert np.array_equal(unpack(packed, codec.nbits), buckets)
    sums = centroids[expected_codes] + torch.from_numpy(codec.weights)[buckets]
    decoded = codec.decode(codes, packed)
    assert decoded.dtype == np.float32
    assert np.allclose(decoded, torch.nn.functional.normalize(sums, dim=-1), atol=1e-6)


def test_a_coordinate_on_a_border_belongs_below():
    codec = ColbertV2Codec(np.zeros((1, 8), np.float32), np.array([-1, 0, 1], np.float32), np.arange(4, dtype=np.float32))
    row = np.array([[-1, 0, 1, -2, -0.5, 0.5, 2, np.nextafter(np.float32(1), np.float32(2))]], np.float32)
    _, packed = codec.encode(row)
    assert unpack(packed, 2).tolist() == [[0, 1, 2, 0, 1, 2, 3, 3]]


def test_chunks_make_no_difference(codec, tokens, monkeypatch):
    whole = codec.encode(tokens)
    monkeypatch.setattr(colbertv2, "CHUNK_TOKENS", 7)
    monkeypatch.setattr(colbertv2, "CHUNK_PRODUCTS", 5 * N_CENTROIDS)
    parts = codec.encode(tokens)
    assert all(np.array_equal(left, right) for left, right in zip(whole, parts, strict=True))
    assert np.array_equal(codec.decode(*whole)[:100], codec.decode(parts[0][:100], parts[1][:100]))


def test_more_bits_err_less(centroids, tokens):
    heldout = clustered(np.random.default_rng(2), 2000, DIM)
    codecs = [ColbertV2Codec.fit(centroids, heldout, nbits) for nbits in BITS]
    errors = [float(np.linalg.norm(codec.decode(*codec.encode(tokens)) - tokens, axis=1).mean()) for codec in codecs]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


def test_no_tokens_are_encoded_to_nothing(codec):
    codes, packed = codec.encode(np.empty((0, DIM), np.float32))
    assert (codes.shape, packed.shape) == ((0,), (0, codec.width))
    assert codec.decode(codes, packed).shape == (0, DIM)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"centroids": np.ones((3, 12), np.float32)}, "multiple of 8"),
        ({"centroids": np.ones((0, 8), np.float32)}, "multiple of 8"),
        ({"centroids": np.full((3, 8), np.nan, np.float32)}, "finite"),
        ({"centroids": np.ones((3, 8))}, "float32"),
        ({"cutoffs": np.array([1, 0, 2], np.float32)}, "rise"),
        ({"cutoffs": np.zeros(2, np.float32)}, "2 cutoffs and 4 weights"),
        ({"cutoffs": np.zeros(7, np.float32), "weights": np.zeros(8, np.float32)}, "7 cutoffs and 8 weights"),
    ],
)
def test_arrays_that_make_no_codec_are_refused(wrong, message):
    arrays = {"centroids": np.ones((3, 8), np.float32), "cutoffs": np.zeros(3, np.float32), "weights": np.zeros(4, np.float32)}
    with pytest.raises(ValueError, match=message):
        ColbertV2Codec(**{**arrays, **wrong})


def test_wrong_fits_are_refused(centroids, tokens):
    with pytest.raises(ValueError, match="nbits is 3"):
        ColbertV2Codec.fit(centroids, tokens, 3)
    with pytest.raises(ValueError, match="held-out"):
        ColbertV2Codec.fit(centroids, tokens[:0], 2)
    with pytest.raises(ValueError, match="dim 32"):
        ColbertV2Codec.fit(centroids, tokens[:, :8], 2)


def test_codes_and_residuals_that_do_not_fit_are_refused(codec, tokens):
    codes, packed = codec.encode(tokens[:4])
    with pytest.raises(ValueError, match="of 48 centroids"):
        codec.decode(codes - N_CENTROIDS, packed)
    with pytest.raises(ValueError, match="of 48 centroids"):
        codec.decode(codes + N_CENTROIDS, packed)
    with pytest.raises(ValueError, match="bytes a token"):
        codec.decode(codes[:3], packed)
    with pytest.raises(ValueError, match="dim 32"):
        codec.encode(tokens[:, :8])
