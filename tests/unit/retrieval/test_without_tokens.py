"""Documents and queries without tokens are no answers in any search of token vectors, however low the others score."""

import numpy as np
import pytest
from corpora import documents
from hypothesis import given, settings
from hypothesis import strategies as st
from token_vectors import TOKEN_ENCODER, token_vectors

from lexmax import Collection, EncoderRecord, NewField, SparseVectors
from lexmax.index.representations.multivectors import MultiVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.pipelines.expression import parse
from lexmax.retrieval.pipelines.pipeline import Pipeline
from lexmax.retrieval.searchers.centroid import CentroidOptions
from lexmax.retrieval.searchers.registry import field_searcher

DIM, N_DOCS, K = 32, 90, 60
EMPTY = {0, 3, 4, 17, 40, 41, 89}
DELETED = {5, 17, 60}
SEARCHES = {
    "default": CentroidOptions(),
    "narrow": CentroidOptions(n_probe=1, n_gathered=8, n_candidates=4, n_exact=2),
    "codes": CentroidOptions(n_exact=0),
    "exhaustive": CentroidOptions(algorithm="exhaustive"),
}
every_search = pytest.mark.parametrize("options", SEARCHES.values(), ids=SEARCHES)


def opposite(rng, widths):
    """Queries whose tokens point away from all documents, so that every MaxSim is negative; see `snapshot`."""
    return MultiVectors.of([-token_vectors(rng, [width], DIM, n_topics=1, spread=0.2).row(0) for width in widths], DIM)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("tokens") / "i", np.random.default_rng(1)
    widths = [0 if i in EMPTY else int(rng.integers(1, 9)) for i in range(N_DOCS)]
    tokens = token_vectors(rng, widths, DIM, n_topics=1, spread=0.2)
    words = SparseVectors.from_rows([([0], [float(i + 1)]) for i in range(N_DOCS)])
    fields = {
        "tokens": NewField(encoder=TOKEN_ENCODER, representation="tokens", options={"dim": DIM}),
        "words": NewField(encoder=EncoderRecord(kind="splade", fingerprint="splade:0", settings={}), scale=1.0),
    }
    with Collection.create(path, fields) as collection:
        for first, last in ((0, 40), (40, N_DOCS)):
            rows = np.arange(first, last)
            batch = {"tokens": tokens.select(rows), "words": words.select(rows)}
            collection.add(documents(last - first, first), batch)
            collection.commit()
        collection.delete([f"d{i}" for i in DELETED])
        collection.commit()
    return Snapshot.open(path)


def masks_of(snapshot, numbers):
    """Live documents among some."""
    wanted = np.isin(np.arange(N_DOCS), list(numbers))
    parts = [wanted[segment.base : segment.base + segment.n_docs] for segment in snapshot.segments]
    return [
        part if segment.live is None else part & segment.live for part, segment in zip(parts, snapshot.segments, strict=True)
    ]


@every_search
@pytest.mark.parametrize("allowed", [None, range(N_DOCS), range(30, 60), [3, 4, 6, 40, 41, 42], [0, 3, 17]], ids=str)
def test_a_search_finds_all_allowed_documents_with_tokens_and_no_other(snapshot, options, allowed):
    queries = opposite(np.random.default_rng(2), [1, 8, 0, 33])
    masks = None if allowed is None else masks_of(snapshot, allowed)
    hits = field_searcher(snapshot.field("tokens")).search(queries, N_DOCS, allowed=masks, options=options, n_threads=2)
    expected = set(range(N_DOCS) if allowed is None else allowed) - EMPTY - DELETED
    for number in (0, 1, 3):
        doc_nums, scores = hits.query(number)
        assert set(doc_nums.tolist()) == expected
        assert np.all(scores < 0)
    assert len(hits.query(2)[0]) == 0  # a query without tokens


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1), k=st.integers(1, N_DOCS))
def test_no_search_returns_a_document_without_tokens(snapshot, seed, share, k):
    rng = np.random.default_rng(seed)
    queries = opposite(rng, rng.integers(0, 5, 3))
    allowed = np.flatnonzero(rng.random(N_DOCS) < share).tolist()
    n_answers = min(k, len(set(allowed) - EMPTY - DELETED))
    for options in SEARCHES.values():
        hits = field_searcher(snapshot.field("tokens")).search(
            queries, k, allowed=masks_of(snapshot, allowed), options=options
        )  # fmt: skip
        for number, width in enumerate(np.diff(queries.offsets).tolist()):
            doc_nums = hits.query(number)[0].tolist()
            assert not EMPTY & set(doc_nums)
            assert len(doc_nums) == (n_answers if width else 0)


@every_search
def test_the_score_of_a_document_without_tokens_is_below_any_other(snapshot, options):
    queries = opposite(np.random.default_rng(2), [4, 0])
    everything = np.arange(N_DOCS, dtype=np.int32)[::-1]
    scores, of_nothing = field_searcher(snapshot.field("tokens")).score(queries, [everything, everything], options=options)
    assert set(everything[np.isneginf(scores)].tolist()) == EMPTY
    assert np.isneginf(of_nothing).all()


@pytest.mark.parametrize(
    ("search", "n_others"),
    [("words > tokens", 0), ("words:50 > tokens", 0), ("words + tokens", 1), ("words > 0.5*words + 0.5*tokens", 1)],
)
def test_an_expression_leaves_out_what_no_field_answers(snapshot, search, n_others):
    pipeline = Pipeline(parse(search), {name: field_searcher(snapshot.field(name)) for name in ("words", "tokens")})
    queries = {"words": SparseVectors.from_rows([([0], [1.0])] * 2), "tokens": opposite(np.random.default_rng(2), [4, 0])}
    with_tokens, without = (set(pipeline.run(queries, N_DOCS).hits.query(i)[0].tolist()) for i in range(2))
    if n_others:  # the other field answers for documents and queries without tokens
        assert with_tokens == without == set(range(N_DOCS)) - DELETED
    else:
        assert with_tokens
        assert not with_tokens & EMPTY
        assert not without


def test_an_explanation_of_a_document_without_tokens_is_zero(snapshot):
    searcher = field_searcher(snapshot.field("tokens"))
    assert searcher.explain(opposite(np.random.default_rng(2), [4]), 0, "", 3, "").score == 0.0
