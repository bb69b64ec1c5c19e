"""Dense fields: vectors, search, score, explanation and warm-up of one field of dense vectors.

A search scans vectors, lists of them or their codes, or walks along a graph; the best that it meets are scored again from the
kept vectors by one function, so that search, scoring and explanation give the same numbers. Where all vectors are scanned the
answer is exact, whatever the rounding: the scan keeps more documents until those that it left out cannot reach the k-th score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...index.arrays import Floats, Int32s, Mask
from ...index.dense.config import MAX_LENGTH
from ...index.dense.field import DenseField
from ...index.errors import RepresentationError
from ...index.kernels import read_only
from ...index.kernels.dense import products
from ...index.query_bank import read_bank
from ...index.representations.dense import DenseVectors
from ...index.sparse.inverted import WINDOW
from ..hits import NO_HITS, Hits, best
from ..kernels.dense import inner_products, rank
from ..workers import Workers
from .allowed import Allowed, CountedMasks
from .common import Scratch, check_k, checked_doc_nums, checked_field, in_order
from .dense_scan import Query, Target, Told
from .explanation import FieldExplanation, sentence_matches
from .query_bank import BankNormaliser
from .registry import Announce

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


NO_DOCS = read_only(np.empty(0, np.int32))


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
        if self.bank_beta is not None and field.config.vectors_per_doc > 1:
            raise ValueError(f"{where}: a query bank is for documents of one vector, not {field.config.vectors_per_doc}")
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
    announces = True

    def __init__(
        self, field: DenseField, encoder: DenseVectorEncoder | None = None, *, bank: Callable[[], DenseVectors] | None = None
    ) -> None:
        self.field, self.encoder = checked_field(field, DenseField, "dense vectors"), encoder
        self._workers, self._scratch, self._masks = Workers(), Scratch(), CountedMasks()
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
            A number that is not finite, or too large.
        """
        where, dim = f"{self.field.path}, field {self.field.name}", self.field.config.dim
        matrix = queries.vectors if isinstance(queries, DenseVectors) else queries
        if not (isinstance(matrix, np.ndarray) and matrix.ndim in (1, 2) and matrix.shape[-1] == dim):
            found = f"shape {matrix.shape}" if isinstance(matrix, np.ndarray) else type(queries).__name__
            raise TypeError(f"{where}: queries are a matrix (n, {dim}) or DenseVectors, not {found}")
        vectors = queries if isinstance(queries, DenseVectors) else DenseVectors(np.atleast_2d(matrix).astype(np.float32))
        largest = np.abs(vectors.vectors).max(initial=0)
        if largest * dim**0.5 > MAX_LENGTH:
            raise RepresentationError(f"{where}: a query's number is {largest:.4g}: queries may be {MAX_LENGTH:.0e} long")
        return vectors

    def search(
        self, queries: DenseVectors, k: int, *, allowed: Sequence[Mask | None] | None = None,
        options: DenseOptions | None = None, n_threads: int = 1, announce: Announce | None = None,
    ) -> Hits:  # fmt: skip
        """Return the k documents of largest inner product with each query; `registry.FieldSearcher.search`.

        Where lists are scanned and their codes decide (``n_candidates=0``), ``announce`` is told the best of the first ones.
        """
        check_k(k)
        chosen = options or DEFAULTS
        chosen.check(self.field)
        targets = Targets.of(self.field, self._counted(self.field.masks() if allowed is None else allowed), chosen)
        vectors = read_only(queries.vectors)

        def answer(number: int) -> tuple[Int32s, Floats]:
            if chosen.bank_beta is None:
                told = None if announce is None else partial(announce, number)
                return ranked(*self._candidates(vectors[number], targets, k, chosen, told), k)
            return self._normalised_best(vectors[number], targets, k, chosen, everywhere=allowed is None)

        return Hits.of(self._workers.map(answer, len(queries), n_threads))

    def score(
        self, queries: DenseVectors, doc_nums: Sequence[Int32s], *, options: DenseOptions | None = None, n_threads: int = 1
    ) -> list[Floats]:
        """Inner products of given documents with the queries: the numbers that `search` gives."""
        wanted, chosen = checked_doc_nums(self.field, queries, doc_nums), options or DEFAULTS
        chosen.check(self.field)

        def score(number: int) -> Floats:
            query = read_only(queries.row(number))
            scores = in_order(wanted[number], lambda doc_nums: self._products(read_only(doc_nums), query))
            return self._normalised(query, wanted[number], scores, chosen)

        return self._workers.map(score, len(queries), n_threads)

    def explain(
        self, queries: DenseVectors, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:
        """Explain the score of one document: the similarity of its sentences, each encoded alone, to the query.

        Where documents have several vectors, ``vector`` is the number of the one that decided.
        """
        numbers, query = np.array([doc_num], np.int32), queries.select(np.array([number]))
        score, m = float(self.score(query, [numbers])[0][0]), self.field.config.vectors_per_doc

        def scores_of(encoded: DenseVectors) -> Floats:
            scores = np.empty(len(encoded) * m, np.float32)
            inner_products(encoded.vectors.reshape(len(encoded) * m, -1), np.ascontiguousarray(queries.row(number)), scores)
            best: Floats = scores.reshape(-1, m).max(axis=1)
            return best

        sentences = sentence_matches(self.encoder, document_text, scores_of)
        vector = None if m == 1 else self._best_vector(read_only(queries.row(number)), doc_num)
        return FieldExplanation(field=self.field.name, score=score, contribution=score, sentences=sentences, vector=vector)

    def warm(self) -> None:
        """Compile the kernels that the field's structure needs, and read the graphs."""
        zeros, m = read_only(np.zeros(self.field.config.dim, np.float32)), self.field.config.vectors_per_doc
        for segment, documents in zip(self.field.segments, self._counted(self.field.masks()), strict=True):
            Query(self.field, zeros, self._scratch).best([Target.of(segment, documents, m)], 1)
        if self.field.n_docs:
            self.search(DenseVectors(zeros[None]), 1)
        inner_products(np.zeros((1, 1), np.float32), np.zeros(1, np.float32), np.empty(1, np.float32))

    def _counted(self, masks: Sequence[Mask | None]) -> list[Allowed]:
        return self._masks.of(masks, [WINDOW] * len(self.field.segments))

    def _normalised_best(
        self, query: Floats, targets: Targets, k: int, options: DenseOptions, *, everywhere: bool
    ) -> tuple[Int32s, Floats]:
        """The k best documents after the query bank; ``everywhere``: of all that are live."""
        depth = options.normalised(k)
        found = self._candidates(query, targets, depth, options)
        doc_nums, scores = ranked(*found, max(k, len(found[0])) if options.algorithm == "exhaustive" else depth)
        known = int(doc_nums[0]) if everywhere and len(doc_nums) and self.field.is_exact else None
        return best(doc_nums, self._normalised(query, doc_nums, scores, options, known), k)

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

    def _candidates(
        self, vector: Floats, targets: Targets, k: int, options: DenseOptions, announce: Told | None = None
    ) -> tuple[Int32s, Floats]:  # fmt: skip
        """Documents that the k best are among, exactly where all vectors are scanned, and their scores."""
        told = announce if options.n_candidates == 0 else None  # kept vectors order anew: too many guesses would be wrong
        query, found = Query(self.field, vector, self._scratch, told), []
        if len(targets.few):
            found.append((targets.few, self._products(targets.few, vector)))
        if targets.near:
            found.append(self._near(query, targets.near, k, options))
        if targets.flat:
            found.append(self._flat(query, targets.flat, k, options))
        if len(found) == 1:
            return found[0]
        doc_nums, scores = (np.concatenate(arrays) for arrays in zip(NO_HITS, *found, strict=True))
        return read_only(doc_nums), scores

    def _near(self, query: Query, near: Sequence[Target], k: int, options: DenseOptions) -> tuple[Int32s, Floats]:
        """The likeliest documents of parts that are not scanned whole, k or all allowed ones, and scores or estimates."""
        depth, n_lists = options.depth(self.field, k), 1 if self.field.quantiser is None else self.field.quantiser.n_lists
        wanted = min(k, sum(target.n_allowed for target in near))
        n_probe = options.probes(n_lists)
        while True:
            if options.n_candidates == 0:
                found, scores = query.ranked(near, depth, n_probe=n_probe)
            else:
                found, _ = query.best(near, depth, n_probe=n_probe, ef_search=options.ef(k))
                scores = np.empty(0, np.float32)
            if len(found) >= wanted or n_probe >= n_lists:
                return found, scores if options.n_candidates == 0 else self._products(found, query.vector)
            n_probe *= 4  # a filter leaves few documents of the nearest lists

    def _flat(self, query: Query, flat: Sequence[Target], k: int, options: DenseOptions) -> tuple[Int32s, Floats]:
        """Documents of parts that are scanned whole, the k best for certain among them, and their scores."""
        n, n_flat = max(k, options.n_candidates or 0) + MARGIN, sum(target.n_allowed for target in flat)
        longest = max(target.segment.part.longest for target in flat)
        rounding = 2 * len(query.vector) * float(np.finfo(np.float32).eps) * float(np.linalg.norm(query.vector)) * longest
        while True:
            found, lowest = query.best(flat, min(n, n_flat))
            scores = self._products(found, query.vector)
            if n >= n_flat or np.partition(scores, len(scores) - k)[len(scores) - k] > lowest + rounding:
                return found, scores
            n *= 4  # many documents score alike

    def _products(self, doc_nums: Int32s, query: Floats) -> Floats:
        """Scores of doc_nums, ascending and read-only; raises IndexFormatError for one that is not finite."""
        scores, m = np.empty(len(doc_nums), np.float32), self.field.config.vectors_per_doc
        for segment in self.field.segments:
            part = segment.part
            n_wrong = products(
                part.file.checked, part.rows, part.row_of, m, doc_nums, segment.base, part.n_docs, query, scores
            )  # fmt: skip
            part.file.raise_damage()
            part.file.require(n_wrong == 0, "finite vectors", "one whose product with the query is not")
        return scores

    def _best_vector(self, query: Floats, doc_num: int) -> int:
        """Number of the vector that gives a document its score, the first of equal ones."""
        segment, position = self.field.locate(doc_num)
        part, m = segment.part, self.field.config.vectors_per_doc
        numbers = read_only((position * m + np.arange(m)).astype(np.int32))
        scores = np.empty(m, np.float32)
        products(part.file.checked, part.rows, part.row_of, 1, numbers, 0, part.n_vectors, query, scores)
        part.file.raise_damage()
        return int(np.argmax(scores))


@dataclass(frozen=True)
class Targets:
    """Segments by how they are searched.

    Attributes
    ----------
    few : (n,) int32
        doc_nums that are all scored.
    near, flat : list of Target
        Segments with lists, codes or a graph, and those that are scanned.
    """

    few: Int32s
    near: list[Target]
    flat: list[Target]

    @classmethod
    def of(cls, field: DenseField, allowed: Sequence[Allowed], options: DenseOptions) -> Targets:
        """Sort a field's segments, with the documents that are allowed of each."""
        m, most = field.config.vectors_per_doc, field.n_total if options.algorithm == "exhaustive" else FEW_DOCS
        few: list[Int32s] = []
        found = cls(NO_DOCS, [], [])
        for segment, documents in zip(field.segments, allowed, strict=True):
            target = Target.of(segment, documents, m)
            if target.n_allowed <= most:
                few.append(target.doc_nums())
            else:
                (found.flat if segment.part.structure == "flat" else found.near).append(target)
        return replace(found, few=read_only(np.concatenate(few))) if few else found


def ranked(doc_nums: Int32s, scores: Floats, k: int) -> tuple[Int32s, Floats]:
    """The k best of some documents: score descending, then doc_num ascending."""
    n = min(k, len(doc_nums))
    best, best_scores = np.empty(n, np.int32), np.empty(n, np.float32)
    rank(doc_nums, scores, np.empty(len(doc_nums), np.int64), best, best_scores)
    return best, best_scores
