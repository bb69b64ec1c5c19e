"""The commands that look after an index: ``info``, ``check``, ``compact``, ``shards``; and after an installation: ``warm``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..terminal import audited, check_picture, compiling, progress_bar, require_models, say, write
from .options import Command, add_index, add_reorder

KINDS_OF_FIELDS = ("tokens", "dense", "fde", "bm25", "sparse", "sparse-tokens", "nets")
OWN_BLOCK = ("fields", "segments", "shards")


def add_upkeep_commands(command: Command) -> None:
    """Add the commands to the command line."""
    info = command("info", _info, "show what an index is made of", "lexmax info IDX --json")
    add_index(info)
    info.add_argument("--json", action="store_true", help="everything, as JSON")
    info.add_argument("--plot", metavar="FILE", help="draw distributions of postings, tokens and lists, and the calibration "
                      "curve, as PNG, SVG or PDF")  # fmt: skip
    add_index(
        command(
            "check",
            _check,
            "verify every checksum and invariant; exit 1 when damaged, 2 when it could not look",
            "lexmax check IDX",
        )
    )
    shards = command("shards", _shards, "list the shards of a set, take them as they are, or copy them to an object store",
                     "lexmax shards SET --upload s3://bucket/papers")  # fmt: skip
    shards.add_argument("index", metavar="SET", help="folder of the set, which `lexmax build --shards` made")
    chosen = shards.add_mutually_exclusive_group()
    chosen.add_argument("--commit", action="store_true", help="commit the set with its shards as they are now, after one was "
                        "changed by itself")  # fmt: skip
    chosen.add_argument("--upload", metavar="ADDRESS", help="verify the newest commit and copy it to an object store, what "
                        "is not there yet: s3://, gs:// or another address of pyarrow.fs")  # fmt: skip
    chosen.add_argument("--download", metavar="ADDRESS", help="copy the newest commit at ADDRESS to SET, what is not there "
                        "yet, and verify it")  # fmt: skip
    compact = command("compact", _compact, "merge segments and drop deleted documents", "lexmax compact IDX --reorder")
    add_index(compact)
    add_reorder(compact)
    warm = command("warm", _warm, "compile all kernels now, on all cores, instead of when each is first needed",
                   "lexmax warm --encoder lexmax-splade --encoder lexmax-colbert")  # fmt: skip
    warm.add_argument("--field", action="append", choices=KINDS_OF_FIELDS, default=[],
                      help="only kernels of this kind of field; repeatable (default: all)")  # fmt: skip
    warm.add_argument("--encoder", action="append", default=[], metavar="MODEL",
                      help="kernels of this model too, which is loaded for it; repeatable")  # fmt: skip


def _warm(options: argparse.Namespace) -> int:
    import time

    from ...index.kernels import JIT_OFF
    from ..warming import JOBS, warm

    if JIT_OFF:
        raise ValueError("NUMBA_DISABLE_JIT is set, so that nothing is compiled: unset it")
    jobs, begun, n = tuple(options.field) or JOBS, time.monotonic(), 0
    if options.encoder:
        require_models("lexmax warm --encoder")
    say(f"compiling kernels of {', '.join([*options.encoder, *jobs])}: a minute or two where none was compiled before")
    with progress_bar("kinds", total=len(options.encoder) + len(jobs)) as bar:
        for _ in warm(options.encoder, jobs):
            n += 1
            if bar:
                bar(n)
    say(f"compiled in {time.monotonic() - begun:.0f} s; kept for later runs")
    return 0


def _info(options: argparse.Namespace) -> int:
    from ...index.multivector.placement import TokenStorage
    from ...index.snapshot import Snapshot
    from ..shards.snapshot import open_snapshot

    check_picture(options.plot)
    with compiling():
        snapshot = open_snapshot(options.index, storage=TokenStorage())
        facts = snapshot.info()
        if options.plot:
            if not isinstance(snapshot, Snapshot):
                raise ValueError(f"--plot is for an index: name one of the shards of {options.index}")
            from ..distributions import plot_distributions

            plot_distributions(snapshot, options.plot)
            say(f"drew {options.plot}")
    if options.json:
        write(json.dumps(facts, ensure_ascii=False, indent=1))
        return 0
    _write_facts({name: value for name, value in facts.items() if name not in OWN_BLOCK})
    for name, field in facts["fields"].items():
        write(f"field {name}")
        _write_facts(field, indent="  ")
    for shard in facts.get("shards", ()):
        write(f"{shard['folder']:31}{shard['n_docs']:,} documents, {shard['n_deleted']:,} deleted, {shard['n_bytes']:,} bytes")
    for segment in facts.get("segments", ()):
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
    from ..shards.checking import check_any

    with compiling():
        problems = check_any(options.index)
    for problem in problems:
        write(str(problem))
    say(f"{options.index}: " + (f"{len(problems)} problems" if problems else "sound"))
    return 1 if problems else 0


def _shards(options: argparse.Namespace) -> int:
    from ..shards.changing import take_shards
    from ..shards.manifest import read
    from ..shards.remote import download, upload

    with compiling():
        if options.upload:
            shard_set = upload(options.index, options.upload)
        elif options.download:
            shard_set = download(options.download, options.index)
        else:
            shard_set = take_shards(options.index) if options.commit else read(Path(options.index))
    for shard in shard_set.shards:
        write(f"{shard.folder:31}{shard.n_docs:,} documents, commit {shard.generation}")
    n_docs = sum(shard.n_docs for shard in shard_set.shards)
    say(f"{options.index}: commit {shard_set.generation} of the set, {n_docs:,} documents")
    return 0


def _compact(options: argparse.Namespace) -> int:
    from ...index.collection import Collection
    from ..shards.changing import compact_shards
    from ..shards.manifest import is_set

    if is_set(Path(options.index)):
        with compiling():
            n_docs = sum(shard.n_docs for shard in compact_shards(options.index, reorder=options.reorder).shards)
        say(f"compacted all shards of {options.index}: {n_docs:,} documents")
        return 0
    with compiling(), Collection.open(options.index) as collection:
        before = len(collection.manifest.segments)
        collection.compact(reorder=options.reorder)
        after = collection.commit()
    say(f"compacted {options.index}: {before} -> {len(after.segments)} segments, {after.n_docs:,} documents")
    return 0
