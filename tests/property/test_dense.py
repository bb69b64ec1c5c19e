"""Dense search against float64 inner products: documents, scores, ties, deletes, filters, segments, structures and codes."""

import os
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
from corpora import documents
from dense_vectors import dense_vectors, make_dense_field
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmax import Collection
from lexmax.index.dense import config, training, writer
from lexmax.index.representations.dense import DenseVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers import dense
from lexmax.retrieval.searchers.dense import DenseOptions, DenseSearcher

EXAMPLES = int(os.environ.get("LEXMAX_EXAMPLES", 60))


def ranked(scores, allowed, k):
    numbers = np.flatnonzero(allowed)
    return numbers[np.lexsort((numbers, -scores[numbers]))][:k]


@contextmanager
def few_docs(n):
    """So few documents of a segment are all scored."""
    old, dense.FEW_DOCS = dense.FEW_DOCS, n
    try:
        yield
    finally:
        dense.FEW_DOCS = old


@cache
def field_of(folder, seed, keep, whole):
    rng = np.random.default_rng(seed)
    vectors = dense_vectors(rng, 400, 12)
    if whole:  # whole numbers are kept without rounding, and make many ties
        vectors = DenseVectors(rng.integers(-2, 3, (400, 12)).astype(np.float32))
    place = folder / f"{seed}-{keep}-{whole}"
    return vectors, make_dense_field(place, vectors, (150, 151), tuple(range(0, 400, 7)), keep=keep)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dense")


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=st.integers(0, 3), keep=st.sampled_from(["float16", "float32"]), k=st.sampled_from([1, 3, 20, 390, 500]),
    share=st.sampled_from([None, 0.0, 0.02, 0.5, 1.0]), n_threads=st.integers(1, 3), few=st.sampled_from([0, 2048]),
)  # fmt: skip
def test_ties_filters_and_segments_agree_with_an_exact_ranking(folder, seed, keep, k, share, n_threads, few):
    vectors, field = field_of(folder, seed, keep, True)
    rng = np.random.default_rng(k)
    allowed = np.ones(400, np.bool_) if share is None else rng.random(400) < share
    allowed[::7] = False
    masks = np.split(allowed, [150, 151])
    queries = DenseVectors(rng.integers(-2, 3, (3, 12)).astype(np.float32))
    with few_docs(few):
        hits = DenseSearcher(field).search(queries, k, allowed=masks, n_threads=n_threads)
    scores = vectors.vectors.astype(np.float64) @ queries.vectors.astype(np.float64).T
    for number in range(3):
        doc_nums, found = hits.query(number)
        expected = ranked(scores[:, number], allowed, k)
        assert doc_nums.tolist() == expected.tolist()
        assert found.tolist() == scores[expected, number].tolist()


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 3), keep=st.sampled_from(["float16", "float32", "int8"]), k=st.sampled_from([1, 10, 100]))
def test_search_scores_and_the_oracle_agree_bit_for_bit(folder, seed, keep, k):
    vectors, field = field_of(folder, seed, keep, False)
    queries = dense_vectors(np.random.default_rng(k), 4, 12)
    searcher = DenseSearcher(field)
    with few_docs(0):
        hits = searcher.search(queries, k)
    oracle = searcher.search(queries, k, options=DenseOptions(algorithm="exhaustive"))
    assert hits.doc_nums.tolist() == oracle.doc_nums.tolist()
    assert hits.scores.tobytes() == oracle.scores.tobytes()
    numbers = [np.random.default_rng(i).permutation(hits.query(i)[0]) for i in range(4)]
    for i, scores in enumerate(searcher.score(queries, numbers, n_threads=2)):
        known = dict(zip(hits.query(i)[0].tolist(), hits.query(i)[1].tolist(), strict=True))
        assert scores.tolist() == [known[number] for number in numbers[i].tolist()]
    exact = vectors.vectors.astype(np.float64)[hits.query(0)[0]] @ queries.row(0).astype(np.float64)
    tolerance = {"float16": 2**-10, "float32": 1e-6, "int8": 2**-6}[keep] * np.linalg.norm(queries.row(0)) * 2
    assert np.abs(exact - hits.query(0)[1]).max() < tolerance


