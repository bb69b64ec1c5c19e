"""Fields whose queries are networks (arXiv 2502.05364): search, score, explanation and warm-up.

An exhaustive search scores every document, block by block, and keeps the k best; a search along the graph of nearest documents
scores some (`net_graph`). A document's score is the same, to the last bit, however it is come by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s, Int64s, Mask
from ...index.errors import RepresentationError
from ...index.kernels import read_only
from ...index.nets.field import NetField, NetPart, NetSegment
from ...index.representations.nets import QueryNets
from ..hits import NO_HITS, Hits, best
from ..kernels.nets import score_rows
from ..workers import Workers
from .common import check_k, checked_doc_nums, checked_field, in_order, parts
from .explanation import FieldExplanation, sentence_matches
from .net_graph import Effort, Walked, walk

if TYPE_CHECKING:
    from ..encoders.base import NetEncoder

N_CANDIDATES, MAX_ITERATIONS = 256, 16
BLOCK_DOCS = 1024
"""Documents whose vectors are in memory at once, as 32-bit floats, in each thread."""
ALGORITHMS = ("auto", "exhaustive", "graph")
WALKS = ("n_entry", "n_candidates", "max_iterations")
"""Options of `algorithm="graph"`."""


@dataclass(frozen=True, kw_only=True)
class NetOptions:
    """How such a field is searched.

    Attributes
    ----------
    algorithm : {"auto", "exhaustive", "graph"}
        "auto" and "exhaustive" score every document. "graph" walks from document to document and may miss some: for fields that
        keep ``n_neighbours``.
    n_entry : int or None
        Documents that a walk begins with, in each segment. None: four times the square root of its documents.
    n_candidates : int or None
        Documents whose neighbours it scores in a round, or k if that is more. None: 256.
    max_iterations : int or None
        Rounds, at most. None: 16.
    """

    algorithm: str = "auto"
    n_entry: int | None = None
    n_candidates: int | None = None
    max_iterations: int | None = None

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm is {self.algorithm!r}: it must be {' or '.join(map(repr, ALGORITHMS))}")
        given = {name: getattr(self, name) for name in WALKS if getattr(self, name) is not None}
        for name, value in given.items():
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        if given and self.algorithm != "graph":
            raise ValueError(f"{', '.join(given)}: for algorithm=graph alone")

    @property
    def effort(self) -> Effort:
        """How far a walk goes."""
        return Effort(self.n_entry, self.n_candidates or N_CANDIDATES, self.max_iterations or MAX_ITERATIONS)


class Net:
    """One query's network, ready for documents."""

    def __init__(self, field: NetField, queries: QueryNets, number: int) -> None:
        self._field = field
        self._sizes, self._numbers = read_only(np.array(queries.sizes, np.int64)), read_only(queries.row(number))

    def scores(self, rows: Floats) -> Floats:
        """Score documents' vectors (n, dim): (n,) float32.

        Raises
        ------
        RepresentationError
            A score is not finite: numbers of the vectors or of the network are too large for 32-bit floats.
        """
        scores = np.empty(len(rows), np.float32)
        score_rows(self._sizes, self._numbers, read_only(rows), scores)
        if not np.isfinite(scores).all():
            where = f"{self._field.path}, field {self._field.name}"
            raise RepresentationError(f"{where}: a score is not finite: the query's network has numbers that are too large")
        return scores

    def scores_at(self, part: NetPart, positions: npt.NDArray[np.integer]) -> Floats:
        """Score documents of a part."""
        blocks = [positions[i : i + BLOCK_DOCS] for i in range(0, len(positions), BLOCK_DOCS)]
        return np.concatenate([np.empty(0, np.float32), *(self.scores(part.vectors(block)) for block in blocks)])


