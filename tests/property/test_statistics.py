"""Parts of a collection that are given its statistics answer, merged by score, as one index of it does, to the bit."""

from itertools import pairwise

import numpy as np
import pytest
from corpora import ENCODER, random_vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmax import Collection, RepresentationError, SparseVectors
from lexmax.index.collection import NewField
from lexmax.index.documents import Document
from lexmax.index.snapshot import Snapshot
from lexmax.index.sparse.statistics import SparseStatistics
from lexmax.retrieval.kernels.query import weigh
from lexmax.retrieval.searchers.blockmax import BlockMaxSearcher
from lexmax.retrieval.searchers.exhaustive import ExhaustiveSearcher

BM25 = {"bm25": {"k1": 0.9, "b": 0.6}}


def write(path, vectors, doc_ids, cuts, deleted=(), **new):
    """An index of some rows, with a commit for each part between ``cuts``."""
    ends = [*cuts, len(vectors)]
    with Collection.create(path, {"f": NewField(encoder=ENCODER, **new)}) as collection:
        for first, end in zip([0, *ends], ends, strict=False):
            docs = [Document(doc_id=doc_id, text="") for doc_id in doc_ids[first:end]]
            collection.add(docs, {"f": vectors.select(np.arange(first, end))})
            collection.commit()
        collection.delete([doc_id for doc_id in doc_ids if doc_id in deleted])
        collection.compact()
        collection.commit()
    return Snapshot.open(path)


def answers(field, snapshot, queries, k, searcher):
    """(score, doc_id) of each query, best first."""
    hits = searcher(field).search(field.query_vectors(queries), k)
    found = []
    for number in range(len(queries)):
        doc_nums, scores = hits.query(number)
        ids = [document.doc_id for document in snapshot.get_many(doc_nums.tolist())]
        found.append(list(zip(scores.tolist(), ids, strict=True)))
    return found


def check(whole, parts, queries, k):
    statistics = SparseStatistics.merged([part.field("f").statistics() for part in parts])
    for searcher in (ExhaustiveSearcher, BlockMaxSearcher):
        expected = answers(whole.field("f"), whole, queries, k, searcher)
        found = [answers(part.field("f").with_statistics(statistics), part, queries, k, searcher) for part in parts]
        for number in range(len(queries)):
            merged = sorted((hit for each in found for hit in each[number]), key=lambda hit: (-hit[0], int(hit[1])))
            assert merged[:k] == expected[number]


def named(vectors, rng):
    """The same rows, with strings for the terms that occur, in any order."""
    present = rng.permutation(np.unique(vectors.terms))
    numbers = np.zeros(100, np.int32)
    numbers[present] = np.arange(len(present))
    rows = [vectors.row(i) for i in range(len(vectors))]
    again = SparseVectors.from_rows([(numbers[terms].tolist(), weights.tolist()) for terms, weights in rows])
    return SparseVectors(again.indptr, again.terms, again.weights, [f"t{number}" for number in present.tolist()])


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 120), n_parts=st.integers(2, 4), k=st.sampled_from([1, 10, 500]))
@pytest.mark.parametrize("bm25", [True, False])
def test_parts_merged_by_score_equal_the_whole(tmp_path_factory, bm25, seed, n, n_parts, k):
    rng, path = np.random.default_rng(seed), tmp_path_factory.mktemp("parts")
    vectors = random_vectors(rng, n, 80, 20, levels=40 if bm25 else 0)
    ids, deleted = [str(i) for i in range(n)], {str(i) for i in np.flatnonzero(rng.random(n) < 0.1)}
    new = {"options": BM25} if bm25 else {"scale": 255 / max(float(vectors.weights.max(initial=0)), 1e-6)}

    def part(folder, first, end):
        rows = vectors.select(np.arange(first, end))
        rows = named(rows, rng) if bm25 else rows
        return write(path / folder, rows, ids[first:end], [(end - first) // 3], deleted, **new)

    whole = part("whole", 0, n)
    spans = list(pairwise(sorted({0, n, *rng.integers(1, n, n_parts - 1).tolist()})))
    parts = [part(str(number), *span) for number, span in enumerate(spans)]
    if bm25:
        scale = whole.field("f").scale
        average = sum(p.field("f").statistics().total_length for p in parts) / max(1, whole.n_docs)
        for number in range(len(spans)):
            with Collection.open(path / str(number)) as collection:
                collection.give_statistics("f", scale=scale, average_length=average)
                collection.commit()
            parts[number] = Snapshot.open(path / str(number))
    queries = random_vectors(rng, 8, 80, 30)
    check(whole, parts, named(queries, rng) if bm25 else queries, k)


@pytest.mark.parametrize("bm25", [True, False])
def test_a_part_whose_documents_are_all_deleted_changes_nothing(tmp_path, bm25):
    strings = ["a", "b"] if bm25 else None
    rows = SparseVectors(np.array([0, 1, 2], np.int64), np.array([0, 1], np.int32), np.ones(2, np.float32), strings)
    new = {"options": BM25} if bm25 else {"scale": 100.0}
    full = write(tmp_path / "full", rows, ["1", "2"], [], **new)
    empty = write(tmp_path / "empty", rows, ["3", "4"], [], {"3", "4"}, **new)
    merged = SparseStatistics.merged([each.field("f").statistics() for each in (empty, full)])
    assert (merged.n_docs, merged.frequencies.tolist()) == (2, [1, 1])
    queries = SparseVectors(np.array([0, 1], np.int64), np.array([0], np.int32), np.ones(1, np.float32), strings)
    for snapshot, expected in ((full, ["1"]), (empty, [])):
        found = answers(snapshot.field("f").with_statistics(merged), snapshot, queries, 10, BlockMaxSearcher)
        assert [doc_id for _, doc_id in found[0]] == expected


def test_statistics_that_do_not_fit_are_refused(tmp_path):
    rows = SparseVectors(np.array([0, 1], np.int64), np.array([0], np.int32), np.ones(1, np.float32), ["a"])
    one = write(tmp_path / "a", rows, ["1"], [], options=BM25).field("f")
    other = write(tmp_path / "b", rows, ["1"], [], options=BM25, scale=17.0).field("f")
    with pytest.raises(RepresentationError, match="one scale"):
        SparseStatistics.merged([one.statistics(), other.statistics()])
    with pytest.raises(RepresentationError, match="are weighed with scale"):
        one.with_statistics(other.statistics())
    with Collection.open(tmp_path / "a") as collection, pytest.raises(RepresentationError, match="no field 'g'"):
        collection.give_statistics("g", scale=1.0)


@given(st.lists(st.floats(2**-20, 2**20, width=32), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_query_weights_do_not_depend_on_the_order_of_terms(weights, seed):
    rng, values = np.random.default_rng(seed), np.array(weights, np.float32)
    tops = rng.integers(1, 256, len(values))
    order = rng.permutation(len(values))
    integers, others = np.empty(len(values), np.int64), np.empty(len(values), np.int64)
    assert weigh(values, tops, integers) == weigh(values[order], tops[order], others)
    assert np.array_equal(integers[order], others)
