"""Rankings of many queries as TREC run files.

::

    query_id Q0 doc_id rank score tag      ranks from 1, best first
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..index.errors import DatasetError

Run = Mapping[str, Sequence[tuple[str, float]]]  # query_id -> (doc_id, score), best first


def write_run(path: Path | str, run: Run, *, tag: str) -> None:
    """Write a TREC run file; scores keep every digit, so the order survives.

    Parameters
    ----------
    tag : str
        Names the system in the last column: the fingerprint of the index. No white space.

    Raises
    ------
    ValueError
        When the tag is empty or holds white space.
    DatasetError
        When an id does; nothing is written then.
    """
    if len(tag.split()) != 1:
        raise ValueError(f"the tag of a run must be one word, not {tag!r}")
    check_ids(run, (doc_id for ranking in run.values() for doc_id, _ in ranking))
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for query_id, ranking in run.items():
            for rank, (doc_id, score) in enumerate(ranking, 1):
                file.write(f"{query_id} Q0 {doc_id} {rank} {float(score)!r} {tag}\n")


def check_ids(query_ids: Mapping[str, object], doc_ids: Iterator[str]) -> None:
    """Raise DatasetError for ids that hold white space, by which fields of a TREC file are separated."""
    for an_id in (*query_ids, *doc_ids):
        if len(an_id.split()) != 1:
            raise DatasetError(f"a TREC file cannot carry the id {an_id!r}: its fields are separated by white space")
