"""Compaction: merge segments in order, leave deleted documents out, and weigh BM25 anew.

The merged segment is, array for array, what a build of the live documents would have written (for model weights, at the
index's scale), because document rows keep what the impacts were made from. Documents keep their order, or are put in the
one that graph bisection finds, in which blocks hold similar documents and block maxima bound tightly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from .bm25 import Bm25
from .documents import BATCH_ROWS, conform, write_batches
from .inverted import ImpactRows, write_inverted
from .manifest import SegmentRecord
from .reorder import bisection_order
from .segments import Segment, weigh_counts
from .storage import sync_folder
from .strings import StringTable

MAX_SEGMENT_POSTINGS = 1 << 27
"""A merge holds its postings in memory, about 12 bytes each; larger indexes keep several segments."""


def plan_merges(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Group neighbouring segments so that each group's live postings fit one segment; order is kept."""
    groups: list[list[Segment]] = []
    size = 0
    for segment in segments:
        if not groups or size + segment.record.n_postings > MAX_SEGMENT_POSTINGS:
            groups.append([])
            size = 0
        groups[-1].append(segment)
        size += segment.record.n_postings
    return groups


def merge_segments(
    index: Path, name: str, segments: Sequence[Segment], fields: dict[str, str], *,
    scale: float, bm25: Bm25 | None, average_length: float, reorder: bool = False,
) -> SegmentRecord:  # fmt: skip
    """Write the merger of ``segments``, whose sources are verified first, and make it durable.

    Raises
    ------
    IndexFormatError
        A source is damaged: nothing is written over it.
    """
    for segment in segments:
        segment.inverted.file.verify()
        segment.documents.file.verify()
    rows = _concatenate([segment.inverted.rows(segment.live) for segment in segments])
    error = _mean_error(segments)
    total = 0
    if bm25 is not None and rows.lengths is not None:
        rows, error = weigh_counts(rows, bm25, average_length, scale)
        total = int(rows.lengths.sum(dtype=np.int64)) if rows.lengths is not None else 0
    batches = conform(_live_batches(segments), fields)
    doc_ids = [doc_id for segment in segments for doc_id in _live_ids(segment)]
    if reorder:
        terms, ranks = rows.ranks()
        order = bisection_order(rows.indptr, ranks, len(terms))
        rows, doc_ids = rows.take(order), [doc_ids[i] for i in order.tolist()]
        batches = iter(pa.Table.from_batches(batches).take(pa.array(order)).to_batches(BATCH_ROWS))
    folder = index / name
    folder.mkdir()
    write_inverted(folder / "inverted.lex", rows)
    write_batches(folder, batches, fields)
    StringTable.of(doc_ids).write(folder / "doc_ids.lex")
    sync_folder(folder)
    sync_folder(index)
    return SegmentRecord(
        name=name, n_docs=len(doc_ids), n_postings=len(rows.terms), total_length=total, reordered=reorder, error=error
    )


def _live_batches(segments: Sequence[Segment]) -> Iterator[pa.RecordBatch]:
    for segment in segments:
        first = 0
        for batch in segment.documents.batches:
            live = None if segment.live is None else segment.live[first : first + batch.num_rows]
            yield batch if live is None or live.all() else batch.filter(pa.array(live))
            first += batch.num_rows


def _live_ids(segment: Segment) -> list[str]:
    column = segment.documents.doc_ids.to_arrow()
    kept: list[str] = (column if segment.live is None else column.filter(pa.array(segment.live))).to_pylist()
    return kept


def _concatenate(parts: Sequence[ImpactRows]) -> ImpactRows:
    indptr = np.zeros(sum(len(part.indptr) - 1 for part in parts) + 1, np.int64)
    np.cumsum(np.concatenate([np.diff(part.indptr) for part in parts]), out=indptr[1:])
    counts = [part.counts for part in parts if part.counts is not None]
    lengths = [part.lengths for part in parts if part.lengths is not None]
    return ImpactRows(
        indptr=indptr,
        terms=np.concatenate([part.terms for part in parts]),
        impacts=np.concatenate([part.impacts for part in parts]),
        counts=np.concatenate(counts) if counts else None,
        lengths=np.concatenate(lengths) if lengths else None,
    )


def _mean_error(segments: Sequence[Segment]) -> dict[str, float]:
    """Posting-weighted mean of the sources' errors, their maximum for ``max_absolute``."""
    sizes = np.array([max(segment.record.n_postings, 1) for segment in segments], float)
    names = segments[0].record.error
    table = {name: [segment.record.error.get(name, 0.0) for segment in segments] for name in names}
    means = {name: float(np.average(values, weights=sizes)) for name, values in table.items()}
    return {**means, "max_absolute": max(table["max_absolute"])} if "max_absolute" in table else means
