"""From a method's name to its student: what the command line asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ....index.arrays import Floats
from ....index.errors import RepresentationError
from ...encoders.checkpoints.files import read_json
from ...encoders.checkpoints.splade import TableFiles, read_layout
from ...encoders.checkpoints.tokenizer_files import has_tokenizer
from ...encoders.inference_free import read_table
from ...encoders.networks.devices import check_device
from ...encoders.networks.loading import weights_digest
from ...encoders.wordpieces import Wordpieces
from .base import Student
from .colbert import ColbertStudent, ColbertStudentConfig
from .dense import DenseStudent, DenseStudentConfig
from .gaussian import GaussianStudent, GaussianStudentConfig
from .hypencoder import HypencoderStudent, HypencoderStudentConfig
from .idf import document_idf
from .splade import SpladeStudent, SpladeStudentConfig
from .splade_head import N_TEXTS, start_head
from .starts import network_folder, takes_layout
from .trunk_states import StateCache

Config = SpladeStudentConfig | ColbertStudentConfig | DenseStudentConfig | GaussianStudentConfig | HypencoderStudentConfig
CONFIGS: dict[str, type[Config]] = {
    "splade": SpladeStudentConfig,
    "inference-free": SpladeStudentConfig,
    "colbert": ColbertStudentConfig,
    "dense": DenseStudentConfig,
    "gaussian": GaussianStudentConfig,
    "hypencoder": HypencoderStudentConfig,
}


def make_student(
    method: str, folder: Path | str, *, idf: Path | str | None = None, texts: Iterable[str] = (),
    queries: Sequence[str] = (), states: Path | str | None = None, seed: int = 0, start: bool = True,
    device: str = "cpu", **options: Any,
) -> Student:  # fmt: skip
    """Make a student from a checkpoint.

    Parameters
    ----------
    method : {"splade", "inference-free", "colbert", "dense", "gaussian", "hypencoder"}
    folder : Path or str
        The checkpoint to start from.
    idf : Path or str, optional
        An idf.json for "inference-free"; by default the checkpoint's own table, and where it has none the frequencies are
        counted in ``texts``.
    texts : iterable of str
        Documents, read only when they are counted, or a new head starts on them.
    queries : sequence of str
        On which, with ``texts``, the new projection of a frozen trunk starts.
    states : Path or str, optional
        Where the states of a frozen trunk are kept, `.states.StateCache`.
    seed : int
        Of a new head's start.
    start : bool
        Whether a new head starts as `.new_head` has it; False when its weights come from elsewhere, such as a checkpoint.
    device : str
        Where it is, as torch names it.
    **options
        Fields of the method's configuration, such as `.splade.SpladeStudentConfig`.

    Raises
    ------
    RepresentationError
        The checkpoint or the table does not fit.
    ValueError, TypeError
        Unknown methods or options, or values out of range.
    """
    check_device(device)
    folder = Path(folder)
    if states is not None and not options.get("freeze_trunk"):
        raise ValueError("states are kept of a frozen trunk alone: set freeze_trunk=true")
    if method in ("splade", "inference-free"):
        some = list(texts)
        if method == "splade":
            student = SpladeStudent(folder, SpladeStudentConfig(**options))
        else:
            config = SpladeStudentConfig(query_side="idf", **options)
            table = _table(folder, idf, some, ignore_layout=config.ignore_layout)
            student = SpladeStudent(folder, config, idf=table)
        student.to(device).cache = _cache(student, states)
        if student.has_new_head and start:
            start_head(student, some[:N_TEXTS], seed=seed)
        return student
    if method == "colbert":
        colbert = ColbertStudent(folder, ColbertStudentConfig(**options))
        colbert.to(device).cache = _cache(colbert, states)
        if colbert.has_new_projection and start and queries:
            colbert.start_projection(queries[:N_TEXTS], list(islice(texts, N_TEXTS)))
        return colbert
    if method == "dense":
        dense = DenseStudent(folder, DenseStudentConfig(**options))
        dense.to(device).cache = _cache(dense, states)
        return dense
    if method == "gaussian":
        gaussian = GaussianStudent(folder, GaussianStudentConfig(**options))
        gaussian.to(device).cache = _cache(gaussian, states)
        return gaussian
    if method == "hypencoder":
        hypencoder = HypencoderStudent(folder, HypencoderStudentConfig(**options))
        hypencoder.to(device).cache = _cache(hypencoder, states)
        return hypencoder
    raise ValueError(f"unknown method {method!r}: choose from {', '.join(CONFIGS)}")


def _cache(student: Student, folder: Path | str | None) -> StateCache | None:
    if folder is None:
        return None
    return StateCache(Path(folder), weights_digest(student.folder), student.trunk.config.hidden_size)


def _table(root: Path, idf: Path | str | None, texts: Iterable[str], *, ignore_layout: bool) -> Floats:
    """Query weights: those of a file, else the checkpoint's own, else the texts' frequencies."""
    own: TableFiles | None = None
    if takes_layout(root, "inference-free", ignore_layout=ignore_layout):
        layout = read_layout(root)
        own = layout.query if isinstance(layout.query, TableFiles) else None
        tokenizer, n_terms = layout.document.tokenizer, layout.document.n_terms
    else:
        folder = network_folder(root)
        tokenizer, n_terms = folder if has_tokenizer(folder) else root, _n_terms(folder)
    wordpieces = Wordpieces(tokenizer)
    if idf is not None:
        own = TableFiles(weights=Path(idf), tokenizer=tokenizer, max_length=0)
    return document_idf(texts, wordpieces, n_terms) if own is None else read_table(own, wordpieces, n_terms)


def _n_terms(folder: Path) -> int:
    try:
        return int(read_json(folder / "config.json")["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RepresentationError(f"{folder}: config.json with a vocab_size is needed: {error}") from error
