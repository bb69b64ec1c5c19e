"""Runs and judgments, in memory and as TREC files.

::

    run    query_id Q0 doc_id rank score tag      ranks from 1, best first
    qrels  query_id 0 doc_id relevance

Fields are separated by white space, so no id may hold any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..index.errors import DatasetError
from ..retrieval.runs import Run, check_ids, write_run

__all__ = ["Qrels", "Run", "add_judgment", "read_qrels", "read_run", "write_qrels", "write_run"]

Qrels = Mapping[str, Mapping[str, int]]  # query_id -> doc_id -> relevance; above 0 is relevant


def read_run(path: Path | str) -> dict[str, list[tuple[str, float]]]:
    """Read a TREC run file of any system.

    As in trec_eval the score orders a ranking; where scores tie, the written rank does.

    Raises
    ------
    DatasetError
        When a line has not six fields, a rank or a score is no number, or a query names a document twice.
    """
    entries: dict[str, dict[str, tuple[float, int]]] = {}
    for line, (query_id, _, doc_id, rank, score, _) in _rows(path, 6):
        ranking = entries.setdefault(query_id, {})
        if doc_id in ranking:
            raise DatasetError(f"document {doc_id!r} is ranked twice for query {query_id!r}", path=path, line=line)
        try:
            ranking[doc_id] = (float(score), int(rank))
        except ValueError as error:
            raise DatasetError(f"rank and score must be numbers, found {rank!r} {score!r}", path=path, line=line) from error
        if not math.isfinite(ranking[doc_id][0]):
            raise DatasetError(f"the score must be finite, found {score!r}", path=path, line=line)
    return {
        query_id: [
            (doc_id, score) for doc_id, (score, _) in sorted(ranking.items(), key=lambda item: (-item[1][0], item[1][1]))
        ]
        for query_id, ranking in entries.items()
    }


def write_qrels(path: Path | str, qrels: Qrels) -> None:
    """Write judgments as a TREC qrels file.

    Raises
    ------
    DatasetError
        When an id holds white space; nothing is written then.
    """
    check_ids(qrels, (doc_id for judged in qrels.values() for doc_id in judged))
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for query_id, judged in qrels.items():
            for doc_id, relevance in judged.items():
                file.write(f"{query_id} 0 {doc_id} {relevance}\n")


def read_qrels(path: Path | str) -> dict[str, dict[str, int]]:
    """Read a TREC qrels file.

    Raises
    ------
    DatasetError
        When a line has not four fields, a relevance is no integer, or a pair is judged in two ways.
    """
    qrels: dict[str, dict[str, int]] = {}
    for line, (query_id, _, doc_id, relevance) in _rows(path, 4):
        add_judgment(qrels, query_id, doc_id, relevance, path=path, line=line)
    return qrels


def add_judgment(
    qrels: dict[str, dict[str, int]],
    query_id: str,
    doc_id: str,
    relevance: str,
    *,
    path: Path | str,
    line: int,
) -> None:
    """Add one line of a qrels file to ``qrels``; saying the same twice is allowed.

    Raises
    ------
    DatasetError
        When the relevance is no integer, or differs from an earlier line's.
    """
    try:
        value = int(relevance)
    except ValueError as error:
        raise DatasetError(f"the relevance must be an integer, found {relevance!r}", path=path, line=line) from error
    earlier = qrels.setdefault(query_id, {}).setdefault(doc_id, value)
    if earlier != value:
        raise DatasetError(
            f"query {query_id!r} and document {doc_id!r} are judged {value}, and {earlier} before",
            path=path,
            line=line,
        )


def _rows(path: Path | str, n_fields: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of each line that is not blank."""
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                fields = str(line, "utf-8").split()
                if fields and len(fields) != n_fields:
                    raise DatasetError(f"{n_fields} fields are expected, found {len(fields)}", path=path, line=number)
                if fields:
                    yield number, fields
    except FileNotFoundError as error:
        raise DatasetError("no such file", path=path) from error
    except UnicodeDecodeError as error:
        raise DatasetError("not UTF-8", path=path, line=number) from error
