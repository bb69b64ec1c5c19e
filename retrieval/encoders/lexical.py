"""BM25's encoder: Unicode words, stop words and Snowball stems; vectors hold term counts, which the index weighs.

The idf and the average document length belong to the collection, so the weighing is the index's (see `index.bm25`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import Stemmer

from ...index.representations.sparse import SparseVectors
from ...index.sparse.bm25 import Bm25
from ..kernels.counts import count_terms
from .base import fingerprint_of

_WORD = re.compile(r"\w\w+", re.UNICODE)
STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "for",
        "if",
        "in",
        "into",
        "is",
        "it",
        "no",
        "not",
        "of",
        "on",
        "or",
        "such",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "will",
        "with",
    ]
)
"""Lucene's English stop words."""


class LexicalEncoder:
    """Bags of stems.

    Parameters
    ----------
    k1, b : float
        BM25's parameters; they are the index's, kept here so that settings tell everything.
    stemmer : str
        A Snowball language ("english", "german", ...) or "none".
    stop_words : str
        "english" or "none".

    Raises
    ------
    ValueError
        Unknown stemmer or stop words, or k1 and b out of range.
    """

    representation = "sparse"
    kind = "bm25"
    vocabulary: Sequence[str] | None = None

    def __init__(self, *, k1: float = 1.2, b: float = 0.75, stemmer: str = "english", stop_words: str = "english") -> None:
        self.bm25 = Bm25(k1=k1, b=b)
        if stemmer != "none" and stemmer not in Stemmer.algorithms():
            raise ValueError(f"unknown stemmer {stemmer!r}; there are none, {', '.join(Stemmer.algorithms())}")
        if stop_words not in {"english", "none"}:
            raise ValueError(f"stop words are 'english' or 'none', not {stop_words!r}")
        self._stemmer, self._stop_words = stemmer, stop_words

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes this encoder again."""
        return {
            "k1": self.bm25.k1,
            "b": self.bm25.b,
            "stemmer": self._stemmer,
            "stop_words": self._stop_words,
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hash over tokenisation, stop words, stemmer and parameters."""
        facts = {**self.settings, "words": _WORD.pattern, "stop_list": sorted(self._stops), "version": 1}
        return fingerprint_of(self.kind, facts)

    def encode_documents(self, texts: Sequence[str]) -> SparseVectors:
        """Count stems; the batch's vocabulary lists them, and counts are not capped."""
        words: list[str] = []
        lengths = np.empty(len(texts), np.int64)
        for i, text in enumerate(texts):
            found = _WORD.findall(text.lower())
            lengths[i] = len(found)
            words += found
        stems, numbers = self._stems(words)
        ids = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
        return SparseVectors(*count_terms(ids, lengths, len(stems)), stems)

    encode_queries = encode_documents

    def surface_terms(self, text: str) -> set[str]:
        """Return the text's stems."""
        return set(self._stems(_WORD.findall(text.lower()))[0])

    @property
    def _stops(self) -> frozenset[str]:
        return STOP_WORDS if self._stop_words == "english" else frozenset()

    def _stems(self, words: Sequence[str]) -> tuple[list[str], dict[str, int]]:
        """Distinct stems, and for each word the position of its stem, -1 for a stop word."""
        distinct = list(dict.fromkeys(words))
        # A Stemmer object is not safe to share between threads, and making one costs a microsecond.
        stems = distinct if self._stemmer == "none" else Stemmer.Stemmer(self._stemmer, 0).stemWords(distinct)
        positions: dict[str, int] = {}
        stops = self._stops
        numbers = {
            word: -1 if word in stops else positions.setdefault(stem, len(positions))
            for word, stem in zip(distinct, stems, strict=True)
        }
        return list(positions), numbers
