"""Training files: JSON lines, plain or gzipped, of one of three kinds.

::

    pairs       {"query": ..., "positive": text}
    triplets    {"query": ..., "positive": text, "negative": text or [text, ...]}
    lists       {"query": ..., "passages": [text, ...], "scores": {teacher: [float, ...]}, "positive": number of a passage}

A list needs ``scores`` or ``positive``; without the latter the passage that the teachers like best is the positive. A field of
another name is an error: what it says would not be learnt.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arrays import Floats
from ...index.errors import DatasetError
from ...index.nearest import did_you_mean

EPSILON = 1e-6
FIELDS = {"pair": ("query", "positive", "negative"), "list": ("query", "passages", "scores", "positive")}


@dataclass(frozen=True, kw_only=True)
class Example:
    """A query and what is known of some passages.

    Attributes
    ----------
    query : str
    passages : sequence of str
    scores : mapping of str to sequence of float
        Teacher -> a score for each passage.
    positive : int or None
        Number of the relevant passage; None when only teachers know.
    """

    query: str
    passages: Sequence[str]
    scores: dict[str, list[float]] = field(default_factory=dict)
    positive: int | None = 0

    @property
    def positive_passage(self) -> str:
        """The relevant passage, or the one that the teachers like best."""
        return self.passages[best_passage(self) if self.positive is None else self.positive]

    @property
    def record(self) -> dict[str, Any]:
        """The example as a record of a file of lists."""
        record: dict[str, Any] = {"query": self.query, "passages": list(self.passages)}
        if self.scores:
            record["scores"] = self.scores
        return record if self.positive is None else {**record, "positive": self.positive}


def read_examples(path: Path | str) -> Iterator[Example]:
    """Read a file of any kind, line by line; blank lines are passed over.

    Raises
    ------
    DatasetError
        When there is no such file, it is damaged, or a line is malformed: path and line.
    """
    return (_parse(line, Path(path), number) for number, line in _lines(Path(path)))


@contextmanager
def writing_records(path: Path | str) -> Iterator[Callable[[Any], object]]:
    """Give a function that writes a record as a line, gzipped where the name says so; the file is there when all are in."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with gzip.open(part, "wt", encoding="utf-8") if path.suffix == ".gz" else part.open("w", encoding="utf-8") as file:
        yield lambda record: file.write(json.dumps(record, ensure_ascii=False) + "\n")
    part.replace(path)


class TrainingSet:
    """Examples of one or several files, by number.

    Every line is read and checked at the start. Of plain files only offsets are kept; gzipped ones stay in memory.

    Parameters
    ----------
    paths : sequence of Path or str
        All of pairs, or all of triplets or lists with the same teachers.

    Attributes
    ----------
    teachers : tuple of str
        In the order of their names.
    n_passages : int
        Passages of the shortest list.
    digest : str
        Hash of all lines.

    Raises
    ------
    DatasetError
        As `read_examples`; or the files are empty, or differ in kind or teachers.
    """

    def __init__(self, paths: Sequence[Path | str]) -> None:
        self._where: list[tuple[Path, int, int | bytes]] = []  # file, line, offset or content
        self.n_passages = 0
        digest = hashlib.sha256()
        kind: tuple[bool, tuple[str, ...]] | None = None
        for path in map(Path, paths):
            offset = 0
            for number, line in _lines(path, keep_blank=True):
                start, offset = offset, offset + len(line)
                if not line.strip():
                    continue
                example = _parse(line, path, number)
                own = (len(example.passages) == 1, tuple(sorted(example.scores)))
                if kind is not None and own != kind:
                    raise DatasetError("pairs, and lists of different teachers, do not mix", path=path, line=number)
                kind = own
                self.n_passages = min(self.n_passages or len(example.passages), len(example.passages))
                self._where.append((path, number, line if path.suffix == ".gz" else start))
                digest.update(line)
        if kind is None:
            raise DatasetError(f"no examples in {', '.join(map(str, paths)) or 'no files'}")
        self.teachers, self.digest = kind[1], digest.hexdigest()

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, number: int) -> Example:
        path, line, where = self._where[number]
        if isinstance(where, bytes):
            return _parse(where, path, line)
        with path.open("rb") as file:
            file.seek(where)
            return _parse(file.readline(), path, line)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``n`` queries with ``k`` passages each.

    Attributes
    ----------
    queries : list of str
    passages : list of str
        ``n * k``, those of one query after the other's; each query's first is its positive.
    teachers : (n_teachers, n, k) float32
        Raw scores. No teachers: shape (0, n, k).
    relative : (n_teachers, n, k) float32
        The same, each teacher's brought to 0..1 over the query's whole list, drawn passages and others.
    excluded : (n, n * k) bool
        Passages that are no negatives of a query: copies of its positive, and positives of the same query elsewhere.
    """

    queries: list[str]
    passages: list[str]
    teachers: Floats
    relative: Floats
    excluded: np.ndarray[Any, np.dtype[np.bool_]]


class Batches:
    """Batches of a shuffled set: batch ``i`` depends on the seed and ``i`` alone, so a run resumes anywhere.

    Parameters
    ----------
    data : TrainingSet
    batch_size : int
        Queries; what is left of an epoch is dropped.
    n_passages : int
        Passages of each query: the positive, and others drawn anew in each epoch.
    seed : int

    Raises
    ------
    ValueError
        More than the set has of examples, or of passages in its shortest list.
    """

    def __init__(self, data: TrainingSet, *, batch_size: int, n_passages: int, seed: int) -> None:
        if not 1 <= batch_size <= len(data):
            raise ValueError(f"batch_size is {batch_size}: it must be 1 to {len(data)}, the number of examples")
        if not 1 <= n_passages <= data.n_passages:
            raise ValueError(f"n_passages is {n_passages}: it must be 1 to {data.n_passages}, the size of the shortest list")
        self.data, self.batch_size, self.n_passages, self.seed = data, batch_size, n_passages, seed
        self.per_epoch = len(data) // batch_size
        self._shuffled: tuple[int, np.ndarray[Any, np.dtype[np.int64]]] = (-1, np.empty(0, np.int64))

    def __getitem__(self, number: int) -> Batch:
        epoch, place = divmod(number, self.per_epoch)
        if self._shuffled[0] != epoch:
            self._shuffled = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.data))
        numbers = self._shuffled[1][place * self.batch_size : (place + 1) * self.batch_size]
        queries: list[str] = []
        passages: list[str] = []
        teachers = np.empty((len(self.data.teachers), len(numbers), self.n_passages), np.float32)
        relative = np.empty_like(teachers)
        for row, i in enumerate(numbers.tolist()):
            example = self.data[i]
            picks = self._picks(example, np.random.default_rng([self.seed, epoch, i]))
            queries.append(example.query)
            passages += [example.passages[pick] for pick in picks]
            for line, name in enumerate(self.data.teachers):
                teachers[line, row] = np.array(example.scores[name])[picks]
                relative[line, row] = to_unit_range(example.scores[name])[picks]
        excluded = _excluded(queries, passages, self.n_passages)
        return Batch(queries=queries, passages=passages, teachers=teachers, relative=relative, excluded=excluded)

    def _picks(self, example: Example, rng: np.random.Generator) -> list[int]:
        positive = best_passage(example) if example.positive is None else example.positive
        others = [i for i in range(len(example.passages)) if i != positive]
        return [positive, *(others[i] for i in rng.permutation(len(others))[: self.n_passages - 1])]


def best_passage(example: Example) -> int:
    """Passage that the teachers put first, each with its scores brought to 0..1."""
    return int(sum(map(to_unit_range, example.scores.values()), np.zeros(len(example.passages))).argmax())


def to_unit_range(scores: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scores of one list brought to 0..1, (n,) float64; equal ones are 0 (arXiv 2411.04403, section 3)."""
    values = np.array(scores, np.float64)
    scaled: np.ndarray[Any, np.dtype[np.float64]] = (values - values.min()) / (np.ptp(values) + EPSILON)
    return scaled


