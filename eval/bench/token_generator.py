"""A synthetic collection of token vectors: Zipf's law, topics, a text's own context, noise.

It imitates what late-interaction indexes feel (words of very different frequency, clusters around words that topics and texts
pull apart, a spectrum that falls, queries whose padding stands near their words) and has no relevance: use it for
speed, memory and recall against exact search, never for quality. The same recipe gives the same collection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int64s
from ...index.representations.multivectors import MultiVectors
from .token_sets import TokenSet

CHUNK_DOCS = 2048
TOPIC_WORDS = 300
FROM_TOPIC = 0.6
"""Share of a text's words that its topic gives; the others come from the language at large."""
CONTEXT, NOISE = 0.6, 0.4
"""How far topic and text, and chance, move a word's vector; the word itself counts 1."""
QUERY_WORDS = (5, 14)
QUERY_NOISE = 0.6
PADDING_MEAN = 0.5
"""How far the mean of the text pulls a query's padding away from its words."""


@dataclass(frozen=True, kw_only=True)
class TokenRecipe:
    """What to generate.

    Attributes
    ----------
    n_docs, n_queries, seed : int
    dim : int
        Numbers of a token vector.
    n_words, n_topics : int
    tokens : float
        Mean of a document's tokens.
    query_tokens : int
        Tokens of every query, padding included.
    widths : (int, int) or None
        Fewest and most tokens of a document, all numbers alike often; None: a gamma distribution around ``tokens``.
    part : int
        Of a collection that is generated in parts: each has texts of its own, in the same language.
    """

    n_docs: int
    n_queries: int = 100
    seed: int = 0
    dim: int = 128
    n_words: int = 20_000
    n_topics: int = 400
    tokens: float = 70.0
    query_tokens: int = 32
    widths: tuple[int, int] | None = None
    part: int = 0

    def __post_init__(self) -> None:
        numbers = (self.n_docs, self.n_queries, self.dim, self.n_words, self.n_topics, self.tokens, self.query_tokens)
        if min(numbers) < 1:
            raise ValueError(f"everything to generate must be at least 1, not {self}")
        if self.part < 0 or (self.widths is not None and not 1 <= self.widths[0] <= self.widths[1]):
            raise ValueError(f"parts count from 0, and widths are at least 1 and ascending, not {self}")


class _Language:
    """Vectors of words and topics, and which words a topic likes, commonest first."""

    def __init__(self, recipe: TokenRecipe) -> None:
        rng = np.random.default_rng([recipe.seed, 0])
        self.spectrum = (np.arange(1, recipe.dim + 1) ** -0.35).astype(np.float32)
        self.words = rng.standard_normal((recipe.n_words, recipe.dim), np.float32)
        self.topics = rng.standard_normal((recipe.n_topics, recipe.dim), np.float32)
        chances = 1 / (np.arange(recipe.n_words) + 3.0)
        self.cumulative = np.cumsum(chances) / chances.sum()
        self.topic_words = np.sort(self.draw(rng.random((recipe.n_topics, TOPIC_WORDS))), axis=1)

    def draw(self, chances: npt.NDArray[np.float64]) -> Int64s:
        """Words at these points of the cumulative distribution."""
        return np.asarray(np.minimum(np.searchsorted(self.cumulative, chances), len(self.cumulative) - 1), np.int64)


def generate_tokens(recipe: TokenRecipe) -> TokenSet:
    """Generate documents and queries, with the word of each document token as its token id."""
    language, rng, widths = _beginning(recipe)
    parts = [_texts(language, rng, widths[first : first + CHUNK_DOCS]) for first in range(0, recipe.n_docs, CHUNK_DOCS)]
    offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    tokens = np.concatenate([vectors for _, vectors in parts])
    queries = [_query(language, rng, offsets, tokens, recipe.query_tokens) for _ in range(recipe.n_queries)]
    return TokenSet(offsets, tokens, MultiVectors.of(queries, recipe.dim), np.concatenate([words for words, _ in parts]))


def token_chunks(recipe: TokenRecipe) -> Iterator[MultiVectors]:
    """Generate the documents of `generate_tokens` a few thousand at a time, in bounded memory."""
    language, rng, widths = _beginning(recipe)
    for first in range(0, recipe.n_docs, CHUNK_DOCS):
        each = widths[first : first + CHUNK_DOCS]
        yield MultiVectors(np.concatenate([[0], np.cumsum(each)]), _texts(language, rng, each)[1].astype(np.float32))


def token_queries(recipe: TokenRecipe, documents: MultiVectors) -> MultiVectors:
    """Generate queries of some of the documents of `token_chunks`."""
    rng, tokens = np.random.default_rng([recipe.seed, 0, 1]), documents.tokens.astype(np.float16)
    language = _Language(recipe)
    queries = [_query(language, rng, documents.offsets, tokens, recipe.query_tokens) for _ in range(recipe.n_queries)]
    return MultiVectors.of(queries, recipe.dim)


def _beginning(recipe: TokenRecipe) -> tuple[_Language, np.random.Generator, Int64s]:
    """Return what texts are drawn from, and how many tokens each document has."""
    rng = np.random.default_rng([recipe.seed, 1 + recipe.part])
    return _Language(recipe), rng, _widths(recipe, rng)


def _widths(recipe: TokenRecipe, rng: np.random.Generator) -> Int64s:
    if recipe.widths is not None:
        return rng.integers(recipe.widths[0], recipe.widths[1] + 1, recipe.n_docs)
    return np.clip(np.rint(rng.gamma(4.0, recipe.tokens / 4, recipe.n_docs)), 1, 5 * recipe.tokens).astype(np.int64)


def _texts(language: _Language, rng: np.random.Generator, widths: Int64s) -> tuple[Int64s, npt.NDArray[np.float16]]:
    """Words (T,) and vectors (T, dim) of some documents."""
    n_docs, n_tokens, dim = len(widths), int(widths.sum()), len(language.spectrum)
    owner = np.repeat(np.arange(n_docs), widths)
    topics = rng.integers(0, len(language.topics), n_docs)
    liked = language.topic_words[topics[owner], (TOPIC_WORDS * rng.random(n_tokens) ** 2).astype(np.int64)]
    words = np.where(rng.random(n_tokens) < FROM_TOPIC, liked, language.draw(rng.random(n_tokens)))
    context = language.topics[topics] + rng.standard_normal((n_docs, dim), np.float32)
    vectors = language.words[words] + CONTEXT * context[owner] + NOISE * rng.standard_normal((n_tokens, dim), np.float32)
    return words, _unit(vectors * language.spectrum).astype(np.float16)


def _query(
    language: _Language, rng: np.random.Generator, offsets: Int64s, tokens: npt.NDArray[np.float16], n: int
) -> Floats:  # fmt: skip
    """Some tokens of a document, and padding that stands between those and the document's mean; all moved by noise."""
    document = int(rng.integers(len(offsets) - 1))
    text = tokens[offsets[document] : offsets[document + 1]].astype(np.float32)
    picked = text[rng.choice(len(text), min(len(text), n, int(rng.integers(*QUERY_WORDS))), replace=False)]
    padding = _unit(
        picked[rng.integers(0, len(picked), n - len(picked))] + PADDING_MEAN * _unit(text.mean(axis=0, keepdims=True))
    )
    noise = _unit(rng.standard_normal((n, len(language.spectrum)), np.float32) * language.spectrum)
    return _unit(np.concatenate([picked, padding]) + QUERY_NOISE * noise)


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), np.float32)
