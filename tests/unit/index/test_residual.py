import numpy as np
import pytest
from token_vectors import clustered, unit

from lexmax import IndexFormatError
from lexmax.index.array_files import ArrayFile
from lexmax.index.multivector import residual
from lexmax.index.multivector.clustering import MAX_CENTROIDS, default_n_centroids, train
from lexmax.index.multivector.config import MultiVectorConfig
from lexmax.index.multivector.residual import STEPS, Codec, allowed_bits


def round_trip(codec, tokens, nbits):
    rotated = codec.rotate(tokens)
    codes = codec.assign(rotated)
    encoded, _ = codec.encode(rotated, codes, nbits)
    return codec.decode(codes, encoded)


def mean_error(codec, tokens, nbits):
    return float(np.linalg.norm(round_trip(codec, tokens, nbits) - tokens, axis=1).mean())


@pytest.fixture(scope="module")
def tokens():
    return clustered(np.random.default_rng(1), 6000, 64)


@pytest.fixture(scope="module")
def codec(tokens):
    return train(tokens, 128)


def test_more_bits_err_less_and_reconstructions_have_unit_length(codec):
    fresh = clustered(np.random.default_rng(2), 2000, 64)
    errors = [mean_error(codec, fresh, nbits) for nbits in STEPS]
    assert np.all(np.diff(errors) < 0)
    assert errors[-1] < 0.01
    for nbits in STEPS:
        lengths = np.linalg.norm(round_trip(codec, fresh, nbits), axis=1)
        assert np.abs(lengths - 1).max() < {1: 0.05, 2: 0.03, 4: 0.01, 8: 0.01}[nbits]


def test_eight_bits_are_within_a_hundredth_of_maxsim(codec):
    rng = np.random.default_rng(3)
    document = clustered(rng, 2000, 64)
    query = clustered(rng, 32, 64)
    exact, coded = (query @ matrix.T for matrix in (document, round_trip(codec, document, 8)))
    for first in range(0, 2000, 40):
        span = slice(first, first + 40)
        assert coded[:, span].max(axis=1).sum() == pytest.approx(exact[:, span].max(axis=1).sum(), abs=0.01)


@pytest.mark.parametrize("nbits", list(STEPS))
def test_levels_are_packed_in_planes(codec, tokens, nbits):
    """Level ``i`` of dimension ``c * width + j`` is at bits ``c * nbits`` of byte ``j``, as documented."""
    rotated = codec.rotate(tokens[:50])
    codes = codec.assign(rotated)
    encoded, _ = codec.encode(rotated, codes, nbits)
    width = 64 * nbits // 8
    assert encoded.levels.shape == (50, width)
    levels = np.empty((50, 64))
    for dimension in range(64):
        plane, byte = divmod(dimension, width)
        levels[:, dimension] = encoded.levels[:, byte] >> (plane * nbits) & ((1 << nbits) - 1)
    ranges = codec.ranges[nbits].astype(float)
    inverse, scale = (ranges[i, 0] + ranges[i, 1] * encoded.scalars[:, i : i + 1] for i in range(2))
    centroids = codec.mean + codec.centroid_scale * (codec.centroids[codes].astype(float) - 128)
    expected = inverse * centroids + scale * (levels - ((1 << nbits) - 1) / 2)
    assert np.allclose(codec.decode(codes, encoded, rotated=True), expected, atol=1e-5)
    assert np.allclose(codec.decode(codes, encoded), expected @ codec.rotation.T, atol=1e-5)


def squared_distances(codec, rotated):
    centroids = codec.mean + codec.centroid_scale * (codec.centroids.astype(float) - 128)
    return np.square(rotated[:, None] - centroids).sum(axis=2)


def test_assignment_finds_the_nearest_centroid_nearly_always(codec):
    rotated = codec.rotate(clustered(np.random.default_rng(4), 1500, 64))
    distances = squared_distances(codec, rotated)
    found = codec.assign(rotated)
    assert np.mean(found == distances.argmin(axis=1)) > 0.97
    excess = distances[np.arange(1500), found] - distances.min(axis=1)
    assert excess.mean() < 0.01 * distances.min(axis=1).mean()


def test_assignment_over_all_groups_is_exact(codec, monkeypatch):
    monkeypatch.setattr(residual, "N_PROBE", len(codec.group_starts))
    rotated = codec.rotate(clustered(np.random.default_rng(5), 1500, 64))
    distances = squared_distances(codec, rotated)
    excess = distances[np.arange(1500), codec.assign(rotated)] - distances.min(axis=1)
    assert excess.max() < 2e-3  # what rounding tokens to bytes can hide
    assert np.mean(excess == 0) > 0.99


def test_the_same_seed_makes_the_same_codec(tokens):
    one, two, other = train(tokens, 64), train(tokens, 64), train(tokens, 64, seed=2)
    for name in ("rotation", "mean", "centroids", "group_starts"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert all(np.array_equal(one.ranges[nbits], two.ranges[nbits]) for nbits in STEPS)
    assert not np.array_equal(one.rotation, other.rotation)
    assert np.allclose(one.rotation @ one.rotation.T, np.eye(64), atol=1e-5)


@pytest.mark.parametrize("n_centroids", [1, 2, 3, 100, 500])
def test_as_many_centroids_as_asked_for(tokens, n_centroids):
    codec = train(tokens, n_centroids)
    assert codec.n_centroids == n_centroids
    assert codec.assign(codec.rotate(tokens)).max() < n_centroids


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_of_faiss_are_given_back(tokens, threads):
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        train(tokens[:500], 16)
        assert faiss.omp_get_max_threads() == threads
        with pytest.raises(ValueError, match="multiple of 4"):
            train(tokens[:500, :6], 16)
        assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)