STRUCTURES = [
    {"structure": "ivf", "n_lists": 8},
    {"structure": "ivf", "n_lists": 8, "keep": "int8", "coarse_dim": 4, "search_dim": 6},
    {"structure": "ivf", "n_lists": 5, "quantise": "int8", "search_dim": 7},
    {"structure": "ivf", "n_lists": 8, "quantise": "opq", "pq_bytes": 4, "coarse_dim": 5, "search_dim": 10},
    {"structure": "flat", "quantise": "pq", "pq_bytes": 5},
    {"structure": "hnsw", "n_links": 4, "ef_construction": 16},
    {"structure": "hnsw", "n_links": 4, "ef_construction": 16, "order": "lid_desc"},
]


@cache
def structured(folder, number):
    """Vectors as they are kept, and a field of three segments, the last two of which were merged by a compaction."""
    config = STRUCTURES[number]
    vectors = dense_vectors(np.random.default_rng(number), 400, 12)
    place, deleted = folder / f"structure-{number}", tuple(range(0, 400, 7))
    with patched():
        make_dense_field(place, vectors, (330,), deleted, **config)
        with Collection.open(place) as collection:
            collection.compact()
            more = dense_vectors(np.random.default_rng(9), 60, 12)
            collection.add(documents(60, 400), {"dense": more})
            collection.commit()
    field = Snapshot.open(place).field("dense")
    assert {segment.part.structure for segment in field.segments} == {
        "codes" if config["structure"] == "flat" else config["structure"]
    }
    return field


@contextmanager
def patched():
    """Make structures of few documents."""
    modules = [(writer, "GRAPH_VECTORS", 16), (config, "CODE_POINTS", 256), (training, "POINTS_PER_CODEBOOK", 512)]
    old = [getattr(module, name) for module, name, _ in modules]
    for module, name, value in modules:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(modules, old, strict=True):
            setattr(module, name, value)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    number=st.integers(0, len(STRUCTURES) - 1), k=st.sampled_from([1, 7, 200, 500]), n_threads=st.integers(1, 3),
    share=st.sampled_from([None, 0.0, 0.1, 0.7]), effort=st.sampled_from([1, 6, None, 1000]),
)  # fmt: skip
def test_structures_find_allowed_documents_with_the_scores_of_scoring_and_all_of_them_when_asked(
    folder, number, k, share, effort, n_threads
):
    field = structured(folder, number)
    rng = np.random.default_rng(k)
    masks = field.masks()
    if share is not None:
        masks = [(rng.random(each.n_docs) < share) & (True if each.live is None else each.live) for each in field.segments]
    pairs = zip(field.segments, masks, strict=True)
    allowed = np.concatenate([np.ones(s.n_docs, bool) if mask is None else mask for s, mask in pairs])
    queries = dense_vectors(rng, 3, 12)
    names = {"ivf": ["n_probe", "n_candidates"], "hnsw": ["ef_search", "n_candidates"]}.get(
        field.config.structure, ["n_candidates"]
    )
    searcher = DenseSearcher(field)
    with few_docs(0):
        options = DenseOptions(**dict.fromkeys(names, effort))
        hits = searcher.search(queries, k, allowed=masks, options=options, n_threads=n_threads)
    oracle = searcher.search(queries, k, allowed=masks, options=DenseOptions(algorithm="exhaustive"))
    kept = np.stack([field.document_vector(i) for i in range(field.n_total)]).astype(np.float64)
    for i in range(3):
        doc_nums, scores = hits.query(i)
        exact = kept @ queries.row(i).astype(np.float64)
        assert len(doc_nums) == min(k, allowed.sum()) == len(set(doc_nums.tolist()))
        assert allowed[doc_nums].all()
        assert np.abs(scores - exact[doc_nums]).max(initial=0) < 1e-5
        assert scores.tobytes() == searcher.score(queries.select(np.array([i])), [doc_nums])[0].tobytes()
        assert (np.diff(scores) <= 0).all()
        if effort == 1000:
            assert doc_nums.tolist() == oracle.query(i)[0].tolist()
        assert (
            oracle.query(i)[1].tobytes()
            == np.sort(searcher.score(queries, [np.flatnonzero(allowed)] * 3)[i])[::-1][:k].tobytes()
        )


