"""Fusion: one ranking from several of the same query over the same documents.

Reciprocal rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009) looks at ranks alone::

    score(d) = sum over rankings that hold d of weight / (constant + rank(d)),   ranks from 1

A weighted sum looks at scores, brought to one scale for each query: min-max to 0..1, or z-scores. Of equal scores the
smaller doc_id comes first, and sums are rounded once, so the order of the rankings does not matter.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, pstdev
from typing import Protocol

from ...index.documents import Document
from ..retriever import Result

Ranking = Sequence[tuple[str, float]]
"""(doc_id, score), best first."""

RRF_CONSTANT = 60.0
"""The paper's."""


class Ranker(Protocol):
    """What `HybridRetriever` takes; `Retriever` is one."""

    def rank(self, texts: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        """Return (doc_id, score), best first, at most ``k`` for each text."""
        ...

    def document(self, doc_id: str) -> Document | None:
        """Return a document, None when there is none."""
        ...


def reciprocal_rank_fusion(
    rankings: Sequence[Ranking], k: int, *, weights: Sequence[float] | None = None, constant: float = RRF_CONSTANT
) -> list[tuple[str, float]]:
    """Fuse by ranks.

    Parameters
    ----------
    rankings : sequence of rankings
        Of one query, each by one retriever; any may be empty.
    k : int
        Documents to return.
    weights : sequence of float, optional
        Of the rankings, >= 0; by default 1 each.
    constant : float
        >= 0. Larger: the first ranks stand out less.

    Raises
    ------
    ValueError
        Numbers out of range, not as many weights as rankings, or a ranking that names a document twice.
    """
    if not constant >= 0:
        raise ValueError(f"constant is {constant}: it must be >= 0")
    parts = [{doc_id: 1 / (constant + rank) for rank, doc_id in enumerate(_doc_ids(ranking), 1)} for ranking in rankings]
    return _best_sums(parts, weights, k)


def weighted_sum(
    rankings: Sequence[Ranking], k: int, *, weights: Sequence[float] | None = None, scale: str = "min-max"
) -> list[tuple[str, float]]:
    """Fuse by scores; parameters and errors are those of `reciprocal_rank_fusion`.

    Parameters
    ----------
    scale : "min-max" or "z"
        ``(s - min) / (max - min)``, 1 where all scores are equal, and 0 for documents that a ranking does not hold; or
        ``(s - mean) / deviation``, 0 where all are equal, and the ranking's lowest for documents that it does not hold.
    """
    if scale not in _SCALES:
        raise ValueError(f"scale must be one of {', '.join(_SCALES)}, not {scale!r}")
    everything = {doc_id for ranking in rankings for doc_id in _doc_ids(ranking)}
    parts = []
    for ranking in rankings:
        scaled = _SCALES[scale]([score for _, score in ranking])
        absent = min(scaled, default=0.0) if scale == "z" else 0.0
        part = dict.fromkeys(everything, absent)
        part.update(zip(_doc_ids(ranking), scaled, strict=True))
        parts.append(part)
    return _best_sums(parts, weights, k)


class HybridRetriever:
    """Several retrievers of the same documents as one, by reciprocal rank fusion.

    Parameters
    ----------
    retrievers : sequence of Ranker
        Their documents should have the same doc_ids; the first gives titles and texts.
    weights : sequence of float, optional
        See `reciprocal_rank_fusion`.
    depth : int
        Documents that each retriever contributes, at least as many as are asked for.
    """

    def __init__(self, retrievers: Sequence[Ranker], *, weights: Sequence[float] | None = None, depth: int = 100) -> None:
        if not retrievers:
            raise ValueError("fusion needs at least one retriever")
        self._retrievers, self._depth = list(retrievers), depth
        self._weights = _checked_weights(weights, len(retrievers))

    def rank(self, texts: Sequence[str], k: int = 10) -> list[list[tuple[str, float]]]:
        """(doc_id, score) of the ``k`` best documents of each query; scores are those of the fusion."""
        runs = [retriever.rank(texts, max(k, self._depth)) for retriever in self._retrievers]
        return [reciprocal_rank_fusion(rankings, k, weights=self._weights) for rankings in zip(*runs, strict=True)]

    def search(self, text: str, k: int = 10) -> list[Result]:
        """Answer one query with documents; one that was deleted in between is left out."""
        results = []
        for doc_id, score in self.rank([text], k)[0]:
            found = self._retrievers[0].document(doc_id)
            if found is not None:
                results.append(Result(doc_id=doc_id, score=score, title=found.title, text=found.text, metadata=found.metadata))
        return results


def _min_max(scores: Sequence[float]) -> list[float]:
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 1.0 for score in scores]


def _z(scores: Sequence[float]) -> list[float]:
    if not scores:
        return []
    mean, deviation = fmean(scores), pstdev(scores)
    return [(score - mean) / deviation if deviation > 0 else 0.0 for score in scores]


_SCALES: dict[str, Callable[[Sequence[float]], list[float]]] = {"min-max": _min_max, "z": _z}


def _best_sums(parts: Sequence[Mapping[str, float]], weights: Sequence[float] | None, k: int) -> list[tuple[str, float]]:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    terms: dict[str, list[float]] = defaultdict(list)
    for part, weight in zip(parts, _checked_weights(weights, len(parts)), strict=True):
        for doc_id, value in part.items():
            terms[doc_id].append(weight * value)
    sums = ((doc_id, math.fsum(values)) for doc_id, values in terms.items())
    return sorted(sums, key=lambda pair: (-pair[1], pair[0]))[:k]


def _checked_weights(weights: Sequence[float] | None, n_rankings: int) -> list[float]:
    weights = [1.0] * n_rankings if weights is None else list(weights)
    if len(weights) != n_rankings:
        raise ValueError(f"{len(weights)} weights for {n_rankings} rankings")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"weights must be finite and >= 0, not {weights}")
    return weights


def _doc_ids(ranking: Ranking) -> list[str]:
    doc_ids = [doc_id for doc_id, _ in ranking]
    if len(set(doc_ids)) != len(doc_ids):
        raise ValueError("a ranking names a document twice")
    return doc_ids
