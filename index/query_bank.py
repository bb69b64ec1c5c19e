"""Query banks: encoded queries that a dense field, or one of encodings, keeps to see which documents answer too many.

Arrays of ``bank-*.lex``; n queries::

    vectors (n, dim) f32                          of a dense field
    tokens (total, dim) f32, offsets (n + 1,) i64   token vectors, of a field of encodings

They are what the field's encoder makes, so a bank outlives new cells, lists and codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from .array_files import ArrayFile, ArrayFileWriter
from .errors import IndexFormatError, RepresentationError
from .manifest import FieldRecord
from .preludes import ADVICE
from .representations.dense import DenseVectors
from .representations.multivectors import MultiVectors

KIND = "bank"
MAX_QUERIES = 20_000
KEEPERS = ("dense", "fde")
"""Representations of fields that can keep a bank."""
Bank = DenseVectors | MultiVectors


def check_bank(where: str, record: FieldRecord, bank: object) -> Bank:
    """Return a bank that the field can keep.

    Raises
    ------
    RepresentationError
        The field is of another kind, or the vectors are of another kind or dim than its encoder's.
    ValueError
        No queries, or more than `MAX_QUERIES`.
    """
    n_queries = len(bank) if isinstance(bank, DenseVectors | MultiVectors) else 1
    check_bank_size(where, record, n_queries)
    kind, dim = _shape(record)
    if not isinstance(bank, kind) or bank.dim != dim:
        found = f"{type(bank).__name__} of dim {getattr(bank, 'dim', 'unknown')}"
        raise RepresentationError(f"{where}: a query bank is {kind.__name__} of dim {dim}, not {found}")
    return cast(Bank, bank)


def check_bank_size(where: str, record: FieldRecord, n_queries: int) -> None:
    """Raise RepresentationError where the field keeps no bank, ValueError where there are no queries or too many."""
    if record.representation not in KEEPERS:
        raise RepresentationError(f"{where}: query banks are for dense and fde fields, and this one is {record.representation}")
    if not 1 <= n_queries <= MAX_QUERIES:
        raise ValueError(f"{where}: a query bank of {n_queries:,} queries: it must have 1 to {MAX_QUERIES:,}")


def joined_bank(batches: Sequence[Bank]) -> Bank:
    """Join one or more batches of one kind."""
    first = batches[0]
    if isinstance(first, DenseVectors):
        return DenseVectors.of([each for each in batches if isinstance(each, DenseVectors)], first.dim)
    return MultiVectors.of([each.row(i) for each in batches for i in range(len(each))], first.dim)


def write_bank(path: Path, bank: Bank) -> None:
    """Write a bank's file."""
    with ArrayFileWriter(path, KIND) as out:
        if isinstance(bank, DenseVectors):
            out.add("vectors", bank.vectors)
        else:
            out.add("tokens", bank.tokens)
            out.add("offsets", bank.offsets)


def read_bank(folder: Path, record: FieldRecord) -> Bank | None:
    """Read the bank of a field, None where it has none; raises IndexFormatError for a damaged file, or another field's."""
    name = record.state.get("bank")
    if name is None:
        return None
    file = ArrayFile(folder / name, KIND)
    file.require(record.representation in KEEPERS, "a field that keeps a query bank", record.representation)
    kind, dim = _shape(record)
    try:
        if kind is DenseVectors:
            bank: Bank = DenseVectors(np.array(file.array("vectors", "float32", (None, dim))))
        else:
            tokens, offsets = file.array("tokens", "float32", (None, dim)), file.array("offsets", "int64", (None,))
            bank = MultiVectors(np.array(offsets), np.array(tokens))
        check_bank(str(folder), record, bank)
    except (RepresentationError, ValueError) as problem:
        raise IndexFormatError(file.path, expected="a query bank of the field", found=problem, advice=ADVICE) from problem
    return bank


def bank_size(folder: Path, record: FieldRecord) -> int | None:
    """Queries of a field's bank, None where it has none; raises IndexFormatError when the file is damaged."""
    name = record.state.get("bank")
    if name is None:
        return None
    file = ArrayFile(folder / name, KIND)
    if "vectors" in file:
        return len(file.unverified("vectors", "float32", (None, None)))
    return len(file.unverified("offsets", "int64", (None,))) - 1


def _shape(record: FieldRecord) -> tuple[type[Any], int]:
    """What the field's encoder makes of queries, and its dim."""
    options: Mapping[str, Any] = record.options
    if record.representation == "fde":
        return MultiVectors, int(options["encoding"]["token_dim"])
    return DenseVectors, int(options["dim"])
