"""One pass for several encoders: those that stand on one trunk and read the same tokens run it once.

A *side* of an encoder (documents or queries) that passes through a network is taken in three steps: texts -> rows of tokens,
rows -> states of the trunk, states -> vectors. The middle one is shared: equal rows are run once, however many sides read them.
Rows that differ in expansion tokens alone, which no other token sees, share their beginning too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ...index.representations import Vectors
from .base import Encoder
from .wordpieces import Wordpieces, batches_by_length

if TYPE_CHECKING:
    import torch

    from .networks.trunk import Row, Trunk

BATCH_TEXTS = 32


class TextRow(NamedTuple):
    """One text for the network, of a side that needs nothing but the text's tokens."""

    row: Row
    """What the trunk reads."""


class NetworkSide(Protocol):
    """One side of an encoder that passes through a trunk."""

    @property
    def trunk(self) -> Trunk | None:
        """The trunk, loaded; None where the network cannot be taken apart."""
        ...

    @property
    def facts(self) -> str:
        """Equal for sides that make the same vectors of the same texts."""
        ...

    def rows(self, texts: Sequence[str]) -> list[Any]:
        """Rows of tokens, one per text; each has ``.row``, what the trunk reads."""
        ...

    def results(self, rows: Sequence[Any], states: Sequence[torch.Tensor]) -> list[Any]:
        """Vectors of each text from the states, (n_tokens, hidden), of its row."""
        ...

    def joined(self, results: Sequence[Any]) -> Vectors:
        """Join the vectors of texts."""
        ...


class SharedPass:
    """The encoders of several fields; safe to use from many threads.

    Parameters
    ----------
    encoders : mapping of str to Encoder
        By field.
    """

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        self._encoders = dict(encoders)

    def encode_documents(self, texts: Sequence[str], names: Sequence[str] | None = None) -> dict[str, Vectors]:
        """Encode documents for each field, or those named: the vectors that each encoder alone makes."""
        return self._encode(texts, names, "document")

    def encode_queries(self, texts: Sequence[str], names: Sequence[str] | None = None) -> dict[str, Vectors]:
        """Encode queries for each field, or those named: the vectors that each encoder alone makes."""
        return self._encode(texts, names, "query")

    def _encode(self, texts: Sequence[str], names: Sequence[str] | None, side: str) -> dict[str, Vectors]:
        chosen = {name: self._encoders[name] for name in (self._encoders if names is None else names)}
        sides = {name: each for name, encoder in chosen.items() if (each := network_side(encoder, side)) is not None}
        found = encode_sides(sides, texts) if len(sides) > 1 else {}
        for name, encoder in chosen.items():
            if name not in found:
                found[name] = encoder.encode_documents(texts) if side == "document" else encoder.encode_queries(texts)
        return {name: found[name] for name in chosen}


def network_side(encoder: Encoder, side: str) -> NetworkSide | None:
    """Return a side of an encoder that passes through a trunk; None where it does not."""
    found: NetworkSide | None = getattr(encoder, f"{side}_side", None)
    return found if found is not None and found.trunk is not None else None


def text_rows(wordpieces: Wordpieces, texts: Sequence[str], max_length: int) -> list[TextRow]:
    """Rows of the tokens of texts, special ones included, each cut to ``max_length``."""
    from .networks.trunk import Row

    return [TextRow(Row(tuple(ids), len(ids))) for ids in wordpieces.encode(texts, max_length=max_length)]


def encode_side(side: NetworkSide, texts: Sequence[str], batch_size: int = BATCH_TEXTS) -> Any:
    """Encode texts with one side alone, ``batch_size`` of them at once."""
    trunk = side.trunk
    if trunk is None:
        raise TypeError("the side's network cannot be taken apart")
    rows = side.rows(texts)
    results: list[Any] = [None] * len(rows)
    for batch in batches_by_length([each.row.ids for each in rows], batch_size):
        picked = [rows[i] for i in batch]
        for i, result in zip(batch, side.results(picked, trunk.states([each.row for each in picked])), strict=True):
            results[i] = result
    return side.joined(results)


def encode_sides(sides: Mapping[str, NetworkSide], texts: Sequence[str]) -> dict[str, Vectors]:
    """Encode texts with each of the sides, in batches of like length."""
    first: dict[str, str] = {}  # facts -> the first field whose side has them
    own = {name: first.setdefault(side.facts, name) for name, side in sides.items()}
    distinct = {name: sides[name] for name in first.values()}
    rows = {name: side.rows(texts) for name, side in distinct.items()}
    results: dict[str, list[Any]] = {name: [None] * len(texts) for name in distinct}
    longest = [max((rows[name][i].row.ids for name in distinct), key=len) for i in range(len(texts))]
    for batch in batches_by_length(longest, BATCH_TEXTS):
        numbers = batch.tolist()
        states = _states(distinct, {name: [rows[name][i].row for i in numbers] for name in distinct})
        for name, side in distinct.items():
            made = side.results([rows[name][i] for i in numbers], states[name])
            for i, result in zip(numbers, made, strict=True):
                results[name][i] = result
    return {name: distinct[same].joined(results[same]) for name, same in own.items()}


def _states(sides: Mapping[str, NetworkSide], rows: Mapping[str, Sequence[Row]]) -> dict[str, list[torch.Tensor]]:
    """States of each side's rows; each trunk runs every distinct row of a batch once."""
    found: dict[str, list[torch.Tensor]] = {}
    for trunk in {id(side.trunk): side.trunk for side in sides.values()}.values():
        names = [name for name, side in sides.items() if side.trunk is trunk]
        wanted: dict[tuple[int, ...], Row] = {}  # attended tokens -> the longest row that begins with them
        alone: dict[Row, Row] = {}
        for row in (row for name in names for row in rows[name]):
            known = wanted.setdefault(row.ids[: row.n_attended], row)
            short, long = sorted((known, row), key=lambda each: len(each.ids))
            if trunk is not None and trunk.masks and long.ids[: len(short.ids)] == short.ids:
                wanted[row.ids[: row.n_attended]] = long
            else:
                alone[row] = row
        runs = list(dict.fromkeys([*wanted.values(), *alone]))
        states = dict(zip(runs, trunk.states(runs) if trunk is not None else [], strict=True))
        for name in names:
            found[name] = [
                states[alone.get(row, wanted[row.ids[: row.n_attended]])][: len(row.ids)] for row in rows[name]
            ]  # fmt: skip
    return found
