"""BM25's encoder: words, stop words and Snowball stems; vectors hold term counts, which the index weighs.

The idf and the average document length belong to the collection, so the weighing is the index's (see `index.bm25`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import Stemmer

from ...index.arguments import texts_of, token_lists_of
from ...index.arrays import Int32s, Int64s, offsets_of, picks_of
from ...index.kernels import read_only
from ...index.metadata import check_text
from ...index.representations.sparse import SparseVectors
from ...index.sparse.bm25 import Bm25
from ..kernels.counts import count_terms, number_words
from .base import fingerprint_of
from .words import SPACE_BYTES, WORD_BYTES, find_words, normalized, without_contractions

ENGLISH_STOP_WORDS = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will
with
"""
"""Lucene's."""
MAX_KNOWN_STEMS = 1 << 18
"""Words whose stems an encoder remembers."""


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
        self._stem_of: dict[str, str | None] = {}
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
        spaced, plain = self._spaced, self._stemmer != "turkish"
        encoded = [
            (text if plain and text.isascii() and "'" not in text else spaced(text)).encode(errors="surrogatepass")
            for text in texts_of(texts)
        ]
        characters = b" ".join(encoded).translate(WORD_BYTES if self._tokenizer == "words" else SPACE_BYTES)
        ends = np.cumsum([len(each) + 1 for each in encoded], dtype=np.int64) - 1
        ids, lengths, listed = number_words(read_only(np.frombuffer(characters, np.uint8)), ends)
        return self._counted(listed.tobytes().decode(errors="surrogatepass").split(" ")[:-1], ids, lengths)

    def encode_tokens(self, token_lists: Iterable[Sequence[str]]) -> SparseVectors:
        """Count the stems of documents that are lists of words: what `encode_documents` makes of the words with spaces between.

        Only distinct words are looked at, so it takes a fraction of the time. A word that this encoder's tokenizer cuts into
        several, such as "COVID-19", counts as these; give ``tokenizer="whitespace"`` for words that shall stay whole.

        Parameters
        ----------
        token_lists : iterable of sequences of str

        Raises
        ------
        TypeError
            A document that is no sequence of strings, or is one string.
        ValueError
            A word that is no Unicode text.
        """
        rows = token_lists_of(token_lists)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        numbers: defaultdict[str, int] = defaultdict(count().__next__)
        try:
            ids = np.array(list(map(numbers.__getitem__, chain.from_iterable(rows))), np.int32)
        except TypeError as problem:
            raise TypeError(f"token_lists are lists of words: {problem}") from None
        _check_words(numbers.keys())
        plain = self._stemmer != "turkish"
        found = [[word.lower()] if plain and word.isascii() and word.isalnum() else self._words(word) for word in numbers]
        words = list(chain.from_iterable(found))
        widths = np.fromiter(map(len, found), np.int64, len(found))
        if not (widths == 1).all():
            ends, picks = picks_of(offsets_of(widths), ids)
            ids, lengths = picks.astype(np.int32), np.diff(ends[offsets_of(lengths)])
        return self._counted(words, ids, lengths)

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Count stems; of scripts without spaces single characters count only where they stand alone."""
        found = [self._words(text, query=True) for text in texts_of(texts)]
        numbers: dict[str, int] = {}
        ids = np.array([numbers.setdefault(word, len(numbers)) for words in found for word in words], np.int32)
        return self._counted(list(numbers), ids, np.array([len(words) for words in found], np.int64))

    def surface_terms(self, text: str) -> set[str]:
        """Return the text's stems."""
        return set(self._stems(self._words(text))[0])

    def _counted(self, words: Sequence[str], ids: Int32s, lengths: Int64s) -> SparseVectors:
        """Count the stems of texts whose words are given by their numbers among the distinct ones."""
        stems, numbers = self._stems(words)
        return SparseVectors(*count_terms(numbers[ids], lengths, len(stems)), stems)

    def _words(self, text: str, *, query: bool = False) -> list[str]:
        turkish = self._stemmer == "turkish"
        if self._tokenizer == "whitespace":
            return normalized(text, turkish=turkish, fold=self._fold).split()
        return find_words(text, query=query, turkish=turkish, fold=self._fold)

    def _spaced(self, text: str) -> str:
        """Return a text whose words are found by bytes alone, as `WORD_BYTES` or `SPACE_BYTES` tells them from spaces."""
        if text.isascii() and self._stemmer != "turkish":
            return without_contractions(text) if self._tokenizer == "words" else text
        return " ".join(self._words(text))

    def _stems(self, words: Sequence[str]) -> tuple[list[str], Int32s]:
        """Distinct stems, and for each word the position of its stem, -1 for one that is left out."""
        if len(self._stem_of) > MAX_KNOWN_STEMS:
            self._stem_of = {}
        known = self._stem_of  # another thread may begin a new one meanwhile
        unseen = [word for word in words if word not in known]
        if unseen:
            # A Stemmer object is not safe to share between threads, and making one costs a microsecond.
            made = unseen if self._stemmer == "none" else Stemmer.Stemmer(self._stemmer, 0).stemWords(unseen)
            stops, shortest = self._stops, self._min_length
            left_out = (word in stops or len(word) < shortest for word in unseen)
            known.update((word, None if out else stem) for word, stem, out in zip(unseen, made, left_out, strict=True))
        found = list(map(known.__getitem__, words))
        stems = [stem for stem in dict.fromkeys(found) if stem is not None]
        positions: dict[str | None, int] = {None: -1, **dict(zip(stems, range(len(stems)), strict=True))}
        return stems, np.fromiter(map(positions.__getitem__, found), np.int32, len(found))


def _check_words(words: Iterable[str]) -> None:
    """Raise TypeError for what is no string, ValueError for a word that no index could keep."""
    try:
        check_text(" ".join(texts_of(words, "words of token_lists")))
    except ValueError as problem:
        raise ValueError(f"words of token_lists hold {problem}") from None


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
