"""How ColBERT lays a text out in tokens (arXiv 2004.12832, section 3.2).

::

    document   [CLS] [D] w1 w2 , w3 [SEP]                  the vector of "," is dropped, the token is read
    query      [CLS] [Q] w1 w2 [SEP] [MASK] [MASK] ...     up to a fixed number, which others see only if ``attend``
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .networks.token_network import TokenRow
from .wordpieces import Wordpieces

Span = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class SideTokens:
    """What surrounds a text of one side.

    Attributes
    ----------
    max_length : int
        Tokens of a text, special ones and the marker included.
    prompt : str
        Put before the text.
    marker : int or None
        Id that stands after the first special tokens.
    expand_to : int
        Shorter texts get expansion tokens up to this length; 0 for none.
    expansion : int or None
        Id of the expansion token.
    attend : bool
        Whether other tokens see the expansion tokens.
    skipped : tuple of int
        Ids whose vectors are dropped.
    """

    max_length: int
    prompt: str = ""
    marker: int | None = None
    expand_to: int = 0
    expansion: int | None = None
    attend: bool = False
    skipped: tuple[int, ...] = ()


class SideReader:
    """Turns texts of one side into rows of tokens."""

    def __init__(self, wordpieces: Wordpieces, side: SideTokens) -> None:
        self.side = side
        self._skipped = frozenset(side.skipped)
        self._wordpieces = wordpieces
        self._head = [*wordpieces.head, *([] if side.marker is None else [side.marker])]
        self._room = side.max_length - len(self._head) - len(wordpieces.tail)
        if self._room < 1:
            raise ValueError(
                f"max_length is {side.max_length}: it must leave room beside the special tokens, "
                f">= {side.max_length - self._room + 1}"
            )

    def rows(self, texts: Sequence[str]) -> list[TokenRow]:
        """Rows of the texts, each cut to the side's length."""
        return [self._row(pieces) for pieces in self._pieces(texts)]

    def n_truncated(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the side reads."""
        return sum(len(pieces) > self._room for pieces in self._pieces(texts))

    def spans(self, text: str) -> list[Span]:
        """Token and character offsets (start, end) in the text of each kept token; (0, 0) for one that is not of the text."""
        row, shift = self._row(self._pieces([text])[0]), len(self.side.prompt)
        inner = self._wordpieces.cut(self._wordpieces.spans(self.side.prompt + text), self._room)
        offsets = [(0, 0)] * len(self._head) + [(max(0, start - shift), max(0, end - shift)) for start, end in inner]
        offsets += [(0, 0)] * (len(row.ids) - len(offsets))
        tokens = self._wordpieces.tokens
        return [
            (tokens[number], start, end)
            for number, (start, end), kept in zip(row.ids, offsets, row.kept, strict=True)
            if kept
        ]  # fmt: skip

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        return self._wordpieces.pieces([self.side.prompt + text for text in texts])

    def _row(self, pieces: list[int]) -> TokenRow:
        side = self.side
        ids = [*self._head, *self._wordpieces.cut(pieces, self._room), *self._wordpieces.tail]
        n_attended = len(ids)
        if side.expansion is not None:
            ids += [side.expansion] * (side.expand_to - len(ids))
        return TokenRow(ids, len(ids) if side.attend else n_attended, [number not in self._skipped for number in ids])
