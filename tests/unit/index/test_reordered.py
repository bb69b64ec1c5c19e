"""Compaction with reordering changes the order of documents and nothing else."""

import numpy as np
import pytest
from corpora import make_index, random_vectors

from lexmax import Collection
from lexmax.index.check import check_index
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers.blockmax import BlockMaxSearcher
from lexmax.retrieval.searchers.exhaustive import ExhaustiveSearcher


@pytest.fixture
def vectors():
    return random_vectors(np.random.default_rng(2), 300, 80, 12)


def answers(snapshot, queries, k):
    field = snapshot.field("sparse")
    hits = BlockMaxSearcher(field).search(queries, k)
    oracle = ExhaustiveSearcher(field).search(queries, k)
    assert np.array_equal(hits.doc_nums, oracle.doc_nums)
    return [
        sorted(zip((-scores).tolist(), snapshot.doc_ids(doc_nums.tolist()), strict=True))
        for doc_nums, scores in map(hits.query, range(len(hits)))
    ]


def test_documents_vectors_and_metadata_move_together(tmp_path, vectors):
    make_index(tmp_path / "idx", vectors, cuts=(100, 150))
    before = Snapshot.open(tmp_path / "idx")
    with Collection.open(tmp_path / "idx") as collection:
        collection.compact(reorder=True)
        collection.commit()
    after = Snapshot.open(tmp_path / "idx")
    assert check_index(tmp_path / "idx") == []
    assert after.info()["segments"][0]["reordered"]
    order = [document.doc_id for document in after.get_many(range(after.n_docs))]
    assert sorted(order) == sorted(f"d{i}" for i in range(300))
    assert order != sorted(order, key=lambda doc_id: int(doc_id[1:]))
    for doc_id in order[::17]:
        old, new = (snapshot.get_many(snapshot.find([doc_id]))[0] for snapshot in (before, after))
        assert old == new
        assert new.metadata == {"number": int(doc_id[1:])}
        rows = [snapshot.field("sparse").document_row(int(snapshot.find([doc_id])[0])) for snapshot in (before, after)]
        assert rows[0].terms.tolist() == rows[1].terms.tolist()
        assert rows[0].weights.tolist() == rows[1].weights.tolist()
    queries = random_vectors(np.random.default_rng(3), 10, 80, 12)
    assert answers(before, queries, 400) == answers(after, queries, 400)


def test_a_reordered_segment_is_not_reordered_again(tmp_path, vectors):
    make_index(tmp_path / "idx", vectors)
    names = []
    for _ in range(2):
        with Collection.open(tmp_path / "idx") as collection:
            collection.compact(reorder=True)
            collection.commit()
        names.append([segment["name"] for segment in Snapshot.open(tmp_path / "idx").info()["segments"]])
    assert names[0] == names[1]
    assert names[0][0].startswith("segment-000002-")
