"""The executor of search expressions: first stages, fusions and rerankings over doc_nums."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...index.arrays import Floats, Int32s, Int64s, Mask
from ...index.nearest import did_you_mean
from ...index.representations import Vectors
from ..hits import Hits, ReadCounts, Scores
from ..searchers.early_reads import EarlyReads
from ..searchers.registry import Announce, AnnouncingSearcher, EarlyReader, FieldSearcher, make_options
from .expression import Fused, Reranker, Search, Term
from .fusion import FusedRanking, fuse, fuse_scores

DEPTH = 100
"""Documents that a term of a fusion contributes when nothing is said, or ``k`` if that is more."""
Options = Mapping[str, Any]


def depth_of(term: Term, k: int) -> int:
    """How many documents a term contributes at most to a fusion or a reranking, for ``k`` answers."""
    return term.depth or max(DEPTH, k)


def field_alone(search: Search) -> tuple[Term, str] | None:
    """The only term and its field of a search that is one field; it finds ``k`` documents, or its depth if that is less."""
    (term, *others), source = search.first.terms, search.first.terms[0].source
    alone = isinstance(source, str) and not others and not search.rerankers and term.weight is None
    return (term, str(source)) if alone else None


@dataclass(frozen=True, eq=False)
class StageTrace:
    """What one stage made of a batch of queries.

    Attributes
    ----------
    stage : str
        The stage's part of the search expression.
    fields : tuple of str
        Names of the fields that contribute, one per row of a ranking's ``parts``; empty strings for searches in parentheses.
    rankings : list of FusedRanking
        One per query, not cut to ``k``.
    n_scored : (n_queries,) int64 or None
        `Hits.n_scored` of a stage that is one field's search.
    """

    stage: str
    fields: tuple[str, ...]
    rankings: list[FusedRanking]
    n_scored: Int64s | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """Hits of a batch of queries, and what is known of the way to them.

    Attributes
    ----------
    hits : Hits
    timings_ms : dict of str to float
        Stage -> milliseconds for the whole batch, in the order of execution.
    trace : list of StageTrace
        With ``trace`` alone.
    reads : dict of str to ReadCounts
        Stage -> what it read from disk for the whole batch, of stages that did.
    unreadable : list of set of int
        For each query the doc_nums of candidates whose records could not be read: they keep the score of the stage before,
        after all others. Empty without such.
    """

    hits: Hits
    timings_ms: dict[str, float] = field(default_factory=dict)
    trace: list[StageTrace] = field(default_factory=list)
    reads: dict[str, ReadCounts] = field(default_factory=dict)
    unreadable: list[set[int]] = field(default_factory=list)


class Pipeline:
    """A search expression over the searchers of its fields; safe to use from many threads.

    Parameters
    ----------
    search : Search
    searchers : mapping of str to FieldSearcher
        For every field that the expression names.
    """

    def __init__(self, search: Search, searchers: Mapping[str, FieldSearcher]) -> None:
        self.search = search
        self.searchers = {name: searchers[name] for name in search.fields}

    def options(self, given: Options | None) -> dict[str, Any]:
        """Check options of the fields' searches, and make them objects.

        Raises
        ------
        ValueError, TypeError
            Options for a field that the expression does not name, or unknown ones.
        """
        unknown = sorted(set(given or ()) - set(self.searchers))
        if unknown:
            near = did_you_mean(str(unknown[0]), self.searchers)
            raise ValueError(f"options for the field {unknown[0]!r}; the search has {', '.join(self.searchers)}{near}")
        return {name: make_options(self.searchers[name], each) for name, each in (given or {}).items()}

    def run(
        self, queries: Mapping[str, Vectors], k: int, *, allowed: Sequence[Mask | None] | None = None,
        options: Options | None = None, n_threads: int = 1, trace: bool = False,
    ) -> Answer:  # fmt: skip
        """Answer a batch of queries.

        Parameters
        ----------
        queries : mapping of str to vectors
            Field -> queries that its searcher has made ready, as many for each.
        k : int
            Answers per query; fewer only when fewer documents are found.
        allowed : list of masks, one per segment, or None
            As `Snapshot.masks` returns them; None: all live documents.
        options : mapping of str to options, or None
            Field -> options of its search, an object or a mapping of names.
        n_threads : int
            Queries answered in parallel.
        trace : bool
            Keep what each stage made of the queries.

        Raises
        ------
        ValueError, TypeError
            k < 1, or as `options`.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        run = _Run(self.searchers, queries, k, allowed, self.options(options), n_threads, keep=trace)
        return Answer(run.hits(self.search), run.timings_ms, run.trace, run.reads, run.unreadable)


