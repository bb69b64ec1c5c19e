"""Impacts tell weights to half a step of the largest, whatever came first, in any segments, before and after compaction."""

from math import log

import numpy as np
import pytest
from corpora import ENCODER, documents
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_token_vectors import SLIM_ENCODER, sparse_tokens

from lexmax import Collection, SparseVectors
from lexmax.index.check import check_index
from lexmax.index.collection import NewField
from lexmax.index.documents import Document
from lexmax.index.snapshot import Snapshot
from lexmax.index.sparse.weighing import bm25_scale, fitted_scale
from lexmax.retrieval.encoders.lexical import LexicalEncoder
from lexmax.retrieval.searchers.exhaustive import ExhaustiveSearcher

LIMIT = "lexmax.index.sparse.writer.REFITTED_POSTINGS"


def rows_of(weights):
    return SparseVectors.from_rows([([0], [weight]) for weight in weights])


def learned_index(path, batches, **given):
    """One commit per batch of weights of one term."""
    n = 0
    with Collection.create(path, {"f": NewField(encoder=ENCODER, **given)}) as collection:
        for batch in batches:
            collection.add(documents(len(batch), n), {"f": rows_of(batch)})
            collection.commit()
            n += len(batch)
    return Snapshot.open(path)


def change(path, *, deleted=(), compact=False):
    with Collection.open(path) as collection:
        assert collection.delete(list(deleted)) == []
        if compact:
            collection.compact()
        collection.commit()
    assert check_index(path) == []
    return Snapshot.open(path)


def weights_in(snapshot):
    """doc_id -> stored weight of the one term."""
    field = snapshot.field("f")
    live = [doc.doc_id for doc in documents(200) if snapshot.find([doc.doc_id])[0] >= 0]
    return {doc_id: float(field.document_row(int(snapshot.find([doc_id])[0])).weights[0]) for doc_id in live}


BATCHES = [
    [[0.05] * 2, [0.5, 1.0, 1.5, 2.5]],
    [[0.001], [0.05], [2.5, 0.7], [40.0, 3.0]],
    [[40.0], [0.5, 1.0, 2.5, 20.0]],
    [[1e-30], [1e-20, 1.0, 0.3]],
]


@pytest.mark.parametrize("batches", BATCHES, ids=["small", "growing", "large", "tiny"])
@pytest.mark.parametrize("small", [True, False])
def test_later_weights_keep_their_order_whatever_the_first_batch_was(tmp_path, monkeypatch, batches, small):
    """Refitted at the commit while the field is small, at the compaction otherwise; until then `info` warns."""
    if not small:
        monkeypatch.setattr(LIMIT, 0)
    snapshot = learned_index(tmp_path / "idx", batches)
    given = np.array([weight for batch in batches for weight in batch])
    spoilt = not small and given.max() > given[0]
    assert any("lexmax compact" in each for each in snapshot.info()["fields"]["f"]["warnings"]) == spoilt
    for each in [snapshot] * (not spoilt) + [change(tmp_path / "idx", compact=True)]:
        found = np.array(list(weights_in(each).values()))
        step = given.max() / 255
        assert np.abs(found - given).max() <= step * 1.01  # the smallest impact is a whole step
        assert np.abs(found - given)[given > step].max() <= 0.501 * step
        below = np.mean(given < step / 2)  # which no scale can help
        assert ["below half a step" in each for each in each.info()["fields"]["f"]["warnings"]] == [True] * int(below > 0.1)


def test_a_scale_that_a_deleted_document_spoilt_is_fitted_again(tmp_path):
    """Later weights fill so little of the range that they are kept beside the impacts, and nothing of their order is lost."""
    learned_index(tmp_path / "idx", [[1e6], [0.5, 1.0, 1.5, 2.5]])
    after = weights_in(change(tmp_path / "idx", deleted=["d0"], compact=True))
    assert list(after.values()) == pytest.approx([0.5, 1.0, 1.5, 2.5], abs=0.51 * 2.5 / 255)


def test_weights_that_fit_are_not_kept_beside_the_impacts(tmp_path, monkeypatch):
    monkeypatch.setattr(LIMIT, 0)
    snapshot = learned_index(tmp_path / "idx", [[1.0], [0.9], [5.0]])
    kept = ["weights" in segment.inverted.file for segment in snapshot.field("f").segments]
    assert kept == [False, False, True]
    compacted = change(tmp_path / "idx", compact=True)
    assert "weights" not in compacted.field("f").segments[0].inverted.file


def test_a_given_scale_stays(tmp_path):
    snapshot = learned_index(tmp_path / "idx", [[1.0], [9.0]], scale=51.0)
    for each in (snapshot, change(tmp_path / "idx", compact=True)):
        assert list(weights_in(each).values()) == [1.0, 5.0]
        assert "it was given" in each.info()["fields"]["f"]["warnings"][0]


