"""Queries from files: JSON lines or arrays, CSV, TSV, and plain lines of text."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...index.errors import DatasetError
from .lines import KEYED, Columns, decoded, kind_of, opened, raw_lines, tsv_cells
from .records import id_of, recognised

ID_KEYS = ("_id", "id", "query_id", "qid")
TEXT_KEYS = ("text", "query")


class Query(NamedTuple):
    """A query and its id."""

    query_id: str
    text: str


def read_queries(path: str | os.PathLike[str], *, notice: Callable[[str], None] | None = None) -> list[Query]:
    """Read queries.

    Parameters
    ----------
    path : path
        ``.jsonl``, ``.ndjson``, ``.json`` or ``.csv`` with an id (``_id``, ``id``, ``query_id`` or ``qid``) and a text
        (``text`` or ``query``); ``.tsv`` of ``id TAB text`` or with a header; ``.txt``, a query per line, whose ids are
        "1", "2", ... Each also ``.gz``. Blank lines are skipped.
    notice : callable, optional
        Called with a sentence when other keys than ``_id`` and ``text`` were recognised.

    Raises
    ------
    DatasetError
        The file is missing, of no known kind, damaged or without a query; a query is malformed, empty, or its id comes twice.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError("no such file", path=path)
    queries: list[Query] = []
    seen: dict[str, int] = {}
    line = 0
    reader = _QueryReader(path, notice)
    try:
        for line, item in _items(path):
            query = reader.query(item, line)
            if query is None:
                continue
            if query.query_id in seen:
                message = f"the query id {query.query_id!r} is on line {seen[query.query_id]} already"
                raise DatasetError(message, path=path, line=line)
            seen[query.query_id] = line
            queries.append(query)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"cannot be read on: {error}", path=path, line=line + 1) from error
    if not queries:
        raise DatasetError("there are no queries", path=path, line=line or 1)
    return queries


def _items(path: Path) -> Iterator[tuple[int, Any]]:
    kind = kind_of(path)
    if kind in KEYED:
        return KEYED[kind](path)
    if kind == ".tsv":
        return tsv_cells(path, ID_KEYS, TEXT_KEYS, (2,))
    if kind == ".txt":
        return _plain(path)
    raise DatasetError("unknown kind of query file; use .jsonl, .json, .csv, .tsv or .txt (or .gz of them)", path=path)


def _plain(path: Path) -> Iterator[tuple[int, Query | ValueError]]:
    n = 0
    with opened(path) as file:
        for line, data in enumerate(raw_lines(file.readline), 1):
            try:
                text = decoded(data).strip()
            except ValueError as error:
                yield line, error
                continue
            if text:
                n += 1
                yield line, Query(str(n), text)


class _QueryReader:
    """Makes queries of the items of a file; chooses keys from the first one."""

    def __init__(self, path: Path, notice: Callable[[str], None] | None) -> None:
        self._path, self._notice = path, notice
        self._keys: tuple[str, str] | None = None

    def query(self, item: Any, line: int) -> Query | None:
        """Return a query; None for a header."""
        try:
            if isinstance(item, ValueError):
                raise item
            if isinstance(item, Columns):
                self._keys = self._choose(item)
                return None
            query = item if isinstance(item, Query) else self._made(item)
            if not query.text.strip():
                raise ValueError(f"the text of query {query.query_id!r} is empty")
        except ValueError as error:
            raise DatasetError(str(error), path=self._path, line=line) from error
        return query

    def _made(self, item: Mapping[str, Any] | list[str]) -> Query:
        if isinstance(item, list):
            return Query(item[0], item[1])
        if self._keys is None:
            self._keys = self._choose(list(item))
        query_id, text = id_of(item, self._keys[0]), item.get(self._keys[1])
        if not isinstance(text, str):
            raise ValueError(f"{self._keys[1]!r} must be a string, found {repr(text)[:40]}")
        return Query(query_id, text)

    def _choose(self, keys: Sequence[str]) -> tuple[str, str]:
        chosen = []
        for what, candidates in (("id", ID_KEYS), ("text", TEXT_KEYS)):
            found = recognised(keys, candidates)
            if not found:
                there = ", ".join(repr(key)[:40] for key in list(keys)[:12])
                raise ValueError(f"a query has no {what}: none of {', '.join(map(repr, candidates))} is among {there}")
            chosen.append(found[0])
        if chosen != ["_id", "text"] and self._notice:
            self._notice(f"{self._path}: id from {chosen[0]!r}, text from {chosen[1]!r}")
        return chosen[0], chosen[1]
