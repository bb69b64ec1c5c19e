"""The commands that look after an index: ``info``, ``check`` and ``compact``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..terminal import compiling, say, write
from .options import Command, add_index, add_reorder


def add_upkeep_commands(command: Command) -> None:
    """Add the three commands to the command line."""
    info = command("info", _info, "show what an index is made of", "lexmax info IDX --json")
    add_index(info)
    info.add_argument("--json", action="store_true", help="everything, as JSON")
    add_index(command("check", _check, "verify every checksum and invariant; exit 1 when damaged", "lexmax check IDX"))
    compact = command("compact", _compact, "merge segments and drop deleted documents", "lexmax compact IDX --reorder")
    add_index(compact)
    add_reorder(compact)


def _info(options: argparse.Namespace) -> int:
    from ...index.snapshot import Snapshot

    with compiling():
        facts = Snapshot.open(options.index).info()
    if options.json:
        write(json.dumps(facts, ensure_ascii=False, indent=1))
        return 0
    for name, value in facts.items():
        if name == "calibration":
            recalls = [row["recall@10"] for row in value or []]
            value = f"recall@10 {min(recalls)} to {max(recalls)}: `lexmax calibrate` shows them" if recalls else "none"
        if name != "segments":
            write(f"{name:28}{json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}")
    for segment in facts["segments"]:
        write(f"{segment['name']:28}{segment['n_docs']:,} documents, {segment['n_deleted']:,} deleted, {_contents(segment)}")
    return 0


def _contents(segment: dict[str, Any]) -> str:
    """Return what a segment holds, and how far its codes are from what was added."""
    if "drift" in segment:
        exact = f", {segment['exact_round_trip']:.4f} at 8 bits" if "exact_round_trip" in segment else ""
        return (
            f"{segment['n_tokens']:,} tokens, residual {segment.get('residual', 0):.3f} (drift {segment['drift']:+.1%}), "
            f"round trip {segment.get('round_trip', 0):.3f}{exact}"
        )
    return f"{segment['n_postings']:,} postings, quantisation error {segment['quantisation_error'].get('relative', 0):.3%}"


def _check(options: argparse.Namespace) -> int:
    from ...index.check import check_index

    with compiling():
        problems = check_index(options.index)
    for problem in problems:
        write(str(problem))
    say(f"{options.index}: " + (f"{len(problems)} problems" if problems else "sound"))
    return 1 if problems else 0


def _compact(options: argparse.Namespace) -> int:
    from ...index.collection import Collection

    with compiling(), Collection.open(options.index) as collection:
        before = len(collection.manifest.segments)
        collection.compact(reorder=options.reorder)
        after = collection.commit()
    say(f"compacted {options.index}: {before} -> {len(after.segments)} segments, {after.n_docs:,} documents")
    return 0