def recall_of(field, queries, k=10, **options):
    searcher = DenseSearcher(field)
    with few_docs(0):
        found = searcher.search(queries, k, options=DenseOptions(**options))
    best = searcher.search(queries, k, options=DenseOptions(algorithm="exhaustive"))
    return np.mean([len(np.intersect1d(found.query(i)[0], best.query(i)[0])) / k for i in range(len(queries))])


@pytest.mark.parametrize(("number", "least", "options"), [
    (0, 0.7, {"n_probe": 3}), (3, 0.6, {"n_probe": 4, "n_candidates": 40}), (4, 0.85, {"n_candidates": 40}),
    (5, 0.9, {"ef_search": 40}), (6, 0.9, {"ef_search": 40}),
])  # fmt: skip
def test_structures_find_most_of_the_best_at_little_effort(folder, number, least, options):
    queries = dense_vectors(np.random.default_rng(5), 40, 12)
    assert recall_of(structured(folder, number), queries, **options) >= least


def test_codes_rank_as_what_they_stand_for(folder):
    """Product quantisation after a rotation: vectors rebuilt from centroids, codebooks and codes, in float64."""
    field = structured(folder, 3)
    quantiser, part = field.quantiser, field.segments[0].part
    lists = np.repeat(np.arange(8), np.diff(part.lists.starts))
    chosen = quantiser.codebooks[np.arange(4), part.lists.codes].reshape(part.n_docs, -1).astype(np.float64)
    rebuilt = chosen @ quantiser.rotation.T
    rebuilt[:, :5] += quantiser.centroids[lists]
    query = dense_vectors(np.random.default_rng(6), 1, 12)
    scores = rebuilt @ query.row(0)[:10].astype(np.float64)
    masks = [None, np.zeros(60, bool)]
    with few_docs(0):
        found = DenseSearcher(field).search(query, 20, allowed=masks, options=DenseOptions(n_probe=8, n_candidates=20)).doc_nums
    assert np.sort(found).tolist() == np.sort(part.documents[np.argsort(-scores)[:20]]).tolist()
    searcher = DenseSearcher(field)
    read = []
    searcher._products = lambda doc_nums, query: read.extend(doc_nums) or np.zeros(len(doc_nums), np.float32)
    with few_docs(0):
        by_codes = searcher.search(query, 20, allowed=masks, options=DenseOptions(n_probe=8, n_candidates=0))
    assert not read  # of the kept vectors
    assert np.sort(by_codes.doc_nums).tolist() == np.sort(found).tolist()
    estimates = np.empty(part.n_docs)
    estimates[part.documents] = scores
    assert np.abs(by_codes.scores - estimates[by_codes.doc_nums]).max() < 0.05
    assert (np.diff(by_codes.scores) <= 0).all()


def test_an_order_of_codes_needs_codes(folder):
    with pytest.raises(ValueError, match="leaves the order to codes"):
        DenseSearcher(structured(folder, 0)).search(
            dense_vectors(np.random.default_rng(1), 1, 12), 3, options=DenseOptions(n_candidates=0)
        )


M = 3
SEVERAL = [
    {}, {"keep": "int8"}, {"structure": "ivf", "n_lists": 8},
    {"structure": "ivf", "n_lists": 8, "coarse_dim": 4, "search_dim": 8},
    {"structure": "ivf", "n_lists": 5, "quantise": "int8"},
    {"structure": "ivf", "n_lists": 8, "quantise": "opq", "pq_bytes": 4},
    {"structure": "flat", "quantise": "pq", "pq_bytes": 6},
    {"structure": "hnsw", "n_links": 6, "ef_construction": 24},
]  # fmt: skip


