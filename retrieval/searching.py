"""One snapshot made searchable: what a retriever does differently for sparse vectors, token vectors and sparse ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..index.errors import RepresentationError
from ..index.representations.multivectors import MultiVectors
from ..index.representations.sparse import SparseVectors
from ..index.representations.sparse_multivectors import SparseMultiVectors
from ..index.segments import Mask
from ..index.snapshot import Snapshot
from .encoders.base import (
    Encoder,
    MultiVectorEncoder,
    SparseEncoder,
    SparseTokenEncoder,
    as_sparse,
    makes_sparse_tokens,
    makes_tokens,
)
from .exchange.vectors import to_sparse_vectors
from .explain import Explanation, explain, explain_sparse_tokens, explain_tokens
from .hits import Hits
from .searchers.blockmax import BlockMaxSearcher, SearchOptions
from .searchers.calibration import options_for
from .searchers.centroid import CentroidOptions, CentroidSearcher
from .searchers.exhaustive import ExhaustiveSearcher
from .searchers.maxsim import MaxSimSearcher
from .searchers.queries import prepare
from .searchers.slim import ExhaustiveSlimSearcher, SlimOptions, SlimSearcher

EXACT = SearchOptions()


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """Which searcher answers, and how hard it tries.

    Attributes
    ----------
    searcher : str
        "auto": the fast one of the index's kind, which is "blockmax", "centroid" or "slim"; "exhaustive": the slow oracle.
    centroid : CentroidOptions or None
        For token vectors; None: the defaults, or what the calibration says for ``target_recall``.
    target_recall : float or None
        For token vectors: the cheapest options that reached this recall@10 in the index's calibration.
    slim : SlimOptions or None
        For sparse token vectors; None: the defaults.
    """

    searcher: str = "auto"
    centroid: CentroidOptions | None = None
    target_recall: float | None = None
    slim: SlimOptions | None = None

    def __post_init__(self) -> None:
        if self.searcher not in ("auto", "blockmax", "centroid", "slim", "exhaustive"):
            raise ValueError(f"searcher must be auto, blockmax, centroid, slim or exhaustive, not {self.searcher!r}")
        if self.centroid is not None and self.target_recall is not None:
            raise ValueError("give options for the centroid searcher, or a target recall, not both")
        if self.searcher == "exhaustive" and not (self.centroid is None and self.target_recall is None and self.slim is None):
            raise ValueError("an exhaustive search scores every document: leave out the effort (probes, depths, recall)")

    def check(self, snapshot: Snapshot, searcher: str, held: str) -> None:
        """Raise RepresentationError when the plan is for another kind of index than that of ``searcher``."""
        wanted = {self.searcher} - {"auto", "exhaustive"}
        if self.centroid is not None or self.target_recall is not None:
            wanted.add("centroid")
        if self.slim is not None:
            wanted.add("slim")
        if wanted - {searcher}:
            others = " and ".join(sorted(wanted - {searcher}))
            raise RepresentationError(
                f"{snapshot.path}: the index holds {held}, which are searched by {searcher}, not {others}"
            )


class SparseSearching:
    """Search and explain with sparse vectors."""

    def __init__(self, snapshot: Snapshot, encoder: SparseEncoder, plan: SearchPlan) -> None:
        plan.check(snapshot, "blockmax", "sparse vectors")
        self.snapshot, self._encoder = snapshot, encoder
        exhaustive = plan.searcher == "exhaustive"
        self._searcher = ExhaustiveSearcher(snapshot) if exhaustive else BlockMaxSearcher(snapshot)

    def vectors(self, queries: object) -> SparseVectors:
        """Bring query vectors of any accepted kind into the snapshot's term numbers."""
        return self.snapshot.query_vectors(to_sparse_vectors(queries))

    def search(
        self,
        queries: SparseVectors,
        k: int,
        allowed: Sequence[Mask | None] | None,
        options: SearchOptions,
        n_threads: int | None,
    ) -> Hits:
        """Return the k best documents of each query."""
        if isinstance(self._searcher, ExhaustiveSearcher):
            return self._searcher.search(queries, k, allowed)
        return self._searcher.search(queries, k, allowed, options, n_threads or os.cpu_count() or 1)

    def explain(
        self, queries: SparseVectors, number: int, query_text: str, doc_num: int, text: str, options: SearchOptions
    ) -> Explanation:  # fmt: skip
        """Explain one document's score for one of the queries."""
        query = prepare(self.snapshot, queries, number, options.beta)
        return explain(self.snapshot, self._encoder, query, query_text, doc_num, text)

    def warm(self) -> None:
        """Load or compile the kernels."""
        if isinstance(self._searcher, BlockMaxSearcher):
            self._searcher.warm()


