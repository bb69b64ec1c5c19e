"""The plan of a build of shards: how many documents there are, and from where each shard reads them.

It stands in the set's folder from the first pass over the corpus on, so an interrupted build goes on by it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from ...index.errors import DatasetError
from ...index.storage import replace_file
from ..build import BuildReport
from ..corpora.reading import BadRecords, Fields, Position, read_corpus
from . import manifest as sets

PLAN = "plan.json"
STEP = 10_000
"""Documents between the places that a corpus can be read from."""


class Start(NamedTuple):
    """A place to read a corpus from: how many documents are before it, and where that is."""

    n_before: int
    position: Position


def count(
    names: list[str], n_shards: int, fields: Fields | None, bad: BadRecords | None, notice: Callable[[str], None] | None
) -> tuple[int, list[Start | None]]:  # fmt: skip
    """Count documents; returns a start for each shard too."""
    if "-" in names:
        raise DatasetError("standard input is read once, and shards read their corpus twice: write it to a file")
    corpus, n_docs, passed = read_corpus(names, fields=fields, bad=bad, notice=notice), 0, list[Start]()
    for n_docs, _ in enumerate(corpus, 1):
        if n_docs % STEP == 0 and (position := corpus.position) is not None:
            passed.append(Start(n_docs, position))
    if not n_docs:
        raise DatasetError(f"{', '.join(names)}: there are no documents to make shards of")
    cuts = cuts_of(n_docs, min(n_shards, n_docs))[:-1]
    return n_docs, [max((each for each in passed if each.n_before <= cut), default=None, key=_n_before) for cut in cuts]


def cuts_of(n_docs: int, n_shards: int) -> list[int]:
    """Return the first document of each shard, and after them the number of all."""
    return [n_docs * number // n_shards for number in range(n_shards + 1)]


def planned(
    folder: Path, settings: dict[str, Any], count: Callable[[], tuple[int, list[Start | None]]]
) -> tuple[int, list[Start | None]]:  # fmt: skip
    """Documents of the corpus and where shards start, of the plan of an unfinished run or else counted.

    Raises FileExistsError for another plan.
    """
    plan = folder / PLAN
    if plan.exists():
        known = json.loads(plan.read_bytes())
        n_docs, starts = known.pop("n_docs", None), known.pop("starts", None)
        if known != json.loads(json.dumps(settings)) or type(n_docs) is not int or type(starts) is not list:
            raise FileExistsError(
                f"{folder} holds an unfinished build of shards with other settings: run that again to finish it, or remove it"
            )
        return n_docs, [None if each is None else _start(*each) for each in starts]
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: shards go into a folder of their own")
    n_docs, starts = count()
    folder.mkdir(parents=True, exist_ok=True)
    told = [None if each is None else _told(each) for each in starts]
    replace_file(plan, json.dumps({**settings, "n_docs": n_docs, "starts": told}).encode())
    return n_docs, starts


def _told(start: Start) -> list[Any]:
    """A start as JSON."""
    position = start.position
    return [start.n_before, position.source, position.path, position.line, asdict(position.fields)]


def _start(n_before: int, source: int, path: str, line: int, fields: dict[str, Any]) -> Start:
    return Start(n_before, Position(source, path, line, Fields.from_dict(fields)))


def _n_before(start: Start) -> int:
    return start.n_before


def finished(folder: Path, settings: dict[str, Any]) -> BuildReport:
    """Report of a set that an earlier run finished; FileExistsError for another one."""
    plan = folder / PLAN
    known = json.loads(plan.read_bytes()) if plan.exists() else {}
    for name in ("n_docs", "starts"):
        known.pop(name, None)
    if known != json.loads(json.dumps(settings)):
        raise FileExistsError(f"{folder} holds a set of shards already: remove it, or choose another folder")
    n_docs = sum(shard.n_docs for shard in sets.read(folder).shards)
    return BuildReport(n_added=0, n_resumed=n_docs, finished=True)
