"""Runs and judgments, in memory and as TREC files.

::

    run    query_id Q0 doc_id rank score tag      ranks from 1, best first
    qrels  query_id 0 doc_id relevance            also BEIR's query_id doc_id relevance

Fields are separated by white space, so no id that is written may hold any.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..index.errors import DatasetError
from ..retrieval.runs import Run, check_ids, write_run

__all__ = ["Judgment", "Qrels", "Run", "judgments", "read_qrels", "read_run", "write_qrels", "write_run"]

Qrels = Mapping[str, Mapping[str, int]]  # query_id -> doc_id -> relevance; above 0 is relevant
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}").fullmatch
_QUERY_NAMES = {"query-id", "queryid", "qid", "query", "topic", "topic-id", "topicid"}
_RELEVANCE_NAMES = {"score", "relevance", "rel", "label", "grade", "rating", "judgment", "judgement", "qrel", "gain"}


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


class Judgment(NamedTuple):
    """One line of a qrels file, counted from 1."""

    line: int
    query_id: str
    doc_id: str
    relevance: int


def read_qrels(path: Path | str) -> dict[str, dict[str, int]]:
    """Read judgments; see `judgments` for the forms and errors."""
    qrels: dict[str, dict[str, int]] = {}
    for _, query_id, doc_id, relevance in judgments(path):
        qrels.setdefault(query_id, {})[doc_id] = relevance
    return qrels


def judgments(path: Path | str) -> Iterator[Judgment]:
    """Read a qrels file in one of two forms, the same for all lines; blank lines are skipped.

    TREC's has four columns, query_id, iteration, doc_id, relevance; BEIR's has three, query_id, doc_id, relevance, often below
    a header such as ``query-id corpus-id score``. Columns are separated by tabs (ids may then hold spaces) or by white space.

    Raises
    ------
    DatasetError
        The file is missing or not UTF-8; a line has another number of columns, an empty id, or a relevance that is no integer;
        a pair is judged in two ways; the first line is neither a judgment nor a header with a known name.
    """
    seen: dict[tuple[str, str], int] = {}
    width = 0
    for line, text in _lines(path):
        cells = text.split("\t")
        if len(cells) not in (3, 4) or (width and len(cells) != width):
            cells = text.split()
        if len(cells) not in ((width,) if width else (3, 4)):
            expected = width or "3 (BEIR) or 4 (TREC)"
            raise DatasetError(f"{expected} columns are expected, found {len(cells)}", path=path, line=line)
        is_first, width = not width, len(cells)
        if is_first and _is_header(cells):
            continue
        query_id, doc_id = cells[0], cells[-2]
        if not query_id.strip() or not doc_id.strip():
            raise DatasetError("an id is empty", path=path, line=line)
        if not _INTEGER(cells[-1].strip()):
            raise DatasetError(f"the relevance must be an integer, found {cells[-1][:40]!r}", path=path, line=line)
        relevance = int(cells[-1])
        earlier = seen.setdefault((query_id, doc_id), relevance)
        if earlier != relevance:
            message = f"query {query_id!r} and document {doc_id!r} are judged {relevance}, and {earlier} before"
            raise DatasetError(message, path=path, line=line)
        yield Judgment(line, query_id, doc_id, relevance)


def _is_header(cells: list[str]) -> bool:
    names = [cell.strip().lower().replace("_", "-") for cell in cells]
    return not _INTEGER(names[-1]) and (names[0] in _QUERY_NAMES or names[-1] in _RELEVANCE_NAMES)


def _lines(path: Path | str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) of each line that is not blank; a byte order mark is skipped."""
    number = 1
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                text = str(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except FileNotFoundError as error:
        raise DatasetError("no such file", path=path) from error
    except UnicodeDecodeError as error:
        raise DatasetError("not UTF-8", path=path, line=number) from error


def _rows(path: Path | str, n_fields: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of each line that is not blank."""
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != n_fields:
            raise DatasetError(f"{n_fields} fields are expected, found {len(fields)}", path=path, line=number)
        yield number, fields