def _excluded(queries: Sequence[str], passages: Sequence[str], n_passages: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    positives = passages[::n_passages]
    excluded = np.zeros((len(queries), len(passages)), np.bool_)
    for i, query in enumerate(queries):
        known = {positive for other, positive in zip(queries, positives, strict=True) if other == query}
        excluded[i] = [passage in known for passage in passages]
        excluded[i, i * n_passages] = False
    return excluded


def _lines(path: Path, *, keep_blank: bool = False) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if keep_blank or line.strip():
                    yield number, line
    except FileNotFoundError as error:
        raise DatasetError("no such file", path=path) from error
    except (OSError, EOFError, zlib.error) as error:  # a truncated or damaged gzip stream, a failing disk
        raise DatasetError(f"cannot be read on: {error}", path=path, line=number + 1) from error


def _parse(line: bytes, path: Path, number: int) -> Example:
    try:
        return _example(json.loads(line))
    except (ValueError, OverflowError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        raise DatasetError(str(error), path=path, line=number) from error


def _example(record: Any) -> Example:
    if not isinstance(record, dict) or not isinstance(record.get("query"), str):
        raise ValueError("expected an object with a string 'query'")
    kind = "list" if "passages" in record else "pair"
    _refuse_unknown_fields(record, FIELDS[kind])
    return _listed(record) if kind == "list" else _paired(record)


def _refuse_unknown_fields(record: dict[str, Any], known: Sequence[str]) -> None:
    unknown = [name for name in record if name not in known]
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise ValueError(f"unknown field {names}{did_you_mean(unknown[0].lower(), known)}; there are {', '.join(known)}")


def _paired(record: dict[str, Any]) -> Example:
    positive, negatives = record.get("positive"), record.get("negative", [])
    if not isinstance(positive, str):
        raise ValueError("expected 'positive' to be a text, or 'passages' a list of texts")
    negatives = [negatives] if isinstance(negatives, str) else negatives
    if not isinstance(negatives, list) or not all(isinstance(text, str) for text in negatives):
        raise ValueError("expected 'negative' to be a text or a list of texts")
    return Example(query=record["query"], passages=[positive, *negatives])


def _listed(record: dict[str, Any]) -> Example:
    passages, scores, positive = record["passages"], record.get("scores") or {}, record.get("positive")
    if not isinstance(passages, list) or len(passages) < 2 or not all(isinstance(passage, str) for passage in passages):
        raise ValueError("expected 'passages' to be a list of two or more texts")
    if not isinstance(scores, dict) or not all(_are_scores(row, len(passages)) for row in scores.values()):
        raise ValueError(f"expected 'scores' to map a teacher to {len(passages)} finite numbers, one a passage")
    if positive is None and not scores:
        raise ValueError("a list needs 'scores' or 'positive'")
    if positive is not None and (type(positive) is not int or not 0 <= positive < len(passages)):
        raise ValueError(f"expected 'positive' to be the number of a passage, 0 to {len(passages) - 1}, found {positive!r}")
    return Example(query=record["query"], passages=passages, scores=scores, positive=positive)


def _are_scores(row: Any, n_passages: int) -> bool:
    return (
        isinstance(row, list)
        and len(row) == n_passages
        and all(type(score) in (int, float) and math.isfinite(score) for score in row)
    )
