"""Fixed dimensional encodings do what their formulas say; oracles are written from those, in plain NumPy."""

from pathlib import Path

import numpy as np
import pytest
from damage import flip
from fde_oracles import learnt_oracle, simhash_oracle
from token_vectors import clustered, token_vectors

from lexmax.index.errors import IndexFormatError
from lexmax.index.fde.config import FdeConfig, check_options
from lexmax.index.fde.encoding import read_encoding, train_encoding, write_encoding
from lexmax.index.fde.learnt import LearntEncoding
from lexmax.index.fde.simhash import SimHashEncoding
from lexmax.index.kernels.fde import SUMMED, signed_sums, signed_sums_plain
from lexmax.index.representations.multivectors import MultiVectors

DIM = 32
REFERENCE = Path(__file__).parents[2] / "data" / "fde_reference.npz"


def config(**settings):
    return FdeConfig(of="tokens", token_dim=settings.pop("token_dim", DIM), **settings)


@pytest.mark.parametrize("settings", [
    {}, {"n_repetitions": 3, "inner_dim": None}, {"n_planes": 0, "inner_dim": 5}, {"n_planes": 1, "n_repetitions": 1},
    {"n_repetitions": 2, "n_planes": 5, "inner_dim": 3, "final_dim": 17},
])  # fmt: skip
def test_simhash_is_the_papers_encoding(settings):
    rng = np.random.default_rng(3)
    encoding = SimHashEncoding.random(config(cells="simhash", **settings))
    vectors = token_vectors(rng, [7, 0, 1, 40, 70], DIM)
    documents, queries = encoding.encode_documents(vectors), encoding.encode_queries(vectors)
    assert documents.shape == queries.shape == (5, encoding.config.dim)
    for number in range(5):
        tokens = vectors.row(number).astype(float)
        assert np.allclose(documents[number], simhash_oracle(encoding, tokens, is_query=False), atol=1e-5)
        assert np.allclose(queries[number], simhash_oracle(encoding, tokens, is_query=True), atol=1e-5)


@pytest.mark.parametrize(("number", "settings"), [
    (0, {"n_repetitions": 3, "n_planes": 3, "inner_dim": 4}), (1, {"n_repetitions": 2, "n_planes": 4, "inner_dim": None}),
    (2, {"n_repetitions": 2, "n_planes": 3, "inner_dim": 4, "final_dim": 10}),
])  # fmt: skip
def test_simhash_equals_the_reference(number, settings):
    with np.load(REFERENCE, allow_pickle=False) as file:
        names = ("planes", "targets", "signs", "final_targets", "final_signs")
        encoding = SimHashEncoding(
            config(token_dim=16, cells="simhash", **settings), *(file[f"{name}{number}"] for name in names)
        )
        documents, queries = (MultiVectors.of(list(file[f"{side}_tokens"]), 16) for side in ("document", "query"))
        assert np.abs(encoding.encode_documents(documents) - file[f"documents{number}"]).max() < 1e-6
        assert np.abs(encoding.encode_queries(queries) - file[f"queries{number}"]).max() < 1e-6


def test_signed_sums_do_what_plain_loops_do():
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((50, SUMMED)).astype(np.float32)
    starts, order = np.array([0, 0, 13, 50, 50], np.int32), rng.permutation(50).astype(np.int32)
    signs = rng.choice(np.array([-1, 1], np.float32), 50)
    out, plain = np.full((4, SUMMED), 7, np.float32), np.full((4, SUMMED), 7, np.float32)
    signed_sums(columns, starts, order, signs, out)
    signed_sums_plain(columns, starts, order, signs, plain)
    assert np.array_equal(out, plain)


@pytest.mark.parametrize("settings", [{"values": "mean", "n_cells": 5}, {"n_cells": 6, "n_samples": 300}, {"n_cells": 3}])
def test_learnt_cells_are_what_their_formulas_say(settings):
    rng = np.random.default_rng(4)
    sample = token_vectors(rng, rng.integers(0, 30, 40), DIM)
    encoding = LearntEncoding.train(config(**settings), sample, 40)
    vectors = token_vectors(rng, [12, 0, 1, 200], DIM)
    documents, queries = encoding.encode_documents(vectors), encoding.encode_queries(vectors)
    for number in range(4):
        tokens = vectors.row(number).astype(float)
        expected = learnt_oracle(encoding, tokens, is_query=False).ravel() - encoding.mean
        assert np.allclose(documents[number], expected, atol=2e-3)
        assert np.allclose(queries[number], learnt_oracle(encoding, tokens, is_query=True).ravel(), atol=1e-5)


