"""The commands that look after an index: ``info``, ``check`` and ``compact``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..terminal import audited, compiling, say, write
from .options import Command, add_index, add_reorder

OWN_BLOCK = ("fields", "segments")


def add_upkeep_commands(command: Command) -> None:
    """Add the three commands to the command line."""
    info = command("info", _info, "show what an index is made of", "lexmax info IDX --json")
    add_index(info)
    info.add_argument("--json", action="store_true", help="everything, as JSON")
    add_index(
        command(
            "check",
            _check,
            "verify every checksum and invariant; exit 1 when damaged, 2 when it could not look",
            "lexmax check IDX",
        )
    )
    compact = command("compact", _compact, "merge segments and drop deleted documents", "lexmax compact IDX --reorder")
    add_index(compact)
    add_reorder(compact)


def _info(options: argparse.Namespace) -> int:
    from ...index.multivector.placement import TokenStorage
    from ...index.snapshot import Snapshot

    with compiling():
        facts = Snapshot.open(options.index, storage=TokenStorage()).info()
    if options.json:
        write(json.dumps(facts, ensure_ascii=False, indent=1))
        return 0
    _write_facts({name: value for name, value in facts.items() if name not in OWN_BLOCK})
    for name, field in facts["fields"].items():
        write(f"field {name}")
        _write_facts(field, indent="  ")
    for segment in facts["segments"]:
        write(f"{segment['name']:31}{segment['n_docs']:,} documents, {segment['n_deleted']:,} deleted")
        for name, part in segment["fields"].items():
            write(f"  {name:29}{_contents(part)}")
    return 0


def _write_facts(facts: dict[str, Any], indent: str = "") -> None:
    for name, value in facts.items():
        if name == "calibration":
            value = _calibration(value)
        if name == "audit":
            value = audited(value)
        if name == "warnings":
            value = "; ".join(value) or "none"
        label = f"{indent}{name}"
        write(f"{label:31}{json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}")


def _calibration(record: dict[str, Any] | None) -> str:
    if not record:
        return "none"
    recalls = [each["recall"] for each in record["efforts"]]
    stale = f"; STALE: {record['stale']}" if record["stale"] else ""
    return (
        f"recall@{record['k']} {min(recalls)} to {max(recalls)} at commit {record['generation']}, "
        f"{record['n_queries']} queries ({record['queries']}) against {record['oracle']}{stale}"
    )


def _contents(part: dict[str, Any]) -> str:
    """Return what a part holds, and how far its codes are from what was added."""
    if "drift" in part:
        exact = f", {part['exact_round_trip']:.4f} at 8 bits" if "exact_round_trip" in part else ""
        return (
            f"{part['n_tokens']:,} tokens, residual {part.get('residual', 0):.3f} (drift {part['drift']:+.1%}), "
            f"round trip {part.get('round_trip', 0):.3f}{exact}"
        )
    if "n_vectors" in part:
        return f"{part['n_vectors']:,} vectors, {part['structure']}"
    return f"{part['n_postings']:,} postings, quantisation error {part['quantisation_error'].get('relative', 0):.3%}"


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
