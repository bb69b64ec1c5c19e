"""Late-interaction search: candidates by centroids, MaxSim over residual codes, the best again over exact tokens.

The stages of PLAID (arXiv 2205.09707) and WARP (2501.17788) on the codec of `index.multivector.residual`:

1. integer dot products of the query's tokens with all centroids;
2. each query token probes its nearest centroids, and documents gather what their lists give (`kernels.centroids`);
3. the best candidates are scored by MaxSim over their codes (`kernels.maxsim`);
4. the best of those are scored again over the tokens at 8 bits, where the field keeps them.

Documents without tokens are no answers, and queries without tokens have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ...index.arrays import Floats, Int32s, Mask
from ...index.errors import RepresentationError
from ...index.kernels.dot_products import LANES
from ...index.multivector.field import TokenField
from ...index.multivector.reads import RecordReads
from ...index.multivector.residual import Codec
from ...index.representations.multivectors import MultiVectors
from ...index.sparse.inverted import WINDOW
from ..hits import NO_HITS, NO_SCORE, Hits, ReadCounts, Scores, best
from ..kernels.centroids import best_touched, gather, probe, score_codes
from ..kernels.maxsim import score_documents
from ..workers import Workers
from .allowed import Allowed, CountedMasks
from .calibration_record import calibrated_options
from .common import Scratch, check_k, checked_doc_nums, checked_field, in_order, parts
from .early_reads import EarlyReads
from .lanes import Lanes, lanes_of
from .stored_tokens import StoreScorer

MAX_STAMP = (1 << 31) - 1
GROWING_DOCS = 100_000
"""Documents up to which depths stay as they are: the more there are, the more come between an answer and its place among
centroids. `tests/bench/token_growth.py` measures it."""


@dataclass(frozen=True, kw_only=True)
class CentroidOptions:
    """Options of a search of token vectors.

    Attributes
    ----------
    algorithm : "auto" or "exhaustive"
        "auto": candidates by centroids. "exhaustive": MaxSim with every document, which takes no other option.
    n_probe : int
        Centroids that each query token probes.
    n_gathered, n_candidates, n_exact : int or None
        Documents that are scored over the centroids of their tokens, over their codes, and again over tokens at 8 bits; each
        at least the answers asked for. None: for ``k`` answers 1024 or 20 k, 512 or 10 k, 32 or 2 k; the first two grow with
        the square root of the documents that may be found beyond `GROWING_DOCS`. 0 exact ones: none.
    target_recall : float in (0, 1] or None
        In place of the numbers above: the cheapest settings that reached this recall when the field was calibrated.
    unreadable : "error" or "keep"
        What a reranking does with a candidate whose tokens cannot be read or are damaged: "keep" leaves it its score of the
        stage before, after all others, and says so in the result. A search by the field itself always ends with the error.
    """

    algorithm: str = "auto"
    n_probe: int = 32
    n_gathered: int | None = None
    n_candidates: int | None = None
    n_exact: int | None = None
    target_recall: float | None = None
    unreadable: str = "error"

    def __post_init__(self) -> None:
        if self.unreadable not in ("error", "keep"):
            raise ValueError(f"unreadable must be error or keep, not {self.unreadable!r}")
        if self.algorithm not in ("auto", "exhaustive"):
            raise ValueError(f"algorithm must be auto or exhaustive, not {self.algorithm!r}")
        for name, lowest in (("n_probe", 1), ("n_gathered", 1), ("n_candidates", 1), ("n_exact", 0)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} is {value}: it must be at least {lowest}")
        if self.target_recall is not None and not 0 < self.target_recall <= 1:
            raise ValueError(f"target_recall must be in (0, 1], not {self.target_recall}")
        numbers_given = tuple(self.numbers.values()) != (32, None, None, None)
        if self.target_recall is not None and numbers_given:
            raise ValueError("give target_recall or the numbers of centroids and documents, not both")
        if self.algorithm == "exhaustive" and (numbers_given or self.target_recall is not None or self.unreadable != "error"):
            raise ValueError("an exhaustive search scores every document: leave out the other options")

    @property
    def numbers(self) -> dict[str, int | None]:
        """The numbers of centroids and documents, by option name."""
        return {name: getattr(self, name) for name in ("n_probe", "n_gathered", "n_candidates", "n_exact")}

    def depths(self, k: int, n_docs: int) -> tuple[int, int, int]:
        """Return how many of ``n_docs`` are gathered, scored over codes, and scored again for ``k`` answers."""
        growth = max(1.0, n_docs / GROWING_DOCS) ** 0.5
        n_candidates = max(k, int(growth * max(512, 10 * k)) if self.n_candidates is None else self.n_candidates)
        n_gathered = int(growth * max(1024, 20 * k)) if self.n_gathered is None else self.n_gathered
        n_exact = max(32, 2 * k) if self.n_exact is None else max(k, self.n_exact) if self.n_exact else 0
        return max(n_candidates, n_gathered), n_candidates, n_exact

    def resolved(self, field: TokenField, k: int | None) -> CentroidOptions:
        """Return options with numbers in place of ``target_recall``, for ``k`` answers; see `calibrated_options`."""
        if self.target_recall is None:
            return self
        return CentroidOptions(**calibrated_options(field, self.target_recall, k), unreadable=self.unreadable)


class CentroidSearcher:
    """Top k of a field of token vectors; approximate. Safe to use from many threads.

    Parameters
    ----------
    field : TokenField
    options : CentroidOptions
        Of searches that bring none.

    Raises
    ------
    RepresentationError
        The field holds no token vectors.
    """

    def __init__(self, field: TokenField, options: CentroidOptions = CentroidOptions()) -> None:
        self.field = checked_field(field, TokenField, "token vectors")
        self.options = options
        self._masks = CountedMasks()
        self._filled = [np.diff(segment.part.offsets) > 0 for segment in field.segments]
        self._scratch, self._workers = Scratch(), Workers()

    def search(
        self, queries: MultiVectors, k: int, allowed: Sequence[Mask | None] | None = None,
        options: CentroidOptions | None = None, n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Answer a batch of queries.

        Parameters
        ----------
        queries : MultiVectors
        k : int
            Answers per query; fewer only when fewer documents have tokens.
        allowed : list of masks, one per segment, or None
            As `Snapshot.masks` gives them; None: all live documents.
        options : CentroidOptions or None
            None: the searcher's own. ``algorithm`` is not looked at: "exhaustive" is `MaxSimSearcher`.
        n_threads : int
            Queries answered in parallel.

        Raises
        ------
        ValueError
            k < 1, or a ``target_recall`` that was not measured.
        RepresentationError
            The queries have another dim than the field.
        """
        check_k(k)
        check_dim(self.field, queries)
        masks = self.field.masks() if allowed is None else allowed
        chosen = (options or self.options).resolved(self.field, k)

        reads = [ReadCounts() for _ in range(len(queries))]

        def answer(number: int) -> tuple[Int32s, Floats]:
            return self._one(queries.row(number), k, masks, chosen, reads[number])

        hits = Hits.of(self._workers.map(answer, len(queries), n_threads))
        return replace(hits, reads=ReadCounts.total(reads))

    def score(
        self, queries: MultiVectors, doc_nums: Sequence[Int32s], options: CentroidOptions | None = None, n_threads: int = 1,
        early: EarlyReads | None = None,
    ) -> Scores:  # fmt: skip
        """MaxSim of given documents: for any candidates, exactly the scores of `search` with the same options.

        Parameters
        ----------
        queries : MultiVectors
        doc_nums : sequence of (n,) int32, one per query
            In any order; deleted documents are scored too.
        options : CentroidOptions or None
            None: the searcher's own. Documents are scored over tokens at 8 bits where the field keeps them, unless
            ``n_exact`` is 0; the other options make no difference.
        n_threads : int
            Queries scored in parallel; where records are read from disk, those of each thread's next query are read meanwhile.
        early : EarlyReads or None
            Reads that have begun, as `early` returns them; closed at the end.

        Returns
        -------
        list of (n,) float32
            `NO_SCORE` where the query or the document has no tokens; `UNREADABLE`, see `CentroidOptions`. What was read from
            disk is in its ``reads``.

        Raises
        ------
        ValueError
            Not one array per query, or a doc_num that the field does not have.
        RepresentationError
            The queries have another dim than the field.
        """
        wanted = checked_doc_nums(self.field, queries, doc_nums)
        check_dim(self.field, queries)
        chosen = (options or self.options).resolved(self.field, None)
        keep, exact = chosen.unreadable == "keep", chosen.n_exact != 0
        counts = [ReadCounts() for _ in range(len(queries))]

        def score(number: int, reads: RecordReads | None) -> Floats:
            with ExitStack() as stack:
                if reads is not None:
                    stack.callback(reads.close)
                tokens, codec = queries.row(number), self.field.codec
                if codec is None or not len(tokens) or not len(wanted[number]):
                    return np.full(len(wanted[number]), NO_SCORE, np.float32)
                scorer = StoreScorer(partial(lanes_of, tokens, codec), codec, counts[number], keep_unreadable=keep)
                return in_order(wanted[number], lambda ascending: self._score(scorer, ascending, reads, exact=exact))

        early = early or EarlyReads(self.field, len(queries))
        with closing(early):
            return Scores(early.map(score, wanted, self._workers, n_threads), ReadCounts.total(counts))

    def early(self, n_queries: int) -> EarlyReads | None:
        """Reads for a batch of queries that can begin before `score` is called; None where nothing is read from disk."""
        from_disk = any(segment.part.store.reader is not None for segment in self.field.segments)
        return EarlyReads(self.field, n_queries) if from_disk else None

    def warm(self) -> None:
        """Load or compile every kernel that a query can need."""
        codec = self.field.codec
        if codec is None or not self.field.n_total:
            return
        token = np.zeros((1, codec.dim), np.float32)
        token[0, 0] = 1
        self.search(MultiVectors.of([token], codec.dim), 1, options=CentroidOptions(n_gathered=1, n_candidates=1))
        first, lanes = np.zeros(1, np.int32), lanes_of(token, codec)
        self._score_centroids(lanes, first, codec)
        scorer = StoreScorer(lambda: lanes, codec, ReadCounts())
        self._score(scorer, first, None, exact=False)
        self._score(scorer, first, None, exact=True)

    def _one(
        self, tokens: Floats, k: int, masks: Sequence[Mask | None], options: CentroidOptions, reads: ReadCounts
    ) -> tuple[Int32s, Floats]:  # fmt: skip
        codec = self.field.codec
        if codec is None or not len(tokens):
            return NO_HITS
        lanes = lanes_of(tokens, codec)
        counted = self._masks.of(masks, [WINDOW] * len(self.field.segments))
        n_docs = sum(each.n_of(segment.n_docs) for segment, each in zip(self.field.segments, counted, strict=True))
        n_gathered, n_candidates, n_exact = options.depths(k, n_docs)
        if n_docs > n_gathered:
            candidates = self._candidates(lanes, codec, n_gathered, k, counted, options.n_probe)
        else:
            candidates = self._all(counted)
        if len(candidates) > n_candidates:
            candidates = np.sort(best(candidates, self._score_centroids(lanes, candidates, codec), n_candidates)[0])
        scorer = StoreScorer(lambda: lanes, codec, reads)
        scores = self._score(scorer, candidates, None, exact=False)
        if n_exact and any(segment.part.small is not None for segment in self.field.segments):
            candidates = np.sort(best(candidates, scores, n_exact)[0])
            scores = self._score(scorer, candidates, None, exact=True)
        return best(candidates, scores, k)

    def _candidates(
        self, lanes: Sequence[Lanes], codec: Codec, n: int, k: int, counted: Sequence[Allowed], n_probe: int
    ) -> Int32s:  # fmt: skip
        """Return about ``n`` doc_nums, ascending, that centroids lead to; probing is widened while fewer than ``k`` are met."""
        stamps, totals, touched = (
            self._scratch.take(name, self.field.n_total, np.int32) for name in ("stamps", "totals", "touched")
        )
        while True:
            n_probe = min(n_probe, codec.n_centroids)
            n_touched = 0
            round_ = _next_round(self._scratch, stamps, LANES * len(lanes))
            for i, lane in enumerate(lanes):
                nearest, values = np.empty((LANES, n_probe), np.int32), np.empty((LANES, n_probe), np.int32)
                probe(lane.dots, n_probe, nearest, values)
                scales = (lane.weights * np.float32(codec.centroid_scale)).astype(np.float32)
                mark = round_ + 1 + LANES * i
                for segment, each in zip(self.field.segments, counted, strict=True):
                    part = segment.part
                    n_touched = gather(
                        nearest, values, scales, part.list_starts, part.list_documents, segment.base,
                        each.mask, round_, mark, stamps, totals, touched, n_touched,
                    )  # fmt: skip
            if n_touched >= k:
                return best_touched(touched, n_touched, totals, n)
            if n_probe == codec.n_centroids:  # there are no other documents with tokens
                return self._all(counted)
            n_probe *= 4

    def _all(self, counted: Sequence[Allowed]) -> Int32s:
        """Return the doc_nums, ascending, of all allowed documents with tokens."""
        found = [
            (segment.base + each.among(filled)).astype(np.int32)
            for segment, filled, each in zip(self.field.segments, self._filled, counted, strict=True)
        ]
        return np.concatenate([np.empty(0, np.int32), *found])

    def _score_centroids(self, lanes: Sequence[Lanes], doc_nums: Int32s, codec: Codec) -> Floats:
        scores = np.zeros(len(doc_nums), np.float32)
        for segment, positions, span in parts(self.field.segments, doc_nums):
            for lane in lanes:
                scales = lane.weights * np.float32(codec.centroid_scale)
                score_codes(positions, segment.part.offsets, segment.part.codes, lane.dots, scales, lane.mean, scores[span])
        return scores

    def _score(self, scorer: StoreScorer, doc_nums: Int32s, reads: RecordReads | None, *, exact: bool) -> Floats:
        """MaxSim of ascending doc_nums over residuals to search by, or over the token store; `NO_SCORE` without tokens."""
        if exact or all(segment.part.small is None for segment in self.field.segments):
            if np.all(doc_nums[1:] > doc_nums[:-1]):
                return scorer.score(self.field, doc_nums, reads)
            distinct, inverse = np.unique(doc_nums, return_inverse=True)
            return scorer.score(self.field, distinct, reads)[inverse]
        scores = np.zeros(len(doc_nums), np.float32)
        for segment, positions, span in parts(self.field.segments, doc_nums):
            part, small = segment.part, segment.part.small
            if small is None:
                raise RepresentationError(f"{self.field.path}, field {self.field.name}: a part without residuals to search by")
            for lane in scorer.lanes:
                score_documents(
                    small.file.checked, positions, part.offsets, part.nbits, small.levels, part.codes, small.scalars,
                    lane.dots, lane.packed, lane.constants(scorer.codec, part.nbits), lane.weights, scores[span],
                )  # fmt: skip
            small.file.raise_damage()
            scores[span][part.offsets[positions] == part.offsets[positions + 1]] = NO_SCORE
        return scores


def check_dim(field: TokenField, queries: MultiVectors) -> None:
    """Raise RepresentationError when the queries have another dim than the field."""
    if field.codec is not None and queries.dim != field.codec.dim:
        raise RepresentationError(
            f"{field.path}, field {field.name}: queries of dim {queries.dim} for a field of dim {field.codec.dim}"
        )


def _next_round(scratch: Scratch, stamps: Int32s, n_stamps: int) -> int:
    """Return a number not below any stamp in use, and reserve the ``n_stamps`` after it."""
    last = scratch.take("last_stamp", 1, np.int64)
    if last[0] > MAX_STAMP - n_stamps:
        stamps[:] = 0
        last[0] = 0
    first = int(last[0])
    last[0] += n_stamps
    return first
