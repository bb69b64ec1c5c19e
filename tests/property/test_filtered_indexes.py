"""A filter that comes again gets an index of its own: answers stay those of the oracle, and memory stays bounded."""

import numpy as np
import pytest
from corpora import make_field, random_vectors

from lexmax.index.kernels import read_only
from lexmax.retrieval.searchers import filtered
from lexmax.retrieval.searchers.blockmax import BlockMaxSearcher, SparseOptions
from lexmax.retrieval.searchers.exhaustive import ExhaustiveSearcher


def masks_of(field, rng, share):
    """Read-only masks of the live documents, as snapshots give them."""
    return [
        read_only((rng.random(segment.n_docs) < share) & (True if segment.live is None else segment.live))
        for segment in field.segments
    ]


def field_of(folder, rng, n_docs, cuts=()):
    documents = random_vectors(rng, n_docs, 60, 12, levels=int(rng.choice([0, 2, 255])))
    return make_field(folder / "idx", documents, cuts, tuple(np.flatnonzero(rng.random(n_docs) < 0.05).tolist()))


def assert_same(hits, expected):
    assert np.array_equal(hits.offsets, expected.offsets)
    assert np.array_equal(hits.doc_nums, expected.doc_nums)
    assert np.array_equal(hits.scores, expected.scores)


@pytest.mark.parametrize("seed", range(8))
def test_answers_are_the_oracles(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(filtered, "NS_INVERTED", 0.0)
    rng = np.random.default_rng(seed)
    field = field_of(tmp_path, rng, 3000, cuts=(700, 2900) if seed % 2 else ())
    masks, queries = masks_of(field, rng, 0.02), random_vectors(rng, 5, 70, 12)
    searcher = BlockMaxSearcher(field)
    for k in (1, 10, 100, 4000):
        expected = ExhaustiveSearcher(field).search(queries, k, masks)
        for n_threads in (1, 3):
            assert_same(searcher.search(queries, k, masks, n_threads=n_threads), expected)
        assert_same(searcher.search(queries, k, masks, SparseOptions(algorithm="scan")), expected)
        assert searcher._filtered.of(searcher._counted(masks)) is not None
    assert_same(searcher.search(queries, 10), ExhaustiveSearcher(field).search(queries, 10))


def test_it_is_made_when_searches_have_cost_as_much(tmp_path):
    rng = np.random.default_rng(1)
    field = field_of(tmp_path, rng, 2000)
    masks, searcher = masks_of(field, rng, 0.02), BlockMaxSearcher(field)
    allowed = searcher._counted(masks)
    assert searcher._filtered.of(allowed) is None
    searcher._filtered.pay(allowed, 1e-9)
    assert searcher._filtered.of(allowed) is None
    searcher._filtered.pay(allowed, 1.0)
    assert searcher._filtered.of(allowed) is not None


def test_masks_that_can_change_and_filters_that_allow_many_get_none(tmp_path, monkeypatch):
    monkeypatch.setattr(filtered, "NS_INVERTED", 0.0)
    rng = np.random.default_rng(2)
    field = field_of(tmp_path, rng, 2000)
    searcher, queries = BlockMaxSearcher(field), random_vectors(rng, 2, 60, 8)
    for masks in ([mask.copy() for mask in masks_of(field, rng, 0.02)], masks_of(field, rng, 0.3)):
        for _ in range(3):
            assert_same(searcher.search(queries, 10, masks), ExhaustiveSearcher(field).search(queries, 10, masks))
        assert not any(each.index for each in searcher._filtered._filters.values())
    changing = [np.zeros(segment.n_docs, np.bool_) for segment in field.segments]
    assert len(searcher.search(queries, 10, changing).doc_nums) == 0
    changing[0][:20] = True
    assert_same(searcher.search(queries, 10, changing), ExhaustiveSearcher(field).search(queries, 10, changing))


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(filtered, "NS_INVERTED", 0.0)
    monkeypatch.setattr(filtered, "MAX_FILTERS", 6)
    rng = np.random.default_rng(3)
    field = field_of(tmp_path, rng, 3000)
    searcher, queries = BlockMaxSearcher(field), random_vectors(rng, 2, 60, 8)
    filters = [masks_of(field, rng, 0.02) for _ in range(9)]
    held = sum(segment.inverted.n_postings for segment in field.segments) * 0.02
    monkeypatch.setattr(filtered, "MAX_POSTINGS", int(3.5 * held))
    for masks in filters + filters[:2]:
        for _ in range(2):
            assert_same(searcher.search(queries, 10, masks), ExhaustiveSearcher(field).search(queries, 10, masks))
        known = searcher._filtered._filters.values()
        assert len(known) <= 6
        assert 0 < sum(each.n_postings for each in known if each.index) <= 3.5 * held
