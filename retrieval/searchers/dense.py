"""Dense fields: vectors, search, score, explanation and warm-up of one field of dense vectors.

A search scans vectors, lists of them or their codes, or walks along a graph; the best that it meets are scored again from the
kept vectors by one function, so that search, scoring and explanation give the same numbers. Where all vectors are scanned the
answer is exact, whatever the rounding: the scan keeps more documents until those that it left out cannot reach the k-th score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...index.arrays import Floats, Int32s, Mask
from ...index.dense.field import DenseField
from ...index.errors import RepresentationError
from ...index.kernels import read_only
from ...index.kernels.dense import products
from ...index.query_bank import read_bank
from ...index.representations.dense import DenseVectors
from ..hits import Hits, best
from ..kernels.dense import inner_products
from ..workers import Workers
from .common import Scratch, check_k, checked_doc_nums, checked_field, in_order, parts
from .dense_scan import Pair, Scan, allowed_of, n_allowed
from .explanation import FieldExplanation, sentence_matches
from .query_bank import BankNormaliser

if TYPE_CHECKING:
    from ..encoders.base import DenseVectorEncoder

MARGIN = 16
"""Candidates that are asked for beyond k."""
FEW_DOCS = 2048
"""So few allowed documents of a segment are all scored: to step over the others costs more."""
BANK_CANDIDATES = 100
"""Best documents that a query bank orders again, or k if that is more."""
MAX_BETA = 1e4
STRUCTURES = {"n_probe": ("auto", "ivf"), "ef_search": ("hnsw",)}
"""Option -> structures of fields that it steers."""


@dataclass(frozen=True, kw_only=True)
class DenseOptions:
    """How a dense field is searched.

    Attributes
    ----------
    algorithm : {"auto", "exhaustive"}
        "auto": as the field's structure has it; ``info`` tells whether that is exact. "exhaustive": the oracle, which scores
        every document and takes no other option.
    n_probe : int or None
        Lists that are scanned. None: four times the square root of their number.
    ef_search : int or None
        Best documents that a walk along a graph keeps. None: 128, or 2 k.
    n_candidates : int or None
        Documents that are scored again from the kept vectors. None: for k answers k + 16, of a scan of codes or of the first
        dimensions 100 or 10 k. 0: none; the order is that of codes, and kept vectors are not read, for a first stage whose
        documents are reranked: scores are then estimates, and not those of scoring and explanation.
    bank_beta : float or None
        Normalise the scores of the best documents by the field's query bank, with this inverse temperature; see `query_bank`.
        The paper's is 20. None: scores stay.
    bank_k : int or None
        Best documents of each query of the bank that make the activation set. None: 1.
    """

    algorithm: str = "auto"
    n_probe: int | None = None
    ef_search: int | None = None
    n_candidates: int | None = None
    bank_beta: float | None = None
    bank_k: int | None = None

    def __post_init__(self) -> None:
        if self.algorithm not in ("auto", "exhaustive"):
            raise ValueError(f"algorithm is {self.algorithm!r}: it must be 'auto' or 'exhaustive'")
        numbers = {name: getattr(self, name) for name in ("n_probe", "ef_search", "n_candidates")}
        given = {name: value for name, value in numbers.items() if value is not None}
        for name, value in given.items():
            if value < (name != "n_candidates"):
                raise ValueError(f"{name} is {value}: it must be at least {int(name != 'n_candidates')}")
        if self.algorithm == "exhaustive" and given:
            raise ValueError(f"an exhaustive search scores every document: leave out {', '.join(given)}")
        if self.bank_beta is not None and not 0 < self.bank_beta <= MAX_BETA:
            raise ValueError(f"bank_beta is {self.bank_beta}: it must be above 0, up to {MAX_BETA}")
        if self.bank_beta is not None and self.n_candidates == 0:
            raise ValueError(
                "a query bank normalises scores of kept vectors, which n_candidates=0 leaves out: give one of both"
            )
        if self.bank_k is not None and (self.bank_k < 1 or self.bank_beta is None):
            raise ValueError("bank_k must be at least 1, and goes with bank_beta")

    def check(self, field: DenseField) -> None:
        """Raise ValueError for an option that the field's structure does not have."""
        where = f"{field.path}, field {field.name}"
        if self.bank_beta is not None and field.record.state.get("bank") is None:
            raise ValueError(
                f"{where}: there is no query bank: `lexmax field bank {field.path} {field.name} --queries FILE` makes one"
            )
        if self.n_candidates == 0 and field.config.quantise == "none":
            raise ValueError(f"{where}: n_candidates=0 leaves the order to codes: it is for quantise=int8, pq or opq")
        for name, structures in STRUCTURES.items():
            if getattr(self, name) is not None and field.config.structure not in structures:
                raise ValueError(f"{where}: {name} is for structure={' or '.join(structures)}, not {field.config.structure}")

    @property
    def note(self) -> str:
        """What the options make of scores, for explanations."""
        return "" if self.bank_beta is None else f"normalised by the query bank, beta {self.bank_beta:g}, where that is active"

    def depth(self, field: DenseField, k: int) -> int:
        """Return how many documents are scored again for k answers."""
        if self.n_candidates == 0:
            return k
        approximate = field.config.quantise != "none" or field.config.scan_dim < field.config.dim
        return max(k, self.n_candidates or (max(100, 10 * k) if approximate else k + MARGIN))

    def normalised(self, k: int) -> int:
        """Return how many documents a query bank orders for k answers; without one it is k."""
        return k if self.bank_beta is None else max(k, self.n_candidates or BANK_CANDIDATES)

    def probes(self, n_lists: int) -> int:
        """Return how many of so many lists are scanned."""
        return self.n_probe or round(4 * n_lists**0.5)

    def ef(self, k: int) -> int:
        """Return how many documents a walk along a graph keeps for k answers."""
        return self.ef_search or max(128, 2 * k)