@pytest.mark.parametrize("small", [True, False])
def test_sparse_tokens_keep_their_order_too(tmp_path, monkeypatch, small):
    if not small:
        monkeypatch.setattr(LIMIT, 0)
    rng = np.random.default_rng(3)
    first, later = sparse_tokens(rng, [2, 3]), sparse_tokens(rng, [3, 1, 4, 2])
    weak = SparseVectors(first.rows.indptr, first.rows.terms, first.rows.weights * np.float32(0.01))
    first = type(first)(first.offsets, weak)
    new = NewField(encoder=SLIM_ENCODER, representation="sparse-tokens")
    with Collection.create(tmp_path / "idx", {"slim": new}) as collection:
        for n, batch in ((0, first), (2, later)):
            collection.add(documents(len(batch), n), {"slim": batch})
            collection.commit()
    snapshot = change(tmp_path / "idx", compact=not small)
    top = float(later.rows.weights.max())
    for i in range(len(later)):
        rows = snapshot.field("slim").document_sparse_tokens(int(snapshot.find([f"d{i + 2}"])[0]))
        wanted = later.rows.weights[later.rows.indptr[later.offsets[i]] : later.rows.indptr[later.offsets[i + 1]]]
        assert np.abs(rows.weights - np.maximum(wanted, top / 255)).max(initial=0) <= 0.51 * top / 255


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.floats(2**-10, 2**10, width=32), min_size=1, max_size=4), min_size=1, max_size=8))
def test_any_commits_of_weights(tmp_path_factory, batches):
    check_commits(tmp_path_factory.mktemp("weights") / "idx", batches)


def test_weights_that_grow_a_little_with_every_commit(tmp_path):
    check_commits(tmp_path / "idx", [[1.02**i, 0.9 * 1.02**i] for i in range(30)])


def check_commits(path, batches):
    """Weights that were rounded at finer scales before are two steps off at most."""
    learned_index(path, batches)
    given, after = np.array([weight for batch in batches for weight in batch]), change(path, compact=True)
    step = 1 / after.field("f").scale
    assert step <= 2 * given.max() / 255
    assert np.abs(np.array(list(weights_in(after).values())) - np.maximum(given, step)).max() <= 2 * step


def test_scales():
    assert fitted_scale(2.0, None) == 127.5
    assert fitted_scale(2.0, 127.5) == fitted_scale(1.1, 127.5) == 127.5
    assert fitted_scale(0.9, 127.5) == 255 / 0.9
    assert fitted_scale(2.1, 127.5) == pytest.approx(127.5 / 1.5)
    assert fitted_scale(30.0, 127.5) == 255 / 30
    assert fitted_scale(0.0, None) == 1.0
    assert [bm25_scale(top) for top in (1.0, 0.51, 0.5, 0.2, 0.0)] == [255, 255, 510, 1020, 255]


# --- BM25 ---


def float_bm25(texts, query, k1, b):
    """Scores by the formula, in floats."""
    bags = [text.split() for text in texts]
    average = sum(map(len, bags)) / len(bags)
    scores = np.zeros(len(bags))
    for word in query.split():
        df = sum(word in bag for bag in bags)
        for i, bag in enumerate(bags):
            tf = bag.count(word)
            idf = log(1 + (len(bags) - df + 0.5) / (df + 0.5))
            scores[i] += idf * tf / (tf + k1 * (1 - b + b * len(bag) / average)) if tf else 0
    return scores


def bm25_index(path, groups, *, k1=1.2, b=0.75):
    encoder, n = LexicalEncoder(stemmer="none", stop_words="none"), 0
    new = NewField(encoder=ENCODER, options={"bm25": {"k1": k1, "b": b}})
    with Collection.create(path, {"f": new}) as collection:
        for texts in groups:
            docs = [Document(doc_id=f"d{n + i}", text=text) for i, text in enumerate(texts)]
            collection.add(docs, {"f": encoder.encode_documents(texts)})
            collection.commit()
            n += len(texts)
    return Snapshot.open(path)


def scores_of(snapshot, query):
    """doc_id -> score of the documents that a query finds."""
    field = snapshot.field("f")
    encoded = LexicalEncoder(stemmer="none", stop_words="none").encode_queries([query])
    doc_nums, scores = ExhaustiveSearcher(field).search(field.query_vectors(encoded), 1000).query(0)
    ids = [document.doc_id for document in snapshot.get_many(doc_nums.tolist())]
    return dict(zip(ids, scores.tolist(), strict=True))


def check_bm25(snapshot, texts, words, k1, b):
    """One word at a time, so that only the impact is between the scores: half a step, or one where it is the smallest."""
    for word in words:
        expected, found = float_bm25(texts, word, k1, b), scores_of(snapshot, word)
        assert found.keys() == {f"d{i}" for i in np.flatnonzero(expected)}
        df = np.count_nonzero(expected)
        step = log(1 + (len(texts) - df + 0.5) / (df + 0.5)) / snapshot.field("f").scale
        for doc_id, score in found.items():
            right = expected[int(doc_id[1:])]
            assert abs(score - max(right, step)) <= 0.51 * step, (word, doc_id, score, right)


