"""The command ``feedback``: what was clicked, in a log."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..terminal import say, write
from .options import Command

if TYPE_CHECKING:
    from ..feedback.clicks import Impression, LoggedQuery

KEYS = ("query", "shown", "clicked", "first_rank")
MOST_RANKS = 10


def add_feedback_command(command: Command) -> None:
    """Add the command to the command line."""
    parser = command("feedback", _feedback, "keep a log of what users clicked, for searches with --feedback",
                     "lexmax feedback add clicks.log impressions.jsonl")  # fmt: skip
    parser.add_argument("action", choices=["add", "info", "export", "compact"],
                        help="add: log the impressions of files, making the log if there is none; info: what the log holds; "
                        "export: what it knows of each query, as JSON lines; compact: write it again, one record per query, "
                        "no count lost")  # fmt: skip
    parser.add_argument("log", metavar="LOG", help="file of the log")
    parser.add_argument("file", nargs="*", metavar="FILE",
                        help='add: JSON lines of {"query": ..., "shown": [doc_id, ...], "clicked": '
                        '[doc_id, ...], "first_rank": 1}; the last two may be left out')  # fmt: skip
    parser.add_argument("--json", action="store_true", help="info: JSON instead of text")


def _feedback(options: argparse.Namespace) -> int:
    from ..feedback.log import ClickLog

    if bool(options.file) != (options.action == "add") or (options.json and options.action != "info"):
        raise ValueError("write `lexmax feedback add LOG FILE...`, `info LOG [--json]`, `export LOG` or `compact LOG`")
    if options.action == "add":
        return _add(options)
    log = ClickLog(options.log)
    if options.action == "compact":
        before, after = log.compact()
        say(f"compacted {options.log}: {before:,} -> {after:,} bytes")
    elif options.action == "export":
        for record in log.read().queries.values():
            documents = [
                {"doc_id": doc_id, "rank": rank, "shown": shown, "clicked": clicked}
                for (doc_id, rank), (shown, clicked) in record.counts.items()
            ]
            write(json.dumps({"query": record.query, "n_times": record.n_times, "documents": documents}, ensure_ascii=False))
    else:
        facts = _facts(list(log.read().queries.values())) | {"n_bytes": Path(options.log).stat().st_size}
        _write_facts(facts, as_json=options.json)
    return 0


def _add(options: argparse.Namespace) -> int:
    from ..feedback.log import ClickLog

    impressions = [each for file in options.file for each in _impressions(file)]  # all are sound before one is logged
    ClickLog(options.log, create=True).add(impressions)
    say(f"logged {len(impressions):,} impressions in {options.log}")
    return 0


def _impressions(file: str) -> Iterator[Impression]:
    from ...index.errors import DatasetError
    from ..corpora.lines import KEYED, kind_of
    from ..feedback.clicks import Impression

    path = Path(file)
    if not path.is_file():
        raise DatasetError("no such file", path=path)
    if kind_of(path) != ".jsonl":
        raise DatasetError("impressions are JSON lines, in a file called .jsonl or .jsonl.gz", path=path)
    for line, item in KEYED[".jsonl"](path):
        try:
            if not isinstance(item, Mapping):
                raise item if isinstance(item, ValueError) else ValueError("an impression is an object")
            if unknown := set(item) - set(KEYS):
                raise ValueError(f"an unknown key {min(unknown)!r}: there are {', '.join(KEYS)}")
            if missing := {"query", "shown"} - set(item):
                raise ValueError(f"no {min(missing)!r}")
            yield Impression(**item)
        except (ValueError, TypeError) as error:
            raise DatasetError(str(error), path=path, line=line) from error


def _facts(records: list[LoggedQuery]) -> dict[str, object]:
    shown: dict[int, int] = {}
    clicked: dict[int, int] = {}
    for record in records:
        for (_, rank), (n_shown, n_clicked) in record.counts.items():
            shown[rank] = shown.get(rank, 0) + n_shown
            clicked[rank] = clicked.get(rank, 0) + n_clicked
    rates = {str(rank): round(clicked[rank] / shown[rank], 4) for rank in sorted(shown)[:MOST_RANKS]}
    return {
        "n_queries": len(records),
        "n_impressions": sum(record.n_times for record in records),
        "n_clicks": sum(clicked.values()),
        "clicks_by_rank": rates,
    }


def _write_facts(facts: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        write(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        write(f"{name:31}{json.dumps(value) if isinstance(value, dict) else value}")