def test_never_more_centroids_than_codes_can_name():
    codec = train(clustered(np.random.default_rng(6), 100_000, 4, spread=2.0), MAX_CENTROIDS)
    assert MAX_CENTROIDS // 2 < codec.n_centroids <= MAX_CENTROIDS


def test_fewer_tokens_than_centroids_are_their_own_centroids():
    tokens = clustered(np.random.default_rng(7), 10, 32)
    codec = train(tokens, 64)
    assert codec.n_centroids == 10
    assert mean_error(codec, tokens, 1) < 0.01


@pytest.mark.parametrize("n", [1, 500])
def test_identical_tokens_have_no_residual(n):
    tokens = np.repeat(clustered(np.random.default_rng(8), 1, 32), n, axis=0)
    codec = train(tokens, 16)
    assert codec.residual < 1e-3
    for nbits in allowed_bits(32):
        assert np.allclose(round_trip(codec, tokens, nbits), tokens, atol=0.005)


@pytest.mark.parametrize("nbits", [4, 8])
def test_later_tokens_unlike_the_first_are_kept_well(nbits):
    """A small first commit must not spoil what comes: compaction clusters anew from what these bits hold."""
    first = np.repeat(clustered(np.random.default_rng(9), 1, 64), 5, axis=0)
    later = unit(np.random.default_rng(10).standard_normal((500, 64)))
    assert mean_error(train(first, 4), later, nbits) < {4: 0.2, 8: 0.03}[nbits]


@pytest.mark.parametrize(("dim", "nbits"), [(4, [8]), (8, [4, 8]), (48, [2, 4, 8]), (96, [1, 2, 4, 8])])
def test_bits_are_those_that_fill_words(dim, nbits):
    assert allowed_bits(dim) == nbits
    tokens = clustered(np.random.default_rng(11), 300, dim)
    codec = train(tokens, 8)
    assert list(codec.ranges) == nbits
    assert mean_error(codec, tokens, 8) < 0.02
    for bits in STEPS:
        if bits in nbits:
            assert MultiVectorConfig(dim=dim, nbits=bits).nbits == bits
        else:
            with pytest.raises(ValueError, match=f"multiple of {32 // bits}"):
                MultiVectorConfig(dim=dim, nbits=bits)


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"dim": 30}, {"nbits": 3}, {"n_centroids": 0}, {"n_centroids": 65_537}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        MultiVectorConfig(**{"dim": 32, **wrong})


def test_wrong_training_is_refused():
    with pytest.raises(ValueError, match="needs tokens"):
        train(np.empty((0, 32), np.float32), 4)
    with pytest.raises(ValueError, match="65537"):
        train(np.eye(32, dtype=np.float32), MAX_CENTROIDS + 1)
    with pytest.raises(ValueError, match="multiple of 4"):
        train(np.eye(30, dtype=np.float32), 4)


def test_the_default_number_of_centroids_grows_with_the_tokens():
    numbers = [default_n_centroids(n) for n in (0, 1, 7, 100, 10_000, 1_000_000, 100_000_000, 10**10)]
    assert numbers == sorted(numbers)
    assert all(number & (number - 1) == 0 for number in numbers)
    assert numbers[:3] == [1, 1, 1]
    assert numbers[4] == 512  # 8 * sqrt(10,000) = 800
    assert numbers[-1] == MAX_CENTROIDS


def test_nothing_to_encode_is_encoded_to_nothing(codec):
    none = np.empty((0, 64), np.float32)
    assert round_trip(codec, none, 2).shape == (0, 64)
    assert codec.encode(none, codec.assign(none), 2)[1] == 0


def test_a_codec_comes_back_from_its_file(tmp_path, codec, tokens):
    codec.write(tmp_path / "codec.lex")
    read = Codec.read(tmp_path / "codec.lex")
    rotated = codec.rotate(tokens[:100])
    codes = codec.assign(rotated)
    assert np.array_equal(read.assign(read.rotate(tokens[:100])), codes)
    encoded, again = codec.encode(rotated, codes, 2)[0], read.encode(rotated, codes, 2)[0]
    assert np.array_equal(encoded.levels, again.levels)
    assert np.array_equal(encoded.scalars, again.scalars)
    assert np.array_equal(read.decode(codes, encoded), codec.decode(codes, encoded))
    assert read.residual == pytest.approx(codec.residual)


def test_a_damaged_codec_is_refused(tmp_path, codec):
    path = tmp_path / "codec.lex"
    codec.write(path)
    whole = path.read_bytes()
    for name, entry in ArrayFile(path, "codec")._entries.items():
        at = (entry.offset + entry.end) // 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(IndexFormatError, match=rf"of array .*{name!r}"):
            Codec.read(path)
    for n_bytes in (0, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(IndexFormatError):
            Codec.read(path)


def test_a_codec_that_does_not_fit_itself_is_refused(tmp_path, codec):
    starts = codec.group_starts.copy()
    starts[1] = starts[2]
    for change in ({"mean": codec.mean[:-1]}, {"centroids": codec.centroids[:-1]}, {"group_starts": starts}):
        parts = {name: getattr(codec, name) for name in ("rotation", "mean", "centroids", "centroid_scale", "group_starts")}
        Codec(**{**parts, **change}, ranges=codec.ranges, residual=0.5).write(tmp_path / "codec.lex")
        with pytest.raises(IndexFormatError, match=r"arrays that fit|a dim"):
            Codec.read(tmp_path / "codec.lex")
