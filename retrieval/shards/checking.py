"""Verifying a set of shards wholly: each shard, and what must hold between them."""

from __future__ import annotations

from pathlib import Path

from ...index.arguments import path_of
from ...index.check import check_index
from ...index.errors import IndexFormatError, IndexNotFoundError, RepresentationError
from . import manifest as sets
from .snapshot import ShardedSnapshot


def check_any(path: Path | str) -> list[str]:
    """Return what is wrong with an index or a set of shards, one sentence per problem; empty when it is sound.

    Errors are those of `check_index`.
    """
    folder = path_of(path)
    if not sets.is_set(folder):
        return check_index(folder)
    try:
        names = [shard.folder for shard in sets.read(folder).shards]
    except IndexFormatError as failure:
        return [str(failure)]
    problems = []
    for name in names:
        try:
            problems += check_index(folder / name)
        except IndexNotFoundError as failure:
            problems.append(str(failure))
    if not problems:
        try:
            ShardedSnapshot.open(folder)
        except (IndexFormatError, RepresentationError) as failure:
            problems.append(str(failure))
    return problems
