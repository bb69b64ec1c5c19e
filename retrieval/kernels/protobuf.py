"""Kernels that read and write CIFF's messages: varints, fields, postings lists and document records of protobuf.

They are given arrays of bytes and positions, check every length against the end, and never read or write past it; what is
wrong comes back as a position in PROBLEMS. `ciff` shows the messages.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s, Int64s
from ...index.kernels.sorting import lower_bound
from . import Integer, kernel

MAX_POSTING_BYTES = 14
PROBLEMS = (
    "",
    "the file ends before the message does",
    "not protobuf",
    "a posting whose document does not follow the one before, or is past the header's num_docs",
    "a posting whose tf is not within 0..2147483647",
    "a document whose docid comes twice, or is past the header's num_docs",
    "a document whose doclength is not within 0..2147483647",
)

Bytes = npt.NDArray[np.uint8]


@kernel
def varint(data: Bytes, at: Integer, end: Integer) -> tuple[Integer, Integer]:
    """Return a whole number and where the next byte is; -1 there when none of at most 10 bytes ends it before ``end``."""
    value: Integer = np.int64(0)
    shift = 0
    while at < end and shift < 64:
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return value, -1


@kernel
def field(data: Bytes, at: Integer, end: Integer) -> tuple[Integer, Integer, Integer, Integer, Integer]:
    """Return a field's number, wire type, whole number (or its content's start and length) and end; -1 there: malformed.

    The content of wire type 2 is ``data[start:end]``, and ``start`` comes fourth.
    """
    key, at = varint(data, at, end)
    kind, start = key & 7, at
    value: Integer = np.int64(0)
    following: Integer = np.int64(-1)
    if at < 0:
        return 0, 0, value, at, following
    if kind == 0:
        value, following = varint(data, at, end)
    elif kind == 2:
        value, start = varint(data, at, end)
        if start >= 0 and 0 <= value <= end - start:
            following = start + value
    elif kind == 1 and at + 8 <= end:
        following = at + 8
    elif kind == 5 and at + 4 <= end:
        following = at + 4
    return key >> 3, kind, value, start, following


@kernel
def read_list(data: Bytes, at: Integer, docs: Int32s, tfs: Int32s) -> tuple[Integer, Integer, Integer, Integer, int]:
    """Read a postings list; ``docs`` and ``tfs`` have room for every document.

    Returns
    -------
    (end, n, term_start, term_end, problem)
        A position in PROBLEMS, 0 when there is none; ``end`` is where it stands.
    """
    n, term_start, term_end = 0, at, at
    doc: Integer = np.int64(0)
    gap: Integer
    tf: Integer
    size, start = varint(data, at, len(data))
    if start < 0 or size < 0 or size > len(data) - start:
        return at, 0, 0, 0, 1
    at, end = start, start + size
    while at < end:
        number, kind, _, start, following = field(data, at, end)
        if following < 0:
            return at, 0, 0, 0, 2
        if kind == 2 and number == 1:
            term_start, term_end = start, following
        elif kind == 2 and number == 4:
            gap = tf = np.int64(0)
            while start < following:
                part, inner_kind, value, _, after = field(data, start, following)
                if after < 0:
                    return start, 0, 0, 0, 2
                if inner_kind == 0 and part == 1:
                    gap = value
                elif inner_kind == 0 and part == 2:
                    tf = value
                start = after
            if gap < 0 or (n > 0 and gap == 0) or gap >= len(docs) - doc:
                return at, 0, 0, 0, 3
            if tf < 0 or tf > 2147483647:
                return at, 0, 0, 0, 4
            doc += gap
            docs[n], tfs[n] = doc, tf
            n += 1
        at = following
    return end, n, term_start, term_end, 0


@kernel
def read_records(data: Bytes, at: Integer, n_docs: int) -> tuple[Int64s, Int64s, Integer, int]:
    """Return the span of each docid's collection_docid (n_docs, 2), its doclength, the end and the problem, as `read_list`."""
    docid: Integer
    length: Integer
    spans, seen, lengths = np.zeros((n_docs, 2), np.int64), np.zeros(n_docs, np.bool_), np.zeros(n_docs, np.int64)
    for _ in range(n_docs):
        size, start = varint(data, at, len(data))
        if start < 0 or size < 0 or size > len(data) - start:
            return spans, lengths, at, 1
        record, first, last = at, start, start
        docid = length = np.int64(0)
        at, end = start, start + size
        while at < end:
            number, kind, value, start, following = field(data, at, end)
            if following < 0:
                return spans, lengths, at, 2
            if kind == 0 and number == 1:
                docid = value
            elif kind == 0 and number == 3:
                length = value
            elif kind == 2 and number == 2:
                first, last = start, following
            at = following
        if docid < 0 or docid >= n_docs or seen[docid]:
            return spans, lengths, record, 5
        if length < 0 or length > 2147483647:
            return spans, lengths, record, 6
        seen[docid], spans[docid, 0], spans[docid, 1], lengths[docid] = True, first, last, length
    return spans, lengths, at, 0


@kernel
def place(docs: Int32s, tfs: Int32s, term: int, first: int, end: int, cursors: Int64s, terms: Int32s, weights: Floats) -> None:
    """Append a postings list to the rows of the documents ``first <= d < end``; a row's cursor moves on."""
    for i in range(lower_bound(docs, first), len(docs)):
        if docs[i] >= end:
            break
        at = cursors[docs[i] - first]
        terms[at], weights[at] = term, tfs[i]
        cursors[docs[i] - first] = at + 1


@kernel
def write_postings(docids: Int64s, tfs: Int64s, out: Bytes) -> int:
    """Write postings as they stand in a list, docids as gaps; return the number of bytes, at most MAX_POSTING_BYTES each."""
    at, previous = 0, np.int64(0)
    for i in range(len(docids)):
        length_at = at + 1
        out[at] = 0x22
        at += 2
        gap, previous = docids[i] - previous, docids[i]
        if gap:
            out[at] = 0x08
            at += 1
            while gap >= 128:
                out[at] = gap & 127 | 128
                at += 1
                gap >>= 7
            out[at] = gap
            at += 1
        out[at] = 0x10
        at += 1
        tf = np.int64(tfs[i])
        while tf >= 128:
            out[at] = tf & 127 | 128
            at += 1
            tf >>= 7
        out[at] = tf
        at += 1
        out[length_at] = at - length_at - 1
    return at
