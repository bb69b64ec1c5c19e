"""BM25's encoder: words, stop words and Snowball stems; vectors hold term counts, which the index weighs.

The idf and the average document length belong to the collection, so the weighing is the index's (see `index.bm25`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import Stemmer

from ...index.arguments import texts_of
from ...index.representations.sparse import SparseVectors
from ...index.sparse.bm25 import Bm25
from ..kernels.counts import count_terms
from .base import fingerprint_of
from .words import find_words, normalized

ENGLISH_STOP_WORDS = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will
with
"""
"""Lucene's."""


class LexicalEncoder:
    """Bags of stems.

    Parameters
    ----------
    k1, b : float
        BM25's parameters; they are the index's, kept here so that settings tell everything.
    stemmer : str
        A Snowball language ("english", "german", ...) or "none". "turkish" lower-cases I and İ as Turkish does.
    stop_words : str or list of str
        "english", "none", the words themselves, or a file of them; settings hold the words of a file, not its name.
    min_length : int
        Shorter words are left out, in characters.
    fold_accents : bool
        Leave out accents before stemming, so that "Hauser" and "Häuser" are one word.
    tokenizer : str
        "words": as `words.find_words` finds them. "whitespace": what stands between spaces, for texts that were cut before.

    Raises
    ------
    ValueError
        A setting that is not known or out of range, or a file of stop words that cannot be read.
    """

    representation = "sparse"
    kind = "bm25"
    vocabulary: Sequence[str] | None = None

    def __init__(
        self, *, k1: float = 1.2, b: float = 0.75, stemmer: str = "english", stop_words: str | list[str] = "english",
        min_length: int = 1, fold_accents: bool = False, tokenizer: Literal["words", "whitespace"] = "words",
    ) -> None:  # fmt: skip
        self.bm25 = Bm25(k1=k1, b=b)
        if stemmer != "none" and stemmer not in Stemmer.algorithms():
            raise ValueError(f"unknown stemmer {stemmer!r}; there are none, {', '.join(Stemmer.algorithms())}")
        if min_length < 1:
            raise ValueError(f"min_length must be at least 1, not {min_length}")
        if tokenizer not in ("words", "whitespace"):
            raise ValueError(f"tokenizer is 'words' or 'whitespace', not {tokenizer!r}")
        self._stemmer, self._min_length, self._fold, self._tokenizer = stemmer, min_length, fold_accents, tokenizer
        self._stop_words = _stop_words(stop_words)
        listed = {"english": [ENGLISH_STOP_WORDS], "none": []}.get(str(self._stop_words), self._stop_words)
        self._stops = frozenset(word for line in listed for word in self._words(line))

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes this encoder again."""
        return {
            "k1": self.bm25.k1,
            "b": self.bm25.b,
            "stemmer": self._stemmer,
            "stop_words": self._stop_words,
            "min_length": self._min_length,
            "fold_accents": self._fold,
            "tokenizer": self._tokenizer,
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hash over tokenisation, stop words, stemmer and parameters."""
        return fingerprint_of(self.kind, {**self.settings, "stop_list": sorted(self._stops), "version": 2})

    def encode_documents(self, texts: Sequence[str]) -> SparseVectors:
        """Count stems; the batch's vocabulary lists them, and counts are not capped."""
        return self._encode(texts, query=False)

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Count stems; of scripts without spaces single characters count only where they stand alone."""
        return self._encode(texts, query=True)

    def surface_terms(self, text: str) -> set[str]:
        """Return the text's stems."""
        return set(self._stems(self._words(text))[0])

    def _encode(self, texts: Sequence[str], *, query: bool) -> SparseVectors:
        texts = texts_of(texts)
        words: list[str] = []
        lengths = np.empty(len(texts), np.int64)
        for i, text in enumerate(texts):
            found = self._words(text, query=query)
            lengths[i] = len(found)
            words += found
        stems, numbers = self._stems(words)
        ids = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
        return SparseVectors(*count_terms(ids, lengths, len(stems)), stems)

    def _words(self, text: str, *, query: bool = False) -> list[str]:
        turkish = self._stemmer == "turkish"
        if self._tokenizer == "whitespace":
            return normalized(text, turkish=turkish, fold=self._fold).split()
        return find_words(text, query=query, turkish=turkish, fold=self._fold)

    def _stems(self, words: Sequence[str]) -> tuple[list[str], dict[str, int]]:
        """Distinct stems, and for each word the position of its stem, -1 for one that is left out."""
        distinct = list(dict.fromkeys(words))
        # A Stemmer object is not safe to share between threads, and making one costs a microsecond.
        stems = distinct if self._stemmer == "none" else Stemmer.Stemmer(self._stemmer, 0).stemWords(distinct)
        positions: dict[str, int] = {}
        stops, shortest = self._stops, self._min_length
        numbers = {
            word: -1 if word in stops or len(word) < shortest else positions.setdefault(stem, len(positions))
            for word, stem in zip(distinct, stems, strict=True)
        }
        return list(positions), numbers


def _stop_words(given: str | list[str]) -> str | list[str]:
    """Return "english", "none" or the words, which may stand in a file."""
    if isinstance(given, list | tuple) and all(isinstance(word, str) for word in given):
        return sorted(set(given))
    if not isinstance(given, str):
        raise ValueError(f"stop words are 'english', 'none', a list of words or a file of them, not {given!r}")
    if given in ("english", "none"):
        return given
    try:
        return sorted(set(Path(given).read_text("utf-8").split()))
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(f"stop words are 'english', 'none' or a file of words, not {given!r}: {problem}") from problem
