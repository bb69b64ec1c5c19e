"""Teachers: models too slow to search with, which score lists of passages once, before a student trains.

Scores are kept in a cache as they come, a file for each teacher and input, so that a killed run goes on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from ...index.errors import RepresentationError
from ..encoders.networks.loading import load_network, quiet_transformers, weights_digest
from ..progress import Progress
from .data import Example, read_examples, writing_records
from .students.base import Encoded
from .students.colbert import ColbertStudent
from .students.dense import DenseStudent
from .students.splade import SpladeStudent

EXAMPLES_AT_ONCE = 16


class Teacher(Protocol):
    """Scores passages for queries."""

    @property
    def fingerprint(self) -> str:
        """What decides the scores."""
        ...

    def score(self, examples: Sequence[Example]) -> list[list[float]]:
        """A score for each passage of each example; more is better."""
        ...


class CrossEncoder:
    """A network that reads query and passage together (arXiv 1901.04085).

    Parameters
    ----------
    folder : Path or str
        A ``*ForSequenceClassification`` checkpoint with one label, or two of which the second is relevant.
    max_length : int
        Tokens of query and passage together; the passage is cut.
    batch_size : int
    bf16 : bool
        Autocast to bfloat16.

    Raises
    ------
    RepresentationError
        When the checkpoint is no such thing.
    """

    def __init__(self, folder: Path | str, *, max_length: int = 512, batch_size: int = 32, bf16: bool = False) -> None:
        from transformers import AutoTokenizer

        self._folder, self._max_length, self._batch_size, self._bf16 = Path(folder), max_length, batch_size, bf16
        self._network = load_network(self._folder, "AutoModelForSequenceClassification").eval()
        if self._network.config.num_labels not in (1, 2):
            raise RepresentationError(f"{folder}: {self._network.config.num_labels} labels: a cross-encoder has one or two")
        with quiet_transformers():
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)

    @property
    def fingerprint(self) -> str:
        """Weights, length and dtype."""
        return f"cross-encoder {weights_digest(self._folder)} {self._max_length} {self._bf16}"

    def score(self, examples: Sequence[Example]) -> list[list[float]]:
        """Logits, which distil better than probabilities near 0 and 1."""
        pairs = [(example.query, passage) for example in examples for passage in example.passages]
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
        flat = [0.0] * len(pairs)
        for first in range(0, len(pairs), self._batch_size):
            rows = order[first : first + self._batch_size]
            for i, logit in zip(rows, self._logits([pairs[i] for i in rows]), strict=True):
                flat[i] = logit
        scores = iter(flat)
        return [list(islice(scores, len(example.passages))) for example in examples]

    def _logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        queries, passages = ([pair[side] for pair in pairs] for side in (0, 1))
        inputs = self._tokenizer(
            queries, passages, padding=True, truncation="only_second", max_length=self._max_length, return_tensors="pt"
        )
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            logits = self._network(**inputs).logits.float()
        values: list[float] = (logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]).tolist()
        return values


class BiEncoder:
    """A model that reads query and passage apart: any of this package's students, as a teacher.

    Parameters
    ----------
    model : DenseStudent, ColbertStudent or SpladeStudent
        Made from the teacher's folder. Passages that come again, in other lists, are not encoded again by a dense one.
    """

    def __init__(self, model: DenseStudent | ColbertStudent | SpladeStudent) -> None:
        self._model = model.eval()
        self._remembers = isinstance(model, DenseStudent)  # vectors of a kilobyte or two
        self._vectors: dict[str, torch.Tensor] = {}

    @property
    def fingerprint(self) -> str:
        """Weights and settings."""
        settings = json.dumps(asdict(self._model.config), sort_keys=True)
        return f"{type(self._model).__name__} {weights_digest(self._model.folder)} {settings}"

    def score(self, examples: Sequence[Example]) -> list[list[float]]:
        """Dot products or MaxSim."""
        rows = []
        with torch.inference_mode():
            if self._remembers:
                self._remember({passage for example in examples for passage in example.passages})
            for example in examples:
                query = self._model.encode([example.query], "query")
                scores = self._model.scores(query, self._documents(example.passages), in_batch=True)
                rows.append(scores[0].float().tolist())
        return rows

    def _documents(self, passages: Sequence[str]) -> Encoded:
        if not self._remembers:
            return self._model.encode(passages, "document")
        return Encoded(torch.stack([self._vectors[passage] for passage in passages]))

    def _remember(self, passages: set[str]) -> None:
        new = sorted(passages - self._vectors.keys())
        if new:
            self._vectors.update(zip(new, self._model.encode(new, "document").vectors, strict=True))


def score_lists(
    path: Path | str, out: Path | str, teachers: Mapping[str, Teacher], *, cache: Path | str,
    progress: Progress | None = None,
) -> int:  # fmt: skip
    """Write lists with the scores of teachers, beside those that they have.

    Parameters
    ----------
    path : Path or str
        Lists.
    out : Path or str
        Lists with scores.
    teachers : mapping of str to Teacher
        By the name under which their scores are written.
    cache : Path or str
        A folder. Scores found there, of the same teacher and the same lists, are not computed again.
    progress : callable, optional
        Called with the number of lists done, counting each once a teacher.

    Returns
    -------
    int
        Lists written.

    Raises
    ------
    DatasetError
        As `read_examples`.
    """
    digest = hashlib.sha256()
    for example in read_examples(path):
        digest.update(json.dumps([example.query, list(example.passages)]).encode())
    columns, n_done = {}, 0
    for name, teacher in teachers.items():
        key = hashlib.sha256(f"{digest.hexdigest()} {teacher.fingerprint}".encode()).hexdigest()[:16]
        columns[name] = Path(cache) / f"{re.sub(r'[^A-Za-z0-9.-]', '_', name)}-{key}.jsonl"
        for n_scored in _fill(columns[name], path, teacher):
            if progress:
                progress(n_done + n_scored)
        n_done += len(_whole_lines(columns[name]))
    n_written = 0
    with writing_records(out) as write:
        rows = [_whole_lines(column) for column in columns.values()]
        for n_written, (example, *scores) in enumerate(zip(read_examples(path), *rows, strict=True), 1):  # noqa: B007
            new = {name: json.loads(line) for name, line in zip(columns, scores, strict=True)}
            write(replace(example, scores={**example.scores, **new}).record)
    return n_written


def _fill(column: Path, path: Path | str, teacher: Teacher) -> Iterator[int]:
    """Append the scores that a cache file lacks, and yield how many lists it has."""
    column.parent.mkdir(parents=True, exist_ok=True)
    done = _whole_lines(column)
    column.write_text("".join(line + "\n" for line in done), encoding="utf-8")  # without a line that a kill cut short
    n_done, examples = len(done), islice(read_examples(path), len(done), None)
    with column.open("a", encoding="utf-8") as file:
        while batch := list(islice(examples, EXAMPLES_AT_ONCE)):
            file.writelines(json.dumps(row) + "\n" for row in teacher.score(batch))
            file.flush()
            n_done += len(batch)
            yield n_done


def _whole_lines(column: Path) -> list[str]:
    if not column.is_file():
        return []
    return column.read_text(encoding="utf-8").split("\n")[:-1]
