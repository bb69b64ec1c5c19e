"""How BM25 finds the words of a text in any script.

A text is brought to one form (Unicode NFKC, case folding, no invisible format characters), so that spellings of the same
characters are equal. A word is a run of letters, digits and combining marks. Scripts that are written without spaces (Chinese,
Japanese, Thai, Lao, Khmer, Burmese and others), and Korean, whose particles stick to words, give single characters and
overlapping pairs: the usual way to search them without a dictionary (Nie et al., "On the use of words and n-grams for Chinese
information retrieval", IRAL 2000). An emoji is a word.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from itertools import pairwise

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_LOWER = bytes(range(256)).lower()
WORD_BYTES = bytes(byte if i > 127 or chr(i).isalnum() else 32 for i, byte in enumerate(_LOWER))
"""For `bytes.translate`: letters and digits of ASCII in lower case, bytes of other characters, and spaces for all the rest."""
SPACE_BYTES = bytes(32 if i < 128 and chr(i).isspace() else byte for i, byte in enumerate(_LOWER))
"""The same with spaces for ASCII's white space alone."""
_CHUNK = re.compile(r"[^\x00-/:-@\[-`{-\x7f]+")
"""ASCII letters and digits, and whatever is not ASCII."""
_CONTRACTED = re.compile(r"['\u2019](?<=\w.)(?:[stdmSTDM]|ll|re|ve|LL|RE|VE)\b")
"""What English contracts: it's, don't, she'd, I'm, we'll, they're, we've."""
_SIGNS = str.maketrans({"\u2122": " ", "\u2120": " "})
"""NFKC would make letters of the trademark signs, which stand at the ends of words."""
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u0640\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]")
"""Accents of Latin, Greek and Cyrillic, vowel points of Hebrew and Arabic; without marks of other scripts words are others."""
_PLAIN_LETTERS = str.maketrans(
    {"đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ł": "l", "ø": "o", "ŧ": "t", "þ": "th", "æ": "ae", "œ": "oe"}
)
_TURKISH = str.maketrans({"I": "ı", "İ": "i"})
_DIGIT = re.compile(r"(?![0-9])\d")
_EMOJI = "\u2600-\u27bf\u2b50\U0001f000-\U0001f3fa\U0001f400-\U0001faff"
_UNSPACED = (
    "\u0e01-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9df"  # Tai Le, New Tai Lue, Tai Tham, Balinese, Javanese
    "\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"  # Hangul
)
_HAS_UNSPACED = re.compile(f"[{_UNSPACED}]")
MAX_REMEMBERED = 20
"""Longest run of characters whose words are remembered: Greek letters and quotes come again and again, sentences do not."""


def find_words(text: str, *, query: bool = False, turkish: bool = False, fold: bool = False) -> list[str]:
    """Return the words of a text, lower-cased and normalised.

    Parameters
    ----------
    text : str
    query : bool
        Of scripts without spaces give pairs of characters alone, where there are two: documents have the single ones as well.
    turkish : bool
        Lower-case I and İ as Turkish does; otherwise all of I, İ, i and ı are one letter.
    fold : bool
        Leave out accents: é becomes e, ø becomes o.

    >>> find_words("The cat's nose, COVID-19"), find_words("東京都", query=True)
    (['the', 'cat', 'nose', 'covid', '19'], ['東京', '京都'])
    """
    text = without_contractions(text)
    if text.isascii() and not turkish:
        return _ASCII_WORD.findall(text.lower())
    words: list[str] = []
    for chunk in _CHUNK.findall(text):
        if chunk.isascii() and not turkish:
            words.append(chunk.lower())
            continue
        words += (_remembered if len(chunk) <= MAX_REMEMBERED else _words_of)(chunk, query, turkish, fold)
    return words


def _words_of(chunk: str, query: bool, turkish: bool, fold: bool) -> tuple[str, ...]:
    """Words of a run of letters, digits and what is not ASCII."""
    words: list[str] = []
    for word in _word().findall(normalized(chunk, turkish=turkish, fold=fold)):
        words += _split(word, query) if _HAS_UNSPACED.search(word) else (word,)
    return tuple(words)


_remembered = lru_cache(1 << 14)(_words_of)


def without_contractions(text: str) -> str:
    """Leave out what English contracts, such as the end of "it's"."""
    return _CONTRACTED.sub("", text) if "'" in text or "\u2019" in text else text


def normalized(text: str, *, turkish: bool = False, fold: bool = False) -> str:
    """Return the one form of a text: NFKC, case folded, digits of all scripts as 0 to 9, no invisible characters."""
    if text.isascii() and not turkish:
        return text.lower()
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS))
    text = _INVISIBLE.sub("", text.translate(_TURKISH) if turkish else text).casefold()
    if not turkish:
        text = text.replace("i\u0307", "i").replace("ı", "i")
    text = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)
    if fold:
        text = _ACCENTS.sub("", unicodedata.normalize("NFD", text)).translate(_PLAIN_LETTERS)
    return unicodedata.normalize("NFC", text)


def is_latin(text: str) -> bool:
    """Whether the beginning of a text is written in Latin letters for the most part, or in none."""
    letters = [] if text.isascii() else [character for character in text[:200] if character.isalpha()]
    return 2 * sum(letter < "\u0370" for letter in letters) >= len(letters)


def _split(word: str, query: bool) -> list[str]:
    """Cut a word where scripts without spaces begin and end, and those stretches into characters and pairs of them."""
    pieces: list[str] = []
    for stretch in _stretch().findall(word):
        if not _HAS_UNSPACED.match(stretch):
            pieces.append(stretch)
            continue
        characters = _character().findall(stretch)
        pairs = [first + second for first, second in pairwise(characters)]
        pieces += pairs if query and pairs else characters + pairs
    return pieces


@cache
def _marks() -> str:
    """Return all combining marks, for a class of a regular expression; Python's word class leaves them out."""
    return "".join(c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.category(c) in ("Mn", "Mc", "Me"))


@cache
def _word() -> re.Pattern[str]:
    return re.compile(rf"[^\W_]+(?:[{_marks()}]+[^\W_]*)*|[{_EMOJI}]")


@cache
def _stretch() -> re.Pattern[str]:
    return re.compile(rf"[{_UNSPACED}][{_UNSPACED}{_marks()}]*|[^{_UNSPACED}]+")


@cache
def _character() -> re.Pattern[str]:
    return re.compile(rf"[^{_marks()}][{_marks()}]*|[{_marks()}]+")