class _Run:
    """One batch of queries on its way through an expression."""

    def __init__(
        self, searchers: Mapping[str, FieldSearcher], queries: Mapping[str, Vectors], k: int,
        allowed: Sequence[Mask | None] | None, options: Mapping[str, Any], n_threads: int, *, keep: bool,
    ) -> None:  # fmt: skip
        self._searchers, self._queries, self._k, self._allowed = searchers, queries, k, allowed
        self._options, self._n_threads, self._keep = options, n_threads, keep
        self._n_queries = len(next(iter(queries.values())))
        self._found: dict[tuple[str, int], Hits] = {}
        self._announced: dict[str, Announce] = {}
        self.timings_ms: dict[str, float] = {}
        self.trace: list[StageTrace] = []
        self.reads: dict[str, ReadCounts] = {}
        self.unreadable: list[set[int]] = []

    def hits(self, search: Search) -> Hits:
        """Return the k best documents of each query."""
        alone = field_alone(search)
        if alone is not None:
            return self._field_alone(*alone)
        rankings = self._search(search)
        return Hits.of([(each.doc_nums[: self._k], each.scores[: self._k]) for each in rankings])

    def _field_alone(self, term: Term, name: str) -> Hits:
        hits = self._first_stage(name, self._k if term.depth is None else min(self._k, term.depth))
        if self._keep:
            rankings = [FusedRanking.alone(*hits.query(i)) for i in range(len(hits))]
            self.trace.append(StageTrace(str(term), (name,), rankings, hits.n_scored))
        return hits

    def _search(self, search: Search) -> list[FusedRanking]:
        early = self._expected(search)
        try:
            rankings = self._fused(search.first)
            for i, reranker in enumerate(search.rerankers):
                rankings = self._reranked(rankings, reranker, early if i == 0 else {})
        finally:
            for each in early.values():
                each.close()
        return rankings

    def _expected(self, search: Search) -> dict[str, EarlyReads]:
        """Reads of the first reranking, field -> reads, which begin as the first stage announces candidates; {} for none."""
        (term, *others), rerankers = search.first.terms, search.rerankers
        first = term.source
        if others or not rerankers or not isinstance(first, str) or not isinstance(self._searchers[first], AnnouncingSearcher):
            return {}
        depth = rerankers[0].depth
        for name in (str(each.source) for each in rerankers[0].fused.terms):
            searcher = self._searchers[name]
            early = searcher.early(self._n_queries) if isinstance(searcher, EarlyReader) else None
            if early is not None:
                self._announced[first] = partial(_guess, early, depth)
                return {name: early}
        return {}

    def _fused(self, fused: Fused) -> list[FusedRanking]:
        """Rankings of a fusion, or of its only term."""
        parts = [self._term(term) for term in fused.terms]
        names = tuple(term.source if isinstance(term.source, str) else "" for term in fused.terms)
        if len(parts) == 1 and fused.weights is None:
            rankings = [FusedRanking.alone(doc_nums, scores) for doc_nums, scores in parts[0]]
        else:
            rankings = self._timed(str(fused), lambda i: fuse([part[i] for part in parts], fused.weights))
        if self._keep and (len(parts) > 1 or names[0]):
            known = self._found.get((names[0], depth_of(fused.terms[0], self._k))) if len(parts) == 1 else None
            self.trace.append(StageTrace(str(fused), names, rankings, None if known is None else known.n_scored))
        return rankings

    def _term(self, term: Term) -> list[tuple[Int32s, Floats]]:
        """What a term contributes to each query, at most its depth."""
        depth = depth_of(term, self._k)
        if isinstance(term.source, str):
            hits = self._first_stage(term.source, depth)
            return [hits.query(i) for i in range(len(hits))]
        return [(each.doc_nums[:depth], each.scores[:depth]) for each in self._search(term.source)]

    def _first_stage(self, name: str, depth: int) -> Hits:
        if (name, depth) not in self._found:
            start = time.perf_counter()
            announced = {"announce": self._announced.pop(name)} if name in self._announced else {}
            self._found[name, depth] = self._searchers[name].search(
                self._queries[name], depth, allowed=self._allowed, options=self._options.get(name), n_threads=self._n_threads,
                **announced,
            )  # fmt: skip
            self._count(f"{name}:{depth}", start, self._found[name, depth].reads)
        return self._found[name, depth]

    def _reranked(
        self, rankings: list[FusedRanking], reranker: Reranker, early: Mapping[str, EarlyReads]
    ) -> list[FusedRanking]:  # fmt: skip
        """Order the candidates by the scores that all fields of the reranker give them."""
        candidates = [ranking.doc_nums[: reranker.depth] for ranking in rankings]
        names = tuple(str(term.source) for term in reranker.fused.terms)
        by_field = [self._scores(name, candidates, early.get(name)) for name in names]
        lost = self._unreadable(candidates, by_field)
        weights = reranker.fused.weights

        def fused_of(i: int) -> FusedRanking:
            if not lost[i].any():
                return fuse_scores(candidates[i], [scores[i] for scores in by_field], weights)
            found = fuse_scores(candidates[i][~lost[i]], [scores[i][~lost[i]] for scores in by_field], weights)
            return found.followed_by(candidates[i][lost[i]], rankings[i].scores[: len(lost[i])][lost[i]])

        fused = self._timed(f"> {reranker}", fused_of)
        if self._keep:
            self.trace.append(StageTrace(f"> {reranker}", names, fused))
        return fused

    def _unreadable(self, candidates: list[Int32s], by_field: list[list[Floats]]) -> list[Mask]:
        """Which candidates have no score, since a field could not read them; noted."""
        stacked = (np.stack([scores[i] for scores in by_field]) for i in range(len(candidates)))
        lost = [np.asarray(np.isnan(scores).any(axis=0), np.bool_) for scores in stacked]
        if any(each.any() for each in lost):
            self.unreadable = self.unreadable or [set() for _ in candidates]
            for numbers, doc_nums, each in zip(self.unreadable, candidates, lost, strict=True):
                numbers.update(doc_nums[each].tolist())
        return lost

    def _scores(self, name: str, candidates: list[Int32s], early: EarlyReads | None) -> list[Floats]:
        """Score candidates with a field, of which some reads may have begun."""
        start = time.perf_counter()
        begun = {} if early is None else {"early": early}
        scores = self._searchers[name].score(
            self._queries[name], candidates, options=self._options.get(name), n_threads=self._n_threads, **begun
        )
        self._count(f"> {name}", start, scores.reads if isinstance(scores, Scores) else None)
        return scores

    def _timed(self, stage: str, work: Callable[[int], FusedRanking]) -> list[FusedRanking]:
        start = time.perf_counter()
        rankings = [work(i) for i in range(self._n_queries)]
        self._count(stage, start)
        return rankings

    def _count(self, stage: str, start: float, reads: ReadCounts | None = None) -> None:
        self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + (time.perf_counter() - start) * 1000
        if reads is not None and (reads.n_reads or reads.n_unreadable):
            self.reads.setdefault(stage, ReadCounts()).add(reads)


def _guess(early: EarlyReads, depth: int | None, number: int, doc_nums: Int32s) -> None:
    early.guess(number, doc_nums[:depth])
