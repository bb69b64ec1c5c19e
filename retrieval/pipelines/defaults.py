"""The default search expression of an index, by the encoders of its fields.

A token field orders candidates best and reads the least of a long query; BM25 is the reverse. Where there is a token field, the
100 best documents of every field are candidates, every field scores all of them, and the scores are mixed with fixed weights,
which the softmax of `fusion.fuse` makes safe: a field that is not sure cannot outvote the others. The weights were chosen on
questions that belong to no evaluation collection; docs/measurements.md has the experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

BM25, SPARSE, TOKENS = "bm25", "sparse", "tokens"
WEIGHTS = {BM25: 0.15, SPARSE: 0.25, TOKENS: 0.6}
"""Share of each role in the mixture; fields of one role divide it."""


class Described(Protocol):
    """What the default needs to know of an encoder."""

    @property
    def kind(self) -> str:
        """The method."""
        ...

    @property
    def representation(self) -> str:
        """What it makes."""
        ...


def default_search(encoders: Mapping[str, Described]) -> str:
    """Return the expression that an index is searched with when nobody gives one.

    Parameters
    ----------
    encoders : mapping of str to Encoder
        By field.

    Returns
    -------
    str
        One field: its name. Several without a token field: their fusion by ranks. With one: all, ordered by the mixture.
    """
    names = list(encoders)
    fused = " + ".join(names)
    roles = {name: _role(each) for name, each in encoders.items()}
    if len(names) == 1 or TOKENS not in roles.values() or set(roles.values()) == {TOKENS}:
        return fused
    counts = {role: list(roles.values()).count(role) for role in WEIGHTS}
    mixture = " + ".join(f"{round(WEIGHTS[role] / counts[role], 4):g}*{name}" for name, role in roles.items())
    return f"({fused}) > {mixture}"


def _role(encoder: Described) -> str:
    if encoder.representation == "tokens":
        return TOKENS
    return BM25 if encoder.kind == "bm25" else SPARSE