DEFAULTS = DenseOptions()


class DenseSearcher:
    """The `FieldSearcher` of dense vectors."""

    options_type = DenseOptions

    def __init__(
        self, field: DenseField, encoder: DenseVectorEncoder | None = None, *, bank: Callable[[], DenseVectors] | None = None
    ) -> None:
        self.field, self.encoder = checked_field(field, DenseField, "dense vectors"), encoder
        self._workers, self._scratch = Workers(), Scratch()
        self._normaliser = BankNormaliser(field, bank or self._bank, lambda queries, k: self.search(queries, k).doc_nums)

    def check(self, options: DenseOptions) -> None:
        """Raise ValueError for options that the field does not have."""
        options.check(self.field)

    def vectors(self, queries: object) -> DenseVectors:
        """Bring query vectors of any accepted kind into one batch.

        Parameters
        ----------
        queries : DenseVectors, a matrix (n, dim), or a vector (dim,)

        Raises
        ------
        TypeError
            Anything else, or vectors of another dim.
        RepresentationError
            A number that is not finite.
        """
        matrix = queries.vectors if isinstance(queries, DenseVectors) else queries
        if isinstance(matrix, np.ndarray) and matrix.ndim in (1, 2) and matrix.shape[-1] == self.field.config.dim:
            return queries if isinstance(queries, DenseVectors) else DenseVectors(np.atleast_2d(matrix).astype(np.float32))
        found = f"shape {matrix.shape}" if isinstance(matrix, np.ndarray) else type(queries).__name__
        where = f"{self.field.path}, field {self.field.name}"
        raise TypeError(f"{where}: queries are a matrix (n, {self.field.config.dim}) or DenseVectors, not {found}")

    def search(
        self, queries: DenseVectors, k: int, *, allowed: Sequence[Mask | None] | None = None,
        options: DenseOptions | None = None, n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Return the k documents of largest inner product with each query; `registry.FieldSearcher.search`."""
        check_k(k)
        chosen = options or DEFAULTS
        chosen.check(self.field)
        masks = self.field.masks() if allowed is None else allowed

        def answer(number: int) -> tuple[Int32s, Floats]:
            query, depth = read_only(queries.row(number)), chosen.normalised(k)
            if chosen.algorithm == "exhaustive":
                every = [allowed_of(*pair) for pair in zip(self.field.segments, masks, strict=True)]
                doc_nums = np.concatenate([np.empty(0, np.int32), *every])
                doc_nums, scores = best(doc_nums, self._products(doc_nums, query), max(k, len(doc_nums)))
            else:
                doc_nums, scores = best(*self._candidates(query, masks, depth, chosen), depth)
            known = int(doc_nums[0]) if allowed is None and len(doc_nums) and self.field.is_exact else None
            return best(doc_nums, self._normalised(query, doc_nums, scores, chosen, known), k)

        return Hits.of(self._workers.map(answer, len(queries), n_threads))

    def score(
        self, queries: DenseVectors, doc_nums: Sequence[Int32s], *, options: DenseOptions | None = None, n_threads: int = 1
    ) -> list[Floats]:
        """Inner products of given documents with the queries: the numbers that `search` gives."""
        wanted, chosen = checked_doc_nums(self.field, queries, doc_nums), options or DEFAULTS
        chosen.check(self.field)

        def score(number: int) -> Floats:
            query = read_only(queries.row(number))
            return self._normalised(query, wanted[number], self._products(wanted[number], query), chosen)

        return self._workers.map(score, len(queries), n_threads)

    def explain(
        self, queries: DenseVectors, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:
        """Explain the score of one document: the similarity of its sentences, each encoded alone, to the query."""
        score = float(self.score(queries.select(np.array([number])), [np.array([doc_num], np.int32)])[0][0])

        def scores_of(encoded: DenseVectors) -> Floats:
            scores = np.empty(len(encoded), np.float32)
            inner_products(encoded.vectors, np.ascontiguousarray(queries.row(number)), scores)
            return scores

        sentences = sentence_matches(self.encoder, document_text, scores_of)
        return FieldExplanation(field=self.field.name, score=score, contribution=score, sentences=sentences)

    def warm(self) -> None:
        """Compile the kernels that the field's structure needs, and read the graphs."""
        scan = Scan(self.field, read_only(np.zeros(self.field.config.dim, np.float32)), self._scratch)
        for segment in self.field.segments:
            scan.best([(segment, segment.live)], 1, n_probe=1, ef_search=1)
        if self.field.n_docs:
            self.search(DenseVectors(np.zeros((1, self.field.config.dim), np.float32)), 1)
        inner_products(np.zeros((1, 1), np.float32), np.zeros(1, np.float32), np.empty(1, np.float32))

    def _normalised(
        self, query: Floats, doc_nums: Int32s, scores: Floats, options: DenseOptions, best_doc: int | None = None
    ) -> Floats:
        """Scores after the query bank, where the options ask for it and it is active."""
        if options.bank_beta is None or not self._normaliser.is_active(query, options.bank_k or 1, best_doc):
            return scores
        return self._normaliser.normalised(query, doc_nums, scores, options.bank_beta)

    def _bank(self) -> DenseVectors:
        bank = read_bank(self.field.path, self.field.record)
        if not isinstance(bank, DenseVectors):
            raise RepresentationError(f"{self.field.path}, field {self.field.name}: no query bank of dense vectors")
        return bank

    def _candidates(self, query: Floats, masks: Sequence[Mask | None], k: int, options: DenseOptions) -> tuple[Int32s, Floats]:
        """Documents that the k best are among, exactly where all vectors are scanned, and their scores."""
        scan, config = Scan(self.field, query, self._scratch), self.field.config
        pairs = list(zip(self.field.segments, masks, strict=True))
        small = [n_allowed(*pair) <= FEW_DOCS for pair in pairs]
        few = [pair for pair, is_small in zip(pairs, small, strict=True) if is_small]
        large = [pair for pair, is_small in zip(pairs, small, strict=True) if not is_small]
        near = [pair for pair in large if pair[0].part.structure != "flat"]
        flat = [pair for pair in large if pair[0].part.structure == "flat"]
        doc_nums = np.concatenate([np.empty(0, np.int32), *(allowed_of(*pair) for pair in few)])
        scores = self._products(doc_nums, query)
        if near:
            found, estimates = self._near(scan, near, k, options)
            doc_nums = np.concatenate([doc_nums, found])
            scores = np.concatenate([scores, estimates if options.n_candidates == 0 else self._products(found, query)])
        if not flat:
            return doc_nums, scores
        longest = max(segment.part.longest for segment, _ in flat)
        rounding = 2 * config.dim * float(np.finfo(np.float32).eps) * float(np.linalg.norm(query)) * longest
        n, n_flat = max(k, options.n_candidates or 0) + MARGIN, sum(n_allowed(*pair) for pair in flat)
        while True:
            found, lowest = scan.best(flat, min(n, n_flat))
            every = np.concatenate([doc_nums, found]), np.concatenate([scores, self._products(found, query)])
            if n >= n_flat or np.partition(every[1], len(every[1]) - k)[len(every[1]) - k] > lowest + rounding:
                return every
            n *= 4  # many documents score alike

    def _near(self, scan: Scan, near: Sequence[Pair], k: int, options: DenseOptions) -> tuple[Int32s, Floats]:
        """The likeliest documents of parts that are not scanned whole, k or all allowed ones, and estimates of their scores."""
        depth, n_lists = options.depth(self.field, k), 1 if self.field.quantiser is None else self.field.quantiser.n_lists
        wanted = min(k, sum(n_allowed(*pair) for pair in near))
        n_probe = options.probes(n_lists)
        while True:
            found, estimates = scan.ranked(near, depth, n_probe=min(n_probe, n_lists), ef_search=options.ef(k))
            if len(found) >= wanted or n_probe >= n_lists:
                return found, estimates
            n_probe *= 4  # a filter leaves few documents of the nearest lists

    def _products(self, doc_nums: Int32s, query: Floats) -> Floats:
        def ascending(numbers: Int32s) -> Floats:
            scores = np.empty(len(numbers), np.float32)
            for segment, positions, span in parts(self.field.segments, numbers):
                part = segment.part
                products(part.file.checked, part.rows, read_only(part.row_numbers(positions)), query, scores[span])
                part.file.raise_damage()
            return scores

        return in_order(doc_nums, ascending)
