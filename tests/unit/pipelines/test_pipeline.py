"""The executor, against a naive one over dictionaries."""

import numpy as np
import pytest
from corpora import documents, random_vectors
from token_vectors import token_vectors

from lexmax import Collection, EncoderRecord, NewField, Snapshot
from lexmax.retrieval.hits import UNREADABLE, ReadCounts, Scores
from lexmax.retrieval.pipelines.expression import parse
from lexmax.retrieval.pipelines.pipeline import DEPTH, Pipeline
from lexmax.retrieval.searchers.registry import field_searcher

N_DOCS, N_QUERIES = 400, 5
RECORD = EncoderRecord(kind="splade", fingerprint="splade:0", settings={})


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Two sparse fields and one of tokens, in three segments, with deletes."""
    rng = np.random.default_rng(0)
    vectors = {
        "a": random_vectors(rng, N_DOCS, 40, 8),
        "b": random_vectors(rng, N_DOCS, 60, 12),
        "t": token_vectors(rng, rng.integers(0, 9, N_DOCS)),
    }
    fields = {
        "a": NewField(encoder=RECORD), "b": NewField(encoder=RECORD),
        "t": NewField(encoder=RECORD, representation="tokens", options={"dim": 32, "nbits": 2, "exact": True}),
    }  # fmt: skip
    path = tmp_path_factory.mktemp("index") / "idx"
    with Collection.create(path, fields) as collection:
        for first in (0, 150, 300):
            rows = np.arange(first, min(first + 150, N_DOCS))
            collection.add(documents(len(rows), first), {name: each.select(rows) for name, each in vectors.items()})
            collection.commit()
        collection.delete(["d3", "d200", "d399"])
        collection.commit()
    return Snapshot.open(path)


@pytest.fixture(scope="module")
def searchers(index):
    return {name: field_searcher(each) for name, each in index.fields.items()}


@pytest.fixture(scope="module")
def queries(searchers):
    rng = np.random.default_rng(9)
    made = {
        "a": random_vectors(rng, N_QUERIES, 40, 6), "b": random_vectors(rng, N_QUERIES, 60, 6),
        "t": token_vectors(rng, [4] * N_QUERIES),
    }  # fmt: skip
    return {name: searchers[name].vectors(each) for name, each in made.items()}


def naive(search, searchers, queries, number, k, depth=None):
    """(doc_num, score) of one query, by dictionaries."""

    def first_stage(name, n):
        doc_nums, scores = searchers[name].search(queries[name], n).query(number)
        return list(zip(doc_nums.tolist(), scores.tolist(), strict=True))

    def scaled(pairs):
        scores = [score for _, score in pairs]
        if not scores:
            return {}
        deviation = np.std(scores) or 1.0
        shares = np.exp((np.array(scores) - np.mean(scores)) / deviation)
        return dict(zip((doc for doc, _ in pairs), (shares / shares.sum()).tolist(), strict=True))

    def joined(parts, weights):
        total = {}
        for i, pairs in enumerate(parts):
            if weights is None:
                values = {doc: 1 / (60 + rank) for rank, (doc, _) in enumerate(pairs, 1)}
            else:
                values = {doc: weights[i] * value for doc, value in scaled(pairs).items()}
            for doc, value in values.items():
                total[doc] = total.get(doc, 0.0) + value
        return sorted(((doc, float(np.float32(value))) for doc, value in total.items()), key=lambda p: (-p[1], p[0]))

    def term(each):
        n = each.depth or max(DEPTH, k)
        if isinstance(each.source, str):
            return first_stage(each.source, n)
        return run(each.source)[:n]

    def run(each):
        parts = [term(part) for part in each.first.terms]
        found = parts[0] if len(parts) == 1 and each.first.weights is None else joined(parts, each.first.weights)
        for reranker in each.rerankers:
            candidates = np.array([doc for doc, _ in found[: reranker.depth]], np.int32)
            scored = []
            for part in reranker.fused.terms:
                scores = searchers[part.source].score(
                    queries[part.source], [candidates if i == number else candidates[:0] for i in range(N_QUERIES)]
                )[number]
                pairs = [pair for pair in zip(candidates.tolist(), scores.tolist(), strict=True) if pair[1] > -np.inf]
                scored.append(sorted(pairs, key=lambda p: (-p[1], p[0])))
            single = len(scored) == 1 and reranker.fused.weights is None
            found = scored[0] if single else joined(scored, reranker.fused.weights)
        return found

    return run(search)[:k]


@pytest.mark.parametrize(
    "expression",
    [
        "a", "a:7", "t", "a + b", "0.3*a + 0.7*b", "2*a", "a:20 + b:5", "(a + b) > t", "(a + b) > t:30", "a > b > t:10",
        "(a + b) > 0.3*a + 0.7*t", "(a + b) > a + t", "(a:30 > t) + b", "0.5*(a + b) + 0.5*t", "a + (b > a + t:40) > b",
    ],
)  # fmt: skip
@pytest.mark.parametrize("k", [1, 10, 150])
def test_answers_are_those_of_the_definition(searchers, queries, expression, k):
    search = parse(expression)
    answer = Pipeline(search, searchers).run(queries, k, n_threads=2)
    for number in range(N_QUERIES):
        doc_nums, scores = answer.hits.query(number)
        expected = naive(search, searchers, queries, number, k)
        assert doc_nums.tolist() == [doc for doc, _ in expected]
        assert scores.tolist() == pytest.approx([score for _, score in expected], rel=1e-6)


def test_batches_and_threads_make_no_difference(searchers, queries):
    pipeline = Pipeline(parse("(a + b) > 0.3*a + 0.7*t"), searchers)
    whole = pipeline.run(queries, 20, n_threads=4).hits
    for number in range(N_QUERIES):
        one = pipeline.run({name: each.select(np.array([number])) for name, each in queries.items()}, 20).hits
        assert [part.tolist() for part in one.query(0)] == [part.tolist() for part in whole.query(number)]


def test_filters_hold_in_every_first_stage(index, searchers, queries):
    allowed = index.masks("number >= 100 and number < 180")
    answer = Pipeline(parse("(a + b + t) > t"), searchers).run(queries, 100, allowed=allowed)
    for number in range(N_QUERIES):
        doc_nums, _ = answer.hits.query(number)
        assert len(doc_nums) > 60
        assert all(100 <= doc < 180 for doc in doc_nums.tolist())


def test_stages_are_timed_and_traced(searchers, queries):
    answer = Pipeline(parse("(a + b) > t"), searchers).run(queries, 10, trace=True)
    assert list(answer.timings_ms)[:4] == ["a:100", "b:100", "a + b", "> t"]
    assert all(ms >= 0 for ms in answer.timings_ms.values())
    assert [stage.stage for stage in answer.trace] == ["a + b", "> t"]
    assert [stage.fields for stage in answer.trace] == [("a", "b"), ("t",)]
    for number in range(N_QUERIES):
        last = answer.trace[-1].rankings[number]
        assert last.doc_nums[:10].tolist() == answer.hits.query(number)[0].tolist()


class Blind:
    """A searcher that cannot read some documents."""

    def __init__(self, inner, lost):
        self._inner, self._lost = inner, lost

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def score(self, queries, doc_nums, **keywords):
        scores = [each.copy() for each in self._inner.score(queries, doc_nums, **keywords)]
        for each, numbers in zip(scores, doc_nums, strict=True):
            each[np.isin(numbers, self._lost)] = UNREADABLE
        return Scores(scores, ReadCounts(n_records=3, n_reads=2, n_bytes=100, n_unreadable=1))


@pytest.mark.parametrize("reranker", ["t", "0.4*t + 0.6*b", "t + b:40"])
def test_candidates_that_cannot_be_read_keep_their_score_and_come_last(searchers, queries, reranker):
    search = parse(f"a:60 > {reranker}")
    first = Pipeline(parse("a:60"), searchers).run(queries, 60)
    lost = [first.hits.query(number)[0][at] for number in range(N_QUERIES) for at in (0, 7, 30)]
    blind = {**searchers, "t": Blind(searchers["t"], lost)}
    answer, whole = Pipeline(search, blind).run(queries, 60, trace=True), Pipeline(search, searchers).run(queries, 60)
    depth = 40 if ":" in reranker else 60
    assert answer.reads == {"> t": ReadCounts(n_records=3, n_reads=2, n_bytes=100, n_unreadable=1)}
    assert not whole.reads
    assert not whole.unreadable
    for number in range(N_QUERIES):
        numbers, scores = first.hits.query(number)
        unread = [(int(n), float(s)) for n, s in zip(numbers[:depth], scores[:depth], strict=True) if n in lost]
        found = [(int(n), float(s)) for n, s in zip(*answer.hits.query(number), strict=True)]
        assert found[len(found) - len(unread) :] == unread
        assert answer.unreadable[number] == {n for n, _ in unread}
        if reranker == "t":
            wanted = [(int(n), float(s)) for n, s in zip(*whole.hits.query(number), strict=True) if n not in lost]
            assert found[: len(found) - len(unread)] == wanted


def test_a_field_that_is_named_twice_is_searched_once(searchers, queries):
    calls = []

    class Counting:
        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def search(self, *arguments, **keywords):
            calls.append(arguments[1])
            return self._inner.search(*arguments, **keywords)

    counted = {name: Counting(each) for name, each in searchers.items()}
    Pipeline(parse("a + (a + b) > a"), counted).run(queries, 10)
    assert len(calls) == 2


def test_wrong_arguments(searchers, queries):
    pipeline = Pipeline(parse("a"), searchers)
    with pytest.raises(ValueError, match="k must be at least 1"):
        pipeline.run(queries, 0)
    with pytest.raises(ValueError, match="options for the field 't'; the search has a"):
        pipeline.run(queries, 1, options={"t": {}})
    with pytest.raises((ValueError, TypeError), match="n_probe"):
        pipeline.run(queries, 1, options={"a": {"n_probe": 4}})
    oracle = pipeline.run(queries, 20, options={"a": {"algorithm": "exhaustive"}}).hits
    fast = pipeline.run(queries, 20).hits
    assert oracle.doc_nums.tolist() == fast.doc_nums.tolist()
