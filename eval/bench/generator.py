"""A synthetic learned-sparse collection: topical documents, Zipf's law, expansion by co-occurrence.

It imitates the statistics of expansion models that search engines feel (lengths of posting lists, impacts, words that come
together), and has no relevance: use it for speed, memory and exactness, never for quality. Documents come in no order.

A text draws its tokens from one or two topics and from the language at large. Every term has associates, mostly of its own
topic, whose strengths fall; a term's weight is what its best token gives it plus a part of what the others do, through
SPLADE's log(1 + x), and the heaviest terms are kept. The same recipe and seed give the same collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ...index.kernels import kernel
from ...index.representations.sparse import SparseVectors

CHUNK_DOCS = 1 << 16
IMPACT_PER_WEIGHT = 110.0
"""Scale of the impacts; about one in ten thousand saturates."""
N_ASSOCIATES = 32
Integer: TypeAlias = Any
"""A number inside a kernel: an int there, a NumPy integer when kernels run uncompiled."""
Floats64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to generate.

    Attributes
    ----------
    n_docs, n_queries : int
    seed : int
    n_terms : int
        Size of the vocabulary; term numbers fall in frequency.
    n_topics : int
    tokens, postings : float
        Medians of a document's tokens and of its terms after expansion.
    query_tokens, query_terms : float
        The same for queries.
    """

    n_docs: int
    n_queries: int = 100
    seed: int = 0
    n_terms: int = 30_522
    n_topics: int = 400
    tokens: float = 38.0
    postings: float = 98.0
    query_tokens: float = 5.0
    query_terms: float = 31.0

    def __post_init__(self) -> None:
        if self.n_docs < 1 or self.n_queries < 1 or self.n_terms < self.n_topics:
            raise ValueError("a collection needs at least a document, a query, and as many terms as topics")


class Language(NamedTuple):
    """Terms and how they come together; V terms, T topics, A associates.

    ``common (V,)`` cumulative probabilities of terms; ``members (V,)`` terms in the order of their topics, topic i at
    ``starts[i]:starts[i + 1]``, with ``shares (V,)`` cumulative inside the topic; ``topics (T,)`` cumulative
    probabilities of topics; ``associates, strengths (V, A)``; ``rarity (V,)`` in 0..1.
    """

    common: Floats64
    members: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    shares: Floats64
    topics: Floats64
    associates: npt.NDArray[np.int32]
    strengths: npt.NDArray[np.float32]
    rarity: npt.NDArray[np.float32]


