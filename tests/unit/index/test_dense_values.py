"""Sealed dense files whose checksums are right and whose numbers are not finite, and vectors that are too long."""

import numpy as np
import pytest
from corpora import documents
from damage import recommit, rewrite
from dense_vectors import dense_vectors, make_dense_field
from net_queries import make_net_field

from lexmax import Collection, IndexFormatError, RepresentationError
from lexmax.index.check import check_index
from lexmax.index.dense import config, training, writer
from lexmax.index.nets import neighbours
from lexmax.index.representations.dense import DenseVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers import dense
from lexmax.retrieval.searchers.dense import DenseOptions, DenseSearcher

WRONG = {"float16": [0x7E00, 0x7C00], "float32": [np.nan, np.inf]}
"""Not a number and infinity, as they are kept."""


def spoil(path, number):
    """Put a number into the third vector of the first part of a field, and seal the index."""

    def change(rows):
        rows[2, 1] = number
        return rows

    rewrite(min(path.glob("field-*/dense.lex")), {"rows": change})
    recommit(path)


def files_of(path):
    return {each.relative_to(path): each.read_bytes() for each in path.rglob("*") if each.is_file()}


@pytest.fixture
def small(monkeypatch):
    """Structures of few documents."""
    monkeypatch.setattr(writer, "GRAPH_VECTORS", 50)
    monkeypatch.setattr(config, "CODE_POINTS", 64)
    monkeypatch.setattr(training, "POINTS_PER_CODEBOOK", 256)
    monkeypatch.setattr(neighbours, "FEWEST_DOCS", 50)
    monkeypatch.setattr("lexmax.index.nets.writer.FEWEST_DOCS", 50)


@pytest.mark.parametrize("keep", ["float16", "float32"])
@pytest.mark.parametrize("settings", [
    {}, {"structure": "ivf", "n_lists": 2}, {"structure": "ivf", "n_lists": 2, "quantise": "int8"},
    {"structure": "flat", "quantise": "pq", "pq_bytes": 4}, {"structure": "flat", "quantise": "opq", "pq_bytes": 4},
    {"structure": "hnsw"}, {"structure": "hnsw", "order": "lid_desc"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("which", [0, 1], ids=["nan", "inf"])
def test_nothing_is_made_of_numbers_that_are_not_finite(tmp_path, small, keep, settings, which):
    """Neither by the commit that trains, nor by the compaction that trains again, and nothing is written."""
    path = tmp_path / "idx"
    make_dense_field(path, dense_vectors(np.random.default_rng(1), 40), keep=keep, **settings)
    spoil(path, WRONG[keep][which])
    before = files_of(path)
    with Collection.open(path) as collection:
        collection.add(documents(300, 40), {"dense": dense_vectors(np.random.default_rng(2), 300)})
        with pytest.raises(IndexFormatError, match=r"dense\.lex: expected vectors of length <= .*, found vector 2"):
            collection.compact()
    assert files_of(path) == before
    assert [str(problem) for problem in check_index(path)] != []


@pytest.mark.parametrize("settings", [{"structure": "ivf", "n_lists": 2}, {"structure": "flat", "quantise": "pq"}], ids=str)
def test_a_commit_that_trains_refuses_them(tmp_path, small, settings):
    """Neither the old documents nor the new ones are enough, but all are."""
    path = tmp_path / "idx"
    make_dense_field(path, dense_vectors(np.random.default_rng(1), 40), **settings)
    assert Snapshot.open(path).field("dense").quantiser is None
    spoil(path, WRONG["float16"][0])
    before = files_of(path)
    with Collection.open(path) as collection:
        collection.add(documents(30, 40), {"dense": dense_vectors(np.random.default_rng(2), 30)})
        with pytest.raises(IndexFormatError, match="found vector 2"):
            collection.commit()
    left = files_of(path)
    assert {name: left[name] for name in before} == before
    assert Snapshot.open(path).n_docs == 40


def test_graphs_of_nearest_documents_are_not_made_of_them(tmp_path, small):
    path = tmp_path / "idx"
    make_net_field(path, dense_vectors(np.random.default_rng(1), 100), (60,), n_neighbours=4)
    spoil(path, WRONG["float16"][0])
    before = files_of(path)
    with Collection.open(path) as collection, pytest.raises(IndexFormatError, match="found vector 2"):
        collection.compact()
    assert files_of(path) == before


@pytest.mark.parametrize("which", [0, 1], ids=["nan", "inf"])
@pytest.mark.parametrize("settings", [{}, {"structure": "ivf", "n_lists": 2}, {"structure": "hnsw"}], ids=str)
def test_scores_of_them_are_refused(tmp_path, small, settings, which):
    path = tmp_path / "idx"
    make_dense_field(path, dense_vectors(np.random.default_rng(1), 100), **settings)
    spoil(path, WRONG["float16"][which])
    searcher, query = DenseSearcher(Snapshot.open(path).field("dense")), np.ones(24, np.float32)
    queries = searcher.vectors(query)
    with pytest.raises(IndexFormatError, match="finite vectors"):
        searcher.search(queries, 3, options=DenseOptions(algorithm="exhaustive"))
    with pytest.raises(IndexFormatError, match="finite vectors"):
        searcher.score(queries, [np.arange(100, dtype=np.int32)])


@pytest.mark.parametrize(
    "settings", [{}, {"structure": "ivf", "n_lists": 2}, {"structure": "hnsw", "order": "lid_desc"}], ids=str
)
def test_the_longest_vectors_are_indexed_and_longer_ones_refused(tmp_path, small, settings, monkeypatch):
    """Vectors so long that no product or distance overflows."""
    monkeypatch.setattr(dense, "FEW_DOCS", 0)
    path, rng = tmp_path / "idx", np.random.default_rng(1)
    vectors = rng.standard_normal((100, 24), np.float32)
    vectors *= np.float32(config.MAX_LENGTH * 0.99 / 24**0.5) / np.abs(vectors).max()
    field = make_dense_field(path, DenseVectors(vectors), keep="float32", **settings)
    searcher = DenseSearcher(field)
    hits = searcher.search(searcher.vectors(vectors[:5]), 1)
    assert np.isfinite(hits.scores).all()
    with Collection.open(path) as collection, pytest.raises(RepresentationError, match=r"vectors may be 1e\+18 long"):
        collection.add(documents(1, 100), {"dense": DenseVectors(np.full((1, 24), 1e19, np.float32))})
    with pytest.raises(RepresentationError, match="queries may be"):
        searcher.vectors(np.full(24, 1e19, np.float32))