class TokenSearching:
    """Search and explain with token vectors."""

    def __init__(self, snapshot: Snapshot, encoder: MultiVectorEncoder, plan: SearchPlan) -> None:
        plan.check(snapshot, "centroid", "token vectors")
        self.snapshot, self._encoder = snapshot, encoder
        options = plan.centroid
        if plan.target_recall is not None:
            options = options_for(snapshot, plan.target_recall)
        self.centroid = CentroidSearcher(snapshot, options or CentroidOptions())
        self._exhaustive = MaxSimSearcher(snapshot) if plan.searcher == "exhaustive" else None

    def vectors(self, queries: object) -> MultiVectors:
        """Take queries as they are encoded: `MultiVectors`, or one matrix (n_tokens, dim) or several."""
        if isinstance(queries, MultiVectors):
            return queries
        matrices = [queries] if isinstance(queries, np.ndarray) and queries.ndim == 2 else queries
        if not isinstance(matrices, Sequence) or not all(isinstance(m, np.ndarray) and m.ndim == 2 for m in matrices):
            raise TypeError(f"queries of token vectors are MultiVectors or matrices (n_tokens, dim), not {type(queries)}")
        dim = self.snapshot.codec.dim if self.snapshot.codec else 1
        return MultiVectors.of([np.asarray(matrix, np.float32) for matrix in matrices], dim)

    def search(
        self,
        queries: MultiVectors,
        k: int,
        allowed: Sequence[Mask | None] | None,
        options: SearchOptions,
        n_threads: int | None,
    ) -> Hits:
        """Return the k best documents of each query."""
        if options != EXACT:
            raise RepresentationError(
                f"{self.snapshot.path}: alpha, beta and mu are for sparse vectors; CentroidOptions are for token vectors"
            )
        if self._exhaustive is not None:
            return self._exhaustive.search(queries, k, allowed)
        return self.centroid.search(queries, k, allowed, n_threads=n_threads or os.cpu_count() or 1)

    def explain(
        self, queries: MultiVectors, number: int, query_text: str, doc_num: int, text: str, options: SearchOptions
    ) -> Explanation:  # fmt: skip
        """Explain one document's score for one of the queries."""
        return explain_tokens(self.snapshot, self._encoder, queries.row(number), query_text, doc_num, text)

    def warm(self) -> None:
        """Load or compile the kernels."""
        codec = self.snapshot.codec
        if codec is not None and self.snapshot.n_docs:
            token = np.zeros((1, codec.dim), np.float32)
            token[0, 0] = 1
            self.search(MultiVectors.of([token], codec.dim), 1, None, EXACT, 1)


class SlimSearching:
    """Search and explain with sparse token vectors."""

    def __init__(self, snapshot: Snapshot, encoder: SparseTokenEncoder, plan: SearchPlan) -> None:
        plan.check(snapshot, "slim", "sparse token vectors")
        self.snapshot, self._encoder = snapshot, encoder
        exhaustive = plan.searcher == "exhaustive"
        self._searcher = ExhaustiveSlimSearcher(snapshot) if exhaustive else SlimSearcher(snapshot, plan.slim)

    def vectors(self, queries: object) -> SparseMultiVectors:
        """Take queries as they are encoded."""
        if not isinstance(queries, SparseMultiVectors):
            raise TypeError(f"queries of sparse token vectors are SparseMultiVectors, not {type(queries).__name__}")
        return queries

    def search(
        self,
        queries: SparseMultiVectors,
        k: int,
        allowed: Sequence[Mask | None] | None,
        options: SearchOptions,
        n_threads: int | None,
    ) -> Hits:
        """Return the k best documents of each query; ``options`` are of the first stage."""
        if isinstance(self._searcher, ExhaustiveSlimSearcher):
            return self._searcher.search(queries, k, allowed)
        return self._searcher.search(queries, k, allowed, options, n_threads or os.cpu_count() or 1)

    def explain(
        self, queries: SparseMultiVectors, number: int, query_text: str, doc_num: int, text: str, options: SearchOptions
    ) -> Explanation:  # fmt: skip
        """Explain one document's score for one of the queries."""
        return explain_sparse_tokens(self.snapshot, self._encoder, queries.row(number), query_text, doc_num, text)

    def warm(self) -> None:
        """Load or compile the kernels."""
        if isinstance(self._searcher, SlimSearcher):
            self._searcher.warm()


Searching = SparseSearching | TokenSearching | SlimSearching


def make_searching(snapshot: Snapshot, encoder: Encoder, plan: SearchPlan) -> Searching:
    """Make what answers from a snapshot; the encoder has been checked against it."""
    if snapshot.manifest.sparse_tokens:
        if not makes_sparse_tokens(encoder):
            raise RepresentationError(f"{snapshot.path}: holds sparse token vectors, which {encoder.kind} does not make")
        return SlimSearching(snapshot, encoder, plan)
    if snapshot.manifest.multivector is None:
        return SparseSearching(snapshot, as_sparse(encoder), plan)
    if not makes_tokens(encoder):
        raise RepresentationError(f"{snapshot.path}: holds token vectors, and {encoder.kind} makes sparse ones")
    return TokenSearching(snapshot, encoder, plan)
