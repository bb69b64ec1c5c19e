"""From a method's name to its student: what the command line asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ....index.errors import RepresentationError
from ....index.representations import Floats
from ...encoders.inference_free import read_table
from ...encoders.layouts import TableFiles
from ...encoders.wordpieces import Wordpieces
from .base import Student
from .colbert import ColbertStudent, ColbertStudentConfig
from .dense import DenseStudent, DenseStudentConfig
from .idf import document_idf
from .splade import SpladeStudent, SpladeStudentConfig

CONFIGS: dict[str, type[SpladeStudentConfig | ColbertStudentConfig | DenseStudentConfig]] = {
    "splade": SpladeStudentConfig,
    "inference-free": SpladeStudentConfig,
    "colbert": ColbertStudentConfig,
    "dense": DenseStudentConfig,
}


def make_student(
    method: str, folder: Path | str, *, idf: Path | str | None = None, texts: Iterable[str] = (), **options: Any
) -> Student:  # fmt: skip
    """Make a student from a checkpoint.

    Parameters
    ----------
    method : {"splade", "inference-free", "colbert", "dense"}
    folder : Path or str
        The checkpoint to start from.
    idf : Path or str, optional
        An idf.json for "inference-free"; by default the frequencies are counted in ``texts``.
    texts : iterable of str
        Documents, read only when they are counted.
    **options
        Fields of the method's configuration, such as `.splade.SpladeStudentConfig`.

    Raises
    ------
    RepresentationError
        The checkpoint or the table does not fit.
    ValueError, TypeError
        Unknown methods or options, or values out of range.
    """
    folder = Path(folder)
    if method == "splade":
        return SpladeStudent(folder, SpladeStudentConfig(**options))
    if method == "inference-free":
        config = SpladeStudentConfig(query_side="idf", **options)
        return SpladeStudent(folder, config, idf=_table(folder, idf, texts))
    if method == "colbert":
        return ColbertStudent(folder, ColbertStudentConfig(**options))
    if method == "dense":
        return DenseStudent(folder, DenseStudentConfig(**options))
    raise ValueError(f"unknown method {method!r}: choose from {', '.join(CONFIGS)}")


def _table(folder: Path, idf: Path | str | None, texts: Iterable[str]) -> Floats:
    wordpieces = Wordpieces(folder)
    try:
        n_terms = int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RepresentationError(f"{folder}: config.json with a vocab_size is needed: {error}") from error
    if idf is None:
        return document_idf(texts, wordpieces, n_terms)
    return read_table(TableFiles(weights=Path(idf), tokenizer=folder, max_length=0), wordpieces, n_terms)