@cache
def several(folder, number, whole=False):
    """A field of documents of three vectors each, in three segments, the last two merged by a compaction."""
    config, rng = SEVERAL[number], np.random.default_rng(number)
    vectors = dense_vectors(rng, 460 * M, 12).vectors
    if whole:
        vectors = rng.integers(-2, 3, (460 * M, 12)).astype(np.float32)
    rows = vectors.reshape(460, M * 12)
    place, deleted = folder / f"several-{number}-{whole}", tuple(range(0, 400, 7))
    with patched():
        make_dense_field(place, DenseVectors(rows[:400]), (330,), deleted, dim=12, vectors_per_doc=M, **config)
        with Collection.open(place) as collection:
            collection.compact()
            collection.add(documents(60, 400), {"dense": DenseVectors(rows[400:])})
            collection.commit()
    kept = np.delete(rows, np.array(deleted), axis=0).reshape(-1, M, 12)
    return kept, Snapshot.open(place).field("dense")


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    number=st.integers(0, len(SEVERAL) - 1), k=st.sampled_from([1, 7, 200, 500]), n_threads=st.integers(1, 2),
    share=st.sampled_from([None, 0.0, 0.1, 0.7]), effort=st.sampled_from([1, None, 1000]), few=st.sampled_from([0, 2048]),
)  # fmt: skip
def test_the_best_of_a_documents_vectors_is_its_score(folder, number, k, share, effort, n_threads, few):
    kept, field = several(folder, number)
    assert [each["n_vectors"] for each in map(field.segment_info, field.segments)] == [M * s.n_docs for s in field.segments]
    rng = np.random.default_rng(k)
    allowed = np.ones(len(kept), np.bool_) if share is None else rng.random(len(kept)) < share
    masks = np.split(allowed, np.cumsum([each.n_docs for each in field.segments])[:-1])
    queries, searcher = dense_vectors(rng, 3, 12), DenseSearcher(field)
    names = {"ivf": ["n_probe", "n_candidates"], "hnsw": ["ef_search", "n_candidates"]}.get(
        field.config.structure, ["n_candidates"]
    )
    with few_docs(few):
        hits = searcher.search(
            queries, k, allowed=masks, options=DenseOptions(**dict.fromkeys(names, effort)), n_threads=n_threads
        )
    oracle = searcher.search(queries, k, allowed=masks, options=DenseOptions(algorithm="exhaustive"))
    stored = np.stack([field.vectors_of(i) for i in range(field.n_total)]).astype(np.float64)
    assert np.abs(stored - kept).max() < (0.1 if field.config.keep == "int8" else 0.01)
    for i in range(3):
        doc_nums, scores = hits.query(i)
        exact = (stored @ queries.row(i).astype(np.float64)).max(axis=1)
        assert len(doc_nums) == min(k, allowed.sum()) == len(set(doc_nums.tolist()))
        assert allowed[doc_nums].all()
        assert np.abs(scores - exact[doc_nums]).max(initial=0) < 1e-5
        assert scores.tobytes() == searcher.score(queries.select(np.array([i])), [doc_nums])[0].tobytes()
        if effort == 1000 or field.is_exact or few:
            assert doc_nums.tolist() == oracle.query(i)[0].tolist()
        for doc_num in doc_nums[:3].tolist():
            explained = searcher.explain(queries, i, "", doc_num, "")
            assert explained.score == scores[doc_nums == doc_num][0]
            products = stored[doc_num] @ queries.row(i).astype(np.float64)
            assert products[explained.vector] > products.max() - 1e-6


@pytest.mark.parametrize("number", [0, 2])
def test_ties_of_documents_with_several_vectors_go_by_number(folder, number):
    kept, field = several(folder, number, whole=True)
    queries = DenseVectors(np.random.default_rng(3).integers(-2, 3, (5, 12)).astype(np.float32))
    options = DenseOptions(n_probe=8) if number else None
    for few in (0, 2048):
        with few_docs(few):
            hits = DenseSearcher(field).search(queries, 30, options=options)
        scores = (kept.astype(np.float64) @ queries.vectors.astype(np.float64).T).max(axis=1)
        for i in range(5):
            expected = ranked(scores[:, i], np.ones(len(kept), np.bool_), 30)
            assert hits.query(i)[1].tolist() == scores[expected, i].tolist()
            if not number:  # candidates of lists are chosen by the same scores, of which more may be equal
                assert hits.query(i)[0].tolist() == expected.tolist()