class NetSearcher:
    """The `FieldSearcher` of fields whose queries are networks."""

    options_type = NetOptions

    def __init__(self, field: NetField, encoder: NetEncoder | None = None) -> None:
        self.field, self.encoder = checked_field(field, NetField, "vectors that networks score"), encoder
        self._workers = Workers()

    def vectors(self, queries: object) -> QueryNets:
        """Return the queries; raises TypeError unless they are `QueryNets` for vectors of the field's dim."""
        if isinstance(queries, QueryNets) and queries.dim == self.field.config.dim:
            return queries
        found = f"of dim {queries.dim}" if isinstance(queries, QueryNets) else type(queries).__name__
        where = f"{self.field.path}, field {self.field.name}"
        raise TypeError(f"{where}: queries are QueryNets of dim {self.field.config.dim}, not {found}")

    def search(
        self, queries: QueryNets, k: int, *, allowed: Sequence[Mask | None] | None = None, options: NetOptions | None = None,
        n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Return the k documents of the highest scores for each query; `registry.FieldSearcher.search`."""
        check_k(k)
        masks = self.field.masks() if allowed is None else allowed
        if options is not None and options.algorithm == "graph":
            return self._walked(queries, k, masks, options.effort, n_threads)
        nets = [Net(self.field, queries, number) for number in range(len(queries))]
        blocks = list(_blocks(self.field.segments, masks))

        def work(numbers: Iterator[int]) -> list[tuple[Int32s, Floats]]:
            found = [NO_HITS] * len(nets)
            for segment, positions in (blocks[number] for number in numbers):
                rows, doc_nums = segment.part.vectors(positions), (positions + segment.base).astype(np.int32)
                found = [_merged([each, (doc_nums, net.scores(rows))], k) for net, each in zip(nets, found, strict=True)]
            return found

        by_thread = self._workers.share(work, len(blocks), n_threads)
        return Hits.of([_merged(found, k) for found in zip(*by_thread, strict=True)])

    def score(
        self, queries: QueryNets, doc_nums: Sequence[Int32s], *, options: NetOptions | None = None, n_threads: int = 1
    ) -> list[Floats]:
        """Scores of given documents: the numbers that `search` gives."""
        wanted = checked_doc_nums(self.field, queries, doc_nums)

        def score(number: int) -> Floats:
            net = Net(self.field, queries, number)

            def ascending(numbers: Int32s) -> Floats:
                scores = np.empty(len(numbers), np.float32)
                for segment, positions, span in parts(self.field.segments, numbers):
                    scores[span] = net.scores_at(segment.part, positions)
                return scores

            return in_order(wanted[number], ascending)

        return self._workers.map(score, len(queries), n_threads)

    def explain(
        self, queries: QueryNets, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:  # fmt: skip
        """Explain the score of one document: the scores of its sentences, each encoded alone."""
        net = Net(self.field, queries, number)
        score = float(self.score(queries.select(np.array([number])), [np.array([doc_num], np.int32)])[0][0])
        sentences = sentence_matches(self.encoder, document_text, lambda encoded: net.scores(encoded.vectors))
        return FieldExplanation(field=self.field.name, score=score, contribution=score, sentences=sentences)

    def warm(self) -> None:
        """Compile the kernel, and read the graphs."""
        for neighbours in (segment.part.neighbours for segment in self.field.segments):
            _ = neighbours and (neighbours.entries, neighbours.neighbours)
        dim = self.field.config.dim
        Net(self.field, QueryNets((dim, 1), np.zeros((1, dim + 2), np.float32)), 0).scores(np.zeros((1, dim), np.float32))

    def _walked(
        self, queries: QueryNets, k: int, masks: Sequence[Mask | None], effort: Effort, n_threads: int
    ) -> Hits:  # fmt: skip
        """Search along the graph; `Hits.n_scored` tells how many documents each query met."""
        if not self.field.config.n_neighbours:
            where = f"{self.field.path}, field {self.field.name}"
            raise ValueError(
                f"{where}: algorithm=graph is for fields that were made with n_neighbours, such as n_neighbours=32"
            )

        def answer(number: int) -> Walked:
            net, parts = Net(self.field, queries, number), []
            for segment, mask in zip(self.field.segments, masks, strict=True):
                parts.append(walk(segment, partial(net.scores_at, segment.part), mask, k, effort))
            doc_nums, scores = _merged([NO_HITS, *((part.doc_nums, part.scores) for part in parts)], k)
            return Walked(doc_nums, scores, sum(part.n_scored for part in parts))

        found = self._workers.map(answer, len(queries), n_threads)
        hits = Hits.of([(each.doc_nums, each.scores) for each in found])
        return replace(hits, n_scored=np.array([each.n_scored for each in found], np.int64))


def _blocks(segments: Sequence[NetSegment], masks: Sequence[Mask | None]) -> Iterator[tuple[NetSegment, Int64s]]:
    """Segments with the positions of some allowed documents, all of them in the end."""
    for segment, mask in zip(segments, masks, strict=True):
        positions = np.arange(segment.n_docs) if mask is None else np.flatnonzero(mask)
        for first in range(0, len(positions), BLOCK_DOCS):
            yield segment, positions[first : first + BLOCK_DOCS]


def _merged(found: Sequence[tuple[Int32s, Floats]], k: int) -> tuple[Int32s, Floats]:
    """The k best of several hits, of which the first are ranked."""
    first = found[0][1]
    if len(first) == k and all(scores.max(initial=-np.inf) < first[-1] for _, scores in found[1:]):
        return found[0]
    doc_nums, scores = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    if len(scores) > 4 * k:  # few of a block's documents come near
        near = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        doc_nums, scores = doc_nums[near], scores[near]
    return best(doc_nums, scores, k)