def generate_documents(recipe: Recipe) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Return ``indptr (n + 1,)``, ``terms (P,)`` and ``impacts (P,)`` 1..255 of the documents, terms ascending in a row."""
    language = _language(recipe)
    rng = np.random.default_rng([recipe.seed, 1])
    widths, terms, impacts = [], [], []
    for first in range(0, recipe.n_docs, CHUNK_DOCS):
        n = min(CHUNK_DOCS, recipe.n_docs - first)
        n_tokens = _sizes(rng, recipe.tokens, 0.35, n, 8, 160)
        n_terms = _sizes(rng, recipe.postings, 0.38, n, 20, 400)
        rows = _write_texts(language, n_tokens, n_terms, int(rng.integers(1 << 31)), True)
        widths.append(np.diff(rows[0]))
        terms.append(rows[1])
        impacts.append(np.clip(np.ceil(rows[2] * IMPACT_PER_WEIGHT), 1, 255).astype(np.uint8))
    indptr = np.zeros(recipe.n_docs + 1, np.int64)
    np.cumsum(np.concatenate(widths), out=indptr[1:])
    return indptr, np.concatenate(terms), np.concatenate(impacts)


def generate_queries(recipe: Recipe) -> dict[str, SparseVectors]:
    """Queries of the same language: ``"expanded"`` as SPLADE makes them, ``"short"`` as inference-free models do."""
    language = _language(recipe)
    rng = np.random.default_rng([recipe.seed, 2])
    n_tokens = _sizes(rng, recipe.query_tokens, 0.3, recipe.n_queries, 2, 16)
    n_terms = _sizes(rng, recipe.query_terms, 0.35, recipe.n_queries, 6, 90)
    seed = int(rng.integers(1 << 31))
    expanded = SparseVectors(*_write_texts(language, n_tokens, n_terms, seed, True))
    indptr, terms, _ = _write_texts(language, n_tokens, n_terms, seed, False)
    return {"expanded": expanded, "short": SparseVectors(indptr, terms, language.rarity[terms] + np.float32(0.05))}


def _sizes(rng: np.random.Generator, median: float, spread: float, n: int, low: int, high: int) -> npt.NDArray[np.int64]:
    return np.clip(np.rint(rng.lognormal(np.log(median), spread, n)), low, high).astype(np.int64)


def _language(recipe: Recipe) -> Language:
    rng = np.random.default_rng([recipe.seed, 0])
    n, n_topics = recipe.n_terms, recipe.n_topics
    chances = 1.0 / (np.arange(n) + 12.0)
    chances /= chances.sum()
    topic_of = rng.integers(0, n_topics, n)
    topic_of[:n_topics] = np.arange(n_topics)  # no topic is empty
    members = np.argsort(topic_of, kind="stable").astype(np.int32)
    starts = np.searchsorted(topic_of[members], np.arange(n_topics + 1))
    local = 1.0 / (np.arange(n) - starts[topic_of[members]] + 2.0)  # Zipf's law inside a topic, frequent terms first
    shares = np.concatenate([np.cumsum(part) / part.sum() for part in np.split(local, starts[1:-1])])
    sizes = 1.0 / (np.arange(n_topics) + 20.0)
    own = rng.random((n, N_ASSOCIATES)) < 0.55
    among = rng.random((n, N_ASSOCIATES))
    associates = np.searchsorted(np.cumsum(chances), among * 0.999999)
    for topic in range(n_topics):
        part = members[starts[topic] : starts[topic + 1]]
        found = np.searchsorted(shares[starts[topic] : starts[topic + 1]], among[part])
        associates[part] = np.where(own[part], part[found], associates[part])
    strengths = np.exp(-2.5 * np.arange(N_ASSOCIATES) / N_ASSOCIATES) * rng.uniform(0.35, 0.9, (n, 1))
    rarity = -np.log(chances)
    return Language(
        common=np.cumsum(chances),
        members=members,
        starts=starts.astype(np.int64),
        shares=shares,
        topics=np.cumsum(sizes) / sizes.sum(),
        associates=associates.astype(np.int32),
        strengths=strengths.astype(np.float32),
        rarity=(rarity / rarity.max()).astype(np.float32),
    )


@kernel
def _draw_term(language: Language, topic: Integer) -> Integer:
    """Draw a token: a little over half come from the topic."""
    if np.random.random() < 0.55:
        first, end = language.starts[topic], language.starts[topic + 1]
        return language.members[first + min(np.searchsorted(language.shares[first:end], np.random.random()), end - first - 1)]
    return min(np.searchsorted(language.common, np.random.random()), len(language.common) - 1)


@kernel
def _write_texts(
    language: Language, n_tokens: npt.NDArray[np.int64], n_terms: npt.NDArray[np.int64], seed: int, expand: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Write a row for each text: CSR of at most ``n_terms[i]`` terms, ascending, and their weights > 0."""
    n_vocabulary, n_associates = language.associates.shape
    indptr = np.zeros(len(n_tokens) + 1, np.int64)
    terms = np.empty(n_terms.sum(), np.int32)
    weights = np.empty(len(terms), np.float32)
    total = np.zeros(n_vocabulary, np.float32)
    best = np.zeros(n_vocabulary, np.float32)
    touched = np.empty(n_vocabulary, np.int32)
    values = np.empty(n_vocabulary, np.float32)
    end = 0
    for i in range(len(n_tokens)):
        np.random.seed(seed + i)
        topics = (np.searchsorted(language.topics, np.random.random()), np.searchsorted(language.topics, np.random.random()))
        n_touched = 0
        for token in range(n_tokens[i]):
            t = _draw_term(language, topics[token % 3 // 2])
            strength = np.float32(2.6) * language.rarity[t]
            for a in range(-1, n_associates if expand else 0):
                term = t if a < 0 else language.associates[t, a]
                gain = strength if a < 0 else strength * language.strengths[t, a]
                if total[term] == 0:
                    touched[n_touched] = term
                    n_touched += 1
                total[term] += gain
                best[term] = max(best[term], gain)
        for j in range(n_touched):
            term = touched[j]
            noise = np.exp(np.float32(0.4) * np.float32(np.random.standard_normal()))
            values[j] = np.log1p((best[term] + np.float32(0.4) * (total[term] - best[term])) * noise)
            total[term] = best[term] = 0
        n_kept = min(n_touched, n_terms[i])
        cut = np.partition(values[:n_touched], n_touched - n_kept)[n_touched - n_kept]
        first = end
        for j in range(n_touched):
            if values[j] >= cut and end - first < n_kept:
                terms[end], weights[end] = touched[j], values[j] - np.float32(0.9) * cut
                end += 1
        order = np.argsort(terms[first:end])
        terms[first:end] = terms[first:end][order]
        weights[first:end] = weights[first:end][order]
        indptr[i + 1] = end
    return indptr, terms[:end].copy(), weights[:end].copy()
