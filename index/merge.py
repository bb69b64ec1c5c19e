"""Compaction: merge segments in order, leave deleted documents out, weigh BM25 anew, cluster tokens anew when it is time.

The merged segment is, array for array, what a build of the live documents would have written (for model weights, at the
index's scale), because document rows keep what the impacts were made from. Documents keep their order, or are put in the
one that graph bisection finds, in which blocks hold similar documents and block maxima bound tightly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from .arrays import Int32s
from .documents import BATCH_ROWS, conform, write_batches
from .manifest import SegmentRecord
from .multivector.residual import Codec
from .multivector.tokens import MAX_SEGMENT_TOKENS, MultiVectorConfig, encode_anew, merge_tokens
from .segments import Segment, weigh_counts
from .sparse.bm25 import Bm25
from .sparse.inverted import ImpactRows, write_inverted
from .sparse.reorder import bisection_order
from .sparse.sparse_tokens import FILE_NAME as SPARSE_TOKENS_NAME
from .sparse.sparse_tokens import SparseTokenIndex, SparseTokenRows
from .storage import sync_folder
from .strings import StringTable

MAX_SEGMENT_POSTINGS = 1 << 27
"""A merge holds its postings in memory, about 12 bytes each; larger indexes keep several segments."""


def plan_merges(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Group neighbouring segments so that each group's postings or tokens fit one segment; order is kept."""
    groups: list[list[Segment]] = []
    fill = 0.0
    for segment in segments:
        size = segment.record.n_postings / MAX_SEGMENT_POSTINGS + segment.record.n_tokens / MAX_SEGMENT_TOKENS
        if not groups or fill + size > 1:
            groups.append([])
            fill = 0.0
        groups[-1].append(segment)
        fill += size
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
    _verify(segments)
    rows = _concatenate([segment.inverted.rows(segment.live) for segment in segments])
    error = _mean_error(segments)
    total = 0
    if bm25 is not None and rows.lengths is not None:
        rows, error = weigh_counts(rows, bm25, average_length, scale)
        total = int(rows.lengths.sum(dtype=np.int64)) if rows.lengths is not None else 0
    order = None
    if reorder:
        terms, ranks = rows.ranks()
        order = bisection_order(rows.indptr, ranks, len(terms))
        rows = rows.take(order)
    folder = index / name
    folder.mkdir()
    write_inverted(folder / "inverted.lex", rows)
    n_tokens = _write_sparse_tokens(folder, segments, order) if isinstance(segments[0].vectors, SparseTokenIndex) else 0
    n_docs = _write_documents(folder, segments, fields, order)
    return SegmentRecord(
        name=name, n_docs=n_docs, n_postings=len(rows.terms), n_tokens=n_tokens, total_length=total, reordered=reorder,
        error=error,
    )  # fmt: skip


def _write_sparse_tokens(folder: Path, segments: Sequence[Segment], order: Int32s | None) -> int:
    """Write the live documents' sparse tokens, in the order of the inverted part; returns how many tokens there are."""
    tokens = SparseTokenRows.joined([segment.sparse_tokens.rows(segment.live) for segment in segments])
    if order is not None:
        tokens = tokens.take(order)
    tokens.write(folder / SPARSE_TOKENS_NAME)
    return int(tokens.offsets[-1])


def merge_token_segments(
    index: Path, name: str, segments: Sequence[Segment], fields: dict[str, str], config: MultiVectorConfig, *,
    codec: Codec, new_codec: Codec | None = None,
) -> SegmentRecord:  # fmt: skip
    """Write the merger of segments of token vectors, their codes as they are or, with ``new_codec``, decoded and encoded anew.

    Raises
    ------
    IndexFormatError
        A source is damaged: nothing is written over it.
    """
    _verify(segments)
    (index / name).mkdir()
    if new_codec is None:
        record = merge_tokens(index, name, segments, codec, config)
    else:
        record = encode_anew(index, name, segments, codec, new_codec, config)
    _write_documents(index / name, segments, fields)
    return record


def _verify(segments: Sequence[Segment]) -> None:
    for segment in segments:
        segment.vectors.verify()
        segment.documents.file.verify()


def _write_documents(folder: Path, segments: Sequence[Segment], fields: dict[str, str], order: Int32s | None = None) -> int:
    """Write the live documents and their doc_ids, and make the segment durable; returns how many there are."""
    batches = conform(_live_batches(segments), fields)
    doc_ids = [doc_id for segment in segments for doc_id in _live_ids(segment)]
    if order is not None:
        doc_ids = [doc_ids[i] for i in order.tolist()]
        batches = iter(pa.Table.from_batches(batches).take(pa.array(order)).to_batches(BATCH_ROWS))
    write_batches(folder, batches, fields)
    StringTable.of(doc_ids).write(folder / "doc_ids.lex")
    sync_folder(folder)
    sync_folder(folder.parent)
    return len(doc_ids)


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
