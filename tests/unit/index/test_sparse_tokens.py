"""Sparse token vectors, their bounds, and collections of them: what is added is found, whatever happens between."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import documents, make_index, random_vectors
from damage import recommit
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_token_vectors import SLIM_ENCODER, make_slim_index, slim_score, sparse_tokens
from token_vectors import make_token_index, token_vectors

from lexmax import Collection, IndexFormatError, RepresentationError, SparseVectors
from lexmax.index.check import check_index
from lexmax.index.collection import BufferLimits, NewField
from lexmax.index.representations.sparse_multivectors import (
    SparseMultiVectors,
    document_maxima,
    fused_vectors,
    lower_vectors,
    upper_vectors,
)
from lexmax.index.snapshot import Snapshot


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(1)
    return sparse_tokens(rng, [0, *rng.integers(0, 12, 58), 0])


def names(n, *but):
    return [f"d{i}" for i in range(n) if i not in but]


def same_tokens(snapshot, vectors, doc_ids):
    """Every document has the tokens that it was given, but for a rounding step, and their maxima as its row."""
    assert snapshot.n_docs == len(doc_ids)
    field = snapshot.field("slim")
    step = 1 / field.scale
    for doc_id in doc_ids:
        (number,) = snapshot.find([doc_id]).tolist()
        assert snapshot.get_many([number])[0].doc_id == doc_id
        found, expected = field.document_sparse_tokens(number), vectors.row(int(doc_id[1:]))
        assert found.indptr.tolist() == expected.indptr.tolist()
        assert found.terms.tolist() == expected.terms.tolist()
        assert np.abs(found.weights - expected.weights).max(initial=0) < 0.51 * step
        row, maxima = field.document_row(number), document_maxima(SparseMultiVectors.of([found]))
        assert row.terms.tolist() == maxima.terms.tolist()
        assert row.weights.tolist() == maxima.weights.tolist()


def compact(path, **options):
    with Collection.open(path) as collection:
        collection.compact(**options)
        collection.commit()
    return Snapshot.open(path)


def product(left, right, i=0, j=0):
    weights = dict(zip(*(part.tolist() for part in right.row(j)), strict=True))
    return sum(weight * weights.get(term, 0.0) for term, weight in zip(*(p.tolist() for p in left.row(i)), strict=True))


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**32 - 1), n_query=st.integers(0, 6), n_document=st.integers(0, 9), levels=st.sampled_from([0, 3]))
def test_bounds_hold_on_random_tokens(seed, n_query, n_document, levels):
    rng = np.random.default_rng(seed)
    query, document = (sparse_tokens(rng, [n], n_terms=12, levels=levels) for n in (n_query, n_document))
    score, maxima = slim_score(query.row(0), document.row(0)), document_maxima(document)
    low, high = product(lower_vectors(query), maxima), product(upper_vectors(query), maxima)
    assert low <= score * (1 + 1e-5)
    assert score <= high * (1 + 1e-5)
    assert product(fused_vectors(query, 0.25), maxima) == pytest.approx(0.25 * low + 0.75 * high, rel=1e-5)


def test_query_vectors_by_hand():
    query = SparseMultiVectors.of([SparseVectors.from_rows([([3, 5], [2, 1]), ([], []), ([5, 9], [4, 4])])])
    assert [a.tolist() for a in upper_vectors(query).row(0)] == [[3, 5, 9], [2, 5, 4]]
    assert [a.tolist() for a in lower_vectors(query).row(0)] == [[3, 5], [2, 4]]  # of equal weights, that of the lower term
    assert [a.tolist() for a in fused_vectors(query, 0.5).row(0)] == [[3, 5, 9], [2, 4.5, 2]]
    assert [a.tolist() for a in document_maxima(query).row(0)] == [[3, 5, 9], [2, 4, 4]]
    with pytest.raises(ValueError, match="beta"):
        fused_vectors(query, 1.5)


def test_rows_are_selected_and_joined(vectors):
    chosen = vectors.select(np.array([7, 0, 7, 3]))
    assert len(chosen) == 4
    for i, number in enumerate([7, 0, 7, 3]):
        assert [a.tolist() for a in (chosen.row(i).indptr, chosen.row(i).terms)] == [
            a.tolist() for a in (vectors.row(number).indptr, vectors.row(number).terms)
        ]
    again = SparseMultiVectors.of([vectors.row(i) for i in range(len(vectors))])
    assert np.array_equal(again.offsets, vectors.offsets)
    assert np.array_equal(again.rows.weights, vectors.rows.weights)


@pytest.mark.parametrize("offsets", [[], [1, 2], [0, 2, 1, 2], [0, 1], [0, 3]])
def test_offsets_that_do_not_fit_are_refused(offsets):
    rows = SparseVectors.from_rows([([1], [1]), ([2], [1])])
    with pytest.raises(RepresentationError, match="offsets"):
        SparseMultiVectors(np.array(offsets, np.int64), rows)


def test_a_vocabulary_and_another_type_are_refused():
    rows = SparseVectors.from_rows([([0], [1])])
    named = SparseVectors(rows.indptr, rows.terms, rows.weights, ["a"])
    with pytest.raises(RepresentationError, match="vocabulary"):
        SparseMultiVectors(np.array([0, 1]), named)
    with pytest.raises(RepresentationError, match="int64"):
        SparseMultiVectors(np.array([0, 1], np.int32), rows)


@pytest.mark.parametrize("cuts", [(), (20,), (1, 21, 22)])
def test_what_is_added_is_there(tmp_path, vectors, cuts):
    snapshot = make_slim_index(tmp_path / "idx", vectors, cuts)
    assert len(snapshot.segments) == len(cuts) + 1
    same_tokens(snapshot, vectors, names(60))
    assert check_index(tmp_path / "idx") == []
    assert Snapshot.open(tmp_path / "idx", verify=True).info()["fields"]["slim"]["n_tokens"] == vectors.n_tokens


def test_full_buffers_become_segments(tmp_path, vectors):
    new = NewField(encoder=SLIM_ENCODER, representation="sparse-tokens")
    with Collection.create(tmp_path / "idx", {"slim": new}, limits=BufferLimits(n_postings=300)) as collection:
        for first in range(0, 60, 5):
            collection.add(documents(5, first), {"slim": vectors.select(np.arange(first, first + 5))})
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert len(snapshot.segments) >= 3
    assert check_index(tmp_path / "idx") == []
    assert snapshot.info()["fields"]["slim"]["n_tokens"] == vectors.n_tokens


@pytest.mark.parametrize("reorder", [True, False])
def test_compaction_keeps_impacts_and_drops_deleted_documents(tmp_path, vectors, reorder):
    gone = (0, 8, 25, 59)
    make_slim_index(tmp_path / "idx", vectors, (30, 45), gone)
    new = compact(tmp_path / "idx", reorder=reorder)
    assert len(new.segments) == 1
    assert new.info()["n_deleted"] == 0
    same_tokens(new, vectors, names(60, *gone))
    assert check_index(tmp_path / "idx") == []
    assert compact(tmp_path / "idx", reorder=reorder).segments[0].record.name == new.segments[0].record.name


def test_documents_are_replaced(tmp_path, vectors):
    make_slim_index(tmp_path / "idx", vectors, (20,))
    with Collection.open(tmp_path / "idx") as collection:
        assert collection.add(documents(1, 2), {"slim": vectors.select(np.array([7]))}, replace=True) == 1
        collection.commit()
    snapshot = compact(tmp_path / "idx")
    found = snapshot.field("slim").document_sparse_tokens(int(snapshot.find(["d2"])[0]))
    assert found.terms.tolist() == vectors.row(7).terms.tolist()
    assert snapshot.n_docs == 60


def test_an_empty_index_and_documents_without_tokens(tmp_path):
    nothing = sparse_tokens(np.random.default_rng(2), [])
    assert make_slim_index(tmp_path / "none", nothing).segments == []
    assert check_index(tmp_path / "none") == []
    empty = sparse_tokens(np.random.default_rng(2), [0, 0, 0])
    make_slim_index(tmp_path / "empty", empty, (1,), (0,))
    same_tokens(compact(tmp_path / "empty"), empty, names(3, 0))
    assert check_index(tmp_path / "empty") == []


def test_vectors_of_another_kind_are_refused_both_ways(tmp_path, vectors):
    rng = np.random.default_rng(3)
    sparse, dense = random_vectors(rng, 3, 30, 8), token_vectors(rng, [3, 3, 3])
    make_slim_index(tmp_path / "slim", vectors)
    make_index(tmp_path / "sparse", sparse)
    make_token_index(tmp_path / "tokens", dense)
    three = vectors.select(np.arange(3))
    for index, holds, wrong in [
        ("slim", "sparse token vectors", sparse),
        ("slim", "sparse token vectors", dense),
        ("sparse", "sparse vectors", three),
        ("tokens", "token vectors", three),
    ]:
        with Collection.open(tmp_path / index) as collection:
            before = collection.manifest.n_docs
            with pytest.raises(
                RepresentationError, match=f"field {index}: the field holds {holds}, not {type(wrong).__name__}"
            ):
                collection.add(documents(3, 100), {index: wrong})
            assert collection.commit().n_docs == before


def test_damage_to_the_tokens_is_found(tmp_path, vectors):
    path = tmp_path / "idx"
    make_slim_index(path, vectors, (30,))
    file = next(path.rglob("sparse_tokens.lex"))
    whole = file.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :], b"", None):
        if damaged is None:
            file.unlink()
        else:
            file.write_bytes(damaged)
        problems = check_index(path)
        assert len(problems) == 1
        assert "sparse_tokens.lex" in problems[0]
        with pytest.raises(IndexFormatError, match=r"sparse_tokens\.lex"):
            Snapshot.open(path, verify=True)
        file.write_bytes(whole)
    assert check_index(path) == []


def test_tokens_of_another_inverted_part_are_found(tmp_path, vectors):
    """Every checksum is right, but the maxima of the tokens are not what the first stage searches."""
    rng = np.random.default_rng(4)
    for name, made in (("a", vectors), ("b", sparse_tokens(rng, np.diff(vectors.offsets)))):
        make_slim_index(tmp_path / name, made)
    theirs, ours = (next((tmp_path / name).rglob("sparse_tokens.lex")) for name in ("b", "a"))
    ours.write_bytes(theirs.read_bytes())
    recommit(tmp_path / "a")
    (problem,) = check_index(tmp_path / "a")
    assert "maxima" in problem or "ranks" in problem


CRASH = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from corpora import documents
from sparse_token_vectors import sparse_tokens
from lexmax import Collection
collection = Collection.open(sys.argv[1])
collection.add(documents(30, 1000), {"slim": sparse_tokens(np.random.default_rng(9), [10] * 30)})
collection.delete(["d1"])
collection.compact()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_crash_before_the_commit_leaves_the_old_state(tmp_path, vectors):
    path = tmp_path / "idx"
    old = make_slim_index(path, vectors, (30,))
    folder = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", CRASH, str(path), folder], capture_output=True, text=True, check=False, env=os.environ
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert len(list(path.glob("field-slim-*"))) > 2
    assert check_index(path) == []
    assert Snapshot.open(path).manifest == old.manifest
    same_tokens(Snapshot.open(path), vectors, names(60))
    Collection.open(path).close()  # cleans up
    assert len(list(path.glob("segment-*"))) == 2