def test_fitted_values_follow_maxsim_closer_than_means():
    rng = np.random.default_rng(5)
    documents, queries = token_vectors(rng, [30] * 200, DIM), token_vectors(rng, [8] * 20, DIM)
    maxsim = np.array([[(queries.row(i) @ documents.row(j).T).max(axis=1).sum() for j in range(200)] for i in range(20)])

    def agreement(values):
        encoding = train_encoding(config(values=values, n_cells=8), documents, 200)
        scores = encoding.encode_queries(queries) @ encoding.encode_documents(documents).T
        return np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(scores, maxsim, strict=True)])

    assert agreement("fitted") > agreement("mean") + 0.2


def test_a_document_without_tokens_comes_last():
    rng = np.random.default_rng(6)
    documents = token_vectors(rng, [20, 0, 20, 20], DIM)
    encoding = train_encoding(config(n_cells=4), documents, 4)
    scores = encoding.encode_queries(documents.select(np.array([0, 2, 3]))) @ encoding.encode_documents(documents).T
    assert np.all(scores.argmin(axis=1) == 1)
    assert not encoding.encode_queries(documents.select(np.array([1]))).any()


def test_fewer_tokens_than_cells():
    one = MultiVectors.of([clustered(np.random.default_rng(0), 3, DIM)], DIM)
    nothing = MultiVectors.of([np.empty((0, DIM), np.float32)], DIM)
    for sample in (one, nothing):
        encoding = train_encoding(config(), sample, 1)
        assert encoding.encode_documents(one).shape == (1, 20 * DIM)
        assert np.isfinite(encoding.encode_documents(one)).all()


def test_the_same_sample_gives_the_same_encoding_alone_or_among_others():
    rng = np.random.default_rng(7)
    vectors = token_vectors(rng, rng.integers(1, 60, 60), DIM)
    for settings in ({}, {"values": "mean"}, {"cells": "simhash"}):
        first, second = (train_encoding(config(**settings), vectors, 60) for _ in range(2))
        encoded = first.encode_documents(vectors)
        assert np.array_equal(encoded, second.encode_documents(vectors))
        alone = np.concatenate([first.encode_documents(vectors.select(np.array([i]))) for i in range(60)])
        assert np.allclose(encoded, alone, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"values": "mean"}, {"cells": "simhash"}, {"cells": "simhash", "final_dim": 50}])
def test_files(tmp_path, settings):
    rng = np.random.default_rng(8)
    vectors, chosen = token_vectors(rng, [9] * 30, DIM), config(**settings)
    encoding = train_encoding(chosen, vectors, 30)
    write_encoding(tmp_path / "cells.lex", encoding)
    found = read_encoding(tmp_path / "cells.lex", chosen)
    assert np.array_equal(found.encode_documents(vectors), encoding.encode_documents(vectors))
    assert (found.n_docs, found.n_bytes) == (encoding.n_docs, encoding.n_bytes)
    with pytest.raises(IndexFormatError):
        read_encoding(tmp_path / "cells.lex", config(**{**settings, "token_dim": 16}))
    flip(tmp_path / "cells.lex", 200, 3)
    with pytest.raises(IndexFormatError):
        read_encoding(tmp_path / "cells.lex", chosen)


def test_arrays_that_kernels_could_not_rely_on_are_refused(tmp_path):
    chosen = config(cells="simhash", n_repetitions=2)
    encoding = SimHashEncoding.random(chosen)
    encoding.targets[1, 3] = 8  # of 8 numbers
    write_encoding(tmp_path / "cells.lex", encoding)
    with pytest.raises(IndexFormatError, match="targets below 8"):
        read_encoding(tmp_path / "cells.lex", chosen)
    learnt = train_encoding(config(n_cells=2), token_vectors(np.random.default_rng(0), [5], DIM), 1)
    learnt.mean[0] = np.nan
    write_encoding(tmp_path / "learnt.lex", learnt)
    with pytest.raises(IndexFormatError, match="unit vectors"):
        read_encoding(tmp_path / "learnt.lex", config(n_cells=2))


@pytest.mark.parametrize(("settings", "message"), [
    ({"cells": "kmeans"}, "cells is 'kmeans': it must be learnt or simhash"),
    ({"n_cells": 0}, "n_cells is 0: it must be 1 to 4096"),
    ({"n_planes": 13, "cells": "simhash"}, "n_planes is 13"),
    ({"n_planes": 3}, "n_planes has no use with cells=learnt"),
    ({"values": "mean", "n_samples": 5}, "n_samples has no use"),
    ({"cells": "simhash", "n_cells": 40}, "n_cells has no use with cells=simhash"),
    ({"seed": 1.5}, "seed is 1.5"),
])  # fmt: skip
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_options_of_a_field():
    chosen = config(n_cells=30)
    assert FdeConfig(**chosen.options()) == chosen
    assert chosen.options()["n_cells"] == 30
    assert "n_planes" not in chosen.options()
    check_options(chosen.options(), {"dim": 30 * DIM, "keep": "float16"})
    with pytest.raises(ValueError, match=f"encodings of {30 * DIM} numbers are kept as 7"):
        check_options(chosen.options(), {"dim": 7})