TEXTS = [
    "whale " * 4000,
    "whale " * 260 + "sea",
    "whale " * 255,
    *["sea " * 3000, "whale sea ship", "ship " * 70_000],
    *[f"whale n{i} " + "deck " * (i % 7) for i in range(40)],
]


PARAMETERS = [(1.2, 0.75), (0.0, 0.5), (0.4, 0.0), (3.0, 1.0), (100.0, 0.75), (5000.0, 0.3), (1e9, 1.0)]


@pytest.mark.parametrize(("k1", "b"), PARAMETERS)
def test_bm25_is_float_bm25_for_any_count_length_and_parameter(tmp_path, k1, b):
    words = ["whale", "sea", "ship", "deck", "n7"]
    check_bm25(bm25_index(tmp_path / "one", [TEXTS], k1=k1, b=b), TEXTS, words, k1, b)
    many = bm25_index(tmp_path / "many", [TEXTS[i : i + 3] for i in range(0, len(TEXTS), 3)], k1=k1, b=b)
    assert many.field("f").segments[1:]
    check_bm25(many, TEXTS, words, k1, b)
    check_bm25(change(tmp_path / "many", compact=True), TEXTS, words, k1, b)


@pytest.mark.parametrize("k1", [1.2, 100.0])
def test_counts_past_a_byte_are_told_apart(tmp_path, k1):
    texts = ["whale " * n + "sea " * (5000 - n) for n in (255, 260, 500, 1000, 3000)]
    found = scores_of(bm25_index(tmp_path / "idx", [texts], k1=k1, b=0.75), "whale")
    if k1 == 100.0:
        assert [doc_id for doc_id, _ in sorted(found.items(), key=lambda each: -each[1])] == ["d4", "d3", "d2", "d1", "d0"]
    assert sorted(found.values()) == pytest.approx(sorted(float_bm25(texts, "whale", k1, 0.75)), abs=0.51 / 255)


def test_one_long_document_first_and_many_short_ones_later(tmp_path):
    texts = ["ant " * 5000, *(f"ant bee{i} cat" for i in range(200))]
    snapshot = bm25_index(tmp_path / "idx", [texts[:1], *(texts[i : i + 10] for i in range(1, 201, 10))])
    info = snapshot.info()["fields"]["f"]
    assert info["average_length_drift"] <= 0.005
    assert info["warnings"] == []
    before, after = (scores_of(each, "ant bee7") for each in (snapshot, change(tmp_path / "idx", compact=True)))
    assert before == pytest.approx(after, abs=5.3 * 1.01 / 255)  # one step of an impact, times the largest idf
    assert after == pytest.approx(dict(zip(after, [0.0] * len(after), strict=True)) | as_dict(texts, "ant bee7"), abs=0.03)


def as_dict(texts, query):
    return {f"d{i}": score for i, score in enumerate(float_bm25(texts, query, 1.2, 0.75).tolist()) if score}


def test_a_large_field_whose_average_length_has_drifted_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(LIMIT, 0)
    snapshot = bm25_index(tmp_path / "idx", [["ant " * 5000], ["ant bee cat"] * 50])
    (warning,) = snapshot.info()["fields"]["f"]["warnings"]
    assert "average length" in warning
    assert "lexmax compact" in warning
    assert change(tmp_path / "idx", compact=True).info()["fields"]["f"]["warnings"] == []


def test_deleted_documents_count_in_no_statistic(tmp_path):
    """A search between the delete and the compaction gives the scores of an index that never had the documents."""
    texts = [f"ant w{i} " + "bee " * (i % 3) for i in range(60)]
    kept = [f"d{i}" for i in range(60) if i % 4]
    bm25_index(tmp_path / "idx", [texts[:33], texts[33:]])
    deleted = change(tmp_path / "idx", deleted=[f"d{i}" for i in range(0, 60, 4)])
    expected = dict(zip(kept, float_bm25([text for i, text in enumerate(texts) if i % 4], "bee", 1.2, 0.75), strict=True))
    expected = {doc_id: score for doc_id, score in expected.items() if score}
    step = log(1 + 15.5 / 30.5) / 255  # 30 of the 45 documents that stay have the word
    for snapshot in (deleted, change(tmp_path / "idx", compact=True)):
        assert scores_of(snapshot, "bee") == pytest.approx(expected, abs=0.51 * step)
        encoded = LexicalEncoder(stemmer="none", stop_words="none").encode_queries(["bee", "w4", "w5"])
        field = snapshot.field("f")
        frequencies = field.document_frequencies(field.vocabulary.find(encoded.vocabulary))
        assert dict(zip(encoded.vocabulary, frequencies.tolist(), strict=True)) == {"bee": 30, "w4": 0, "w5": 1}
