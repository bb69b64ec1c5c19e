"""Steering: terms of a query made heavier or lighter, or added or left out, in every sparse field that has them.

A boost of 2 makes a term twice as heavy as the heaviest term that the query has without boosts, whether the query has the term
or not; 0 leaves it out. A latent of a sparse autoencoder can be named by its number, ``latent-12``, or by its label.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from ..index.arguments import mapping_of
from ..index.arrays import Floats, Int32s
from ..index.nearest import did_you_mean
from ..index.representations import Vectors
from ..index.representations.sparse import SparseVectors
from ..index.sparse.field import SparseField
from .searchers.registry import FieldSearcher
from .searchers.sparse import SparseSearcher

Boost = Mapping[str, float]
FORM = '{"latent-12": 2}'
MOST_LISTED = 5


def boosts_by_field(searchers: Mapping[str, FieldSearcher], boost: Boost | None) -> dict[str, dict[int, float]]:
    """Find the terms that a boost names.

    Parameters
    ----------
    searchers : mapping of str to FieldSearcher
        Of the fields that are searched.
    boost : mapping of str to float, or None
        Term -> how heavy it is, times the query's heaviest term.

    Returns
    -------
    dict of str to dict of int to float
        Field -> term number -> the same.

    Raises
    ------
    ValueError
        No field is sparse, none has the term, a label names several latents, or a number is below 0 or not finite.
    TypeError
        Not a mapping of strings to numbers.
    """
    given = mapping_of(boost, "boost", FORM)
    if not given:
        return {}
    fields = {name: each.field for name, each in searchers.items() if isinstance(each, SparseSearcher)}
    if not fields:
        raise ValueError(f"boost is for terms of sparse fields; the search has {', '.join(searchers)}")
    found: dict[str, dict[int, float]] = {name: {} for name in fields}
    for term, weight in given.items():
        if not isinstance(term, str) or isinstance(weight, bool) or not isinstance(weight, int | float):
            raise TypeError(f"boost is a mapping of term to number, as {FORM}, not {term!r}: {weight!r}")
        if not isfinite(weight) or weight < 0:
            raise ValueError(f"boost of {term!r} is {weight}: it must be 0 or more")
        numbers = {name: number for name, field in fields.items() if (number := _number(field, term)) is not None}
        if not numbers:
            raise ValueError(f"boost: no term {term!r} in {', '.join(fields)}{_near(fields, term)}")
        for name, number in numbers.items():
            found[name][number] = float(weight)
    return found


def boosted(queries: Mapping[str, Vectors], boosts: Mapping[str, Mapping[int, float]]) -> dict[str, Vectors]:
    """Return queries with their terms boosted; ``boosts`` are those of `boosts_by_field`."""
    found = dict(queries)
    for name, by_term in boosts.items():
        vectors: Any = found[name]
        if by_term:
            found[name] = SparseVectors.from_rows([_row(vectors.row(i), by_term) for i in range(len(vectors))])
    return found


def _row(row: tuple[Int32s, Floats], boosts: Mapping[int, float]) -> tuple[list[int], list[float]]:
    terms, weights = row
    heaviest = float(weights.max(initial=0)) or 1.0
    steered = dict(zip(terms.tolist(), weights.tolist(), strict=True))
    steered |= {term: boost * heaviest for term, boost in boosts.items()}
    return list(steered), list(steered.values())


def _number(field: SparseField, term: str) -> int | None:
    """Number of the term in a field, None where it has none of that name."""
    number = int(field.vocabulary.find([term])[0])
    if number >= 0:
        return number
    numbers = [number for number, name in _latents(field) if term in name.split(" ", 1)]
    if len(numbers) > 1:
        names = [name for number, name in _latents(field) if number in numbers]
        rest = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
        raise ValueError(
            f"boost: {term!r} names several latents: {', '.join(names[:MOST_LISTED])}{rest}; name one by its number"
        )
    return numbers[0] if numbers else None


def _latents(field: SparseField) -> list[tuple[int, str]]:
    """Number and name of each latent of a sparse autoencoder's field."""
    if field.record.encoder.kind != "sae":
        return []
    return list(enumerate(field.vocabulary.strings(np.arange(len(field.vocabulary), dtype=np.int32))))


def _near(fields: Mapping[str, SparseField], term: str) -> str:
    names = [part for field in fields.values() for _, name in _latents(field) for part in name.split(" ", 1)]
    return did_you_mean(term, names)
