"""Kernels of token records: XXH64, packing, unpacking and verification. The record's form is in `index.multivector.store`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import kernel
from .checksums import DAMAGED, SOUND, UNREAD

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint16]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

SCALAR_BYTES = 4
"""Bytes of a token before its levels: the centroid's code and two scalars."""
TOKEN_BITS = np.uint64(33)
"""Of a seed: the number of the record's first token; the document's above it."""
P1, P2, P3, P4, P5 = (
    np.uint64(prime)
    for prime in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
)


@kernel
def rotated(word: Any, n: int) -> Any:
    """``word`` rotated left by n bits."""
    return (word << np.uint64(n)) | (word >> np.uint64(64 - n))


@kernel
def mixed(lane: Any, word: Any) -> Any:
    """One round of XXH64."""
    return rotated(lane + word * P2, 31) * P1


@kernel
def xxh64(data: Bytes, seed: Any) -> Any:
    """XXH64 of bytes (Y. Collet; four lanes of 64 bits, which keep a core's multiplier busy). ``seed`` is a np.uint64."""
    n = len(data)
    whole, eights = n // 32 * 32, n // 8 * 8
    if n >= 32:
        words = data[:whole].view(np.uint64)
        a, b, c, d = seed + P1 + P2, seed + P2, seed, seed - P1
        for i in range(0, len(words), 4):
            a, b = mixed(a, words[i]), mixed(b, words[i + 1])
            c, d = mixed(c, words[i + 2]), mixed(d, words[i + 3])
        found = rotated(a, 1) + rotated(b, 7) + rotated(c, 12) + rotated(d, 18)
        for lane in (a, b, c, d):
            found = (found ^ mixed(np.uint64(0), lane)) * P1 + P4
    else:
        found = seed + P5
    found += np.uint64(n)
    rest = data[whole:eights].view(np.uint64)
    for i in range(len(rest)):
        found = rotated(found ^ mixed(np.uint64(0), rest[i]), 27) * P1 + P4
    if n - eights >= 4:
        found = rotated(found ^ (np.uint64(data[eights : eights + 4].view(np.uint32)[0]) * P1), 23) * P2 + P3
        eights += 4
    for i in range(eights, n):
        found = rotated(found ^ (np.uint64(data[i]) * P5), 11) * P1
    found = (found ^ (found >> np.uint64(33))) * P2
    found = (found ^ (found >> np.uint64(29))) * P3
    return found ^ (found >> np.uint64(32))


@kernel
def checksum(record: Bytes, document: Any, first_token: Any) -> Any:
    """32 bits of XXH64, seeded by the document and the place of its record: bytes of another one have another checksum."""
    seed = (np.uint64(document) << TOKEN_BITS) ^ np.uint64(first_token)
    return np.uint32(xxh64(record, seed) & np.uint64(0xFFFFFFFF))


@kernel
def pack_records(
    documents: Int32s, firsts: Int64s, offsets: Int64s, codes: Codes, scalars: Bytes, levels: Bytes, records: Bytes, checks: U32
) -> None:  # fmt: skip
    """Write the records of some documents end to end, and the checksum of each.

    Parameters
    ----------
    documents, firsts : (n,) int32, int64
        Documents, and the number of each record's first token in the file.
    offsets, codes, scalars, levels
        Tokens of all documents, document by document.
    records, checks : (n_bytes,) uint8, (n,) uint32
        Written.
    """
    width, at = levels.shape[1], 0
    for i in range(len(documents)):
        first, last = offsets[documents[i]], offsets[documents[i] + 1]
        n, start = last - first, at
        record_codes = records[at : at + 2 * n].view(np.uint16)
        at += 2 * n
        for t in range(n):
            record_codes[t] = codes[first + t]
            records[at], records[at + 1] = scalars[first + t, 0], scalars[first + t, 1]
            at += 2
        for t in range(n):
            records[at : at + width] = levels[first + t]
            at += width
        checks[i] = checksum(records[start:at], documents[i], firsts[i])


@kernel
def unpack_records(at: Int64s, n_tokens: Int64s, source: Bytes, codes: Codes, scalars: Bytes, levels: Bytes) -> None:
    """Read records that begin at bytes ``at`` of ``source``: the reverse of `pack_records`, end to end."""
    width, to = levels.shape[1], 0
    for i in range(len(at)):
        n, byte = n_tokens[i], at[i]
        record_codes = source[byte : byte + 2 * n].view(np.uint16)
        byte += 2 * n
        for t in range(n):
            codes[to + t] = record_codes[t]
            scalars[to + t, 0], scalars[to + t, 1] = source[byte], source[byte + 1]
            byte += 2
        for t in range(n):
            levels[to + t] = source[byte : byte + width]
            byte += width
        to += n


@kernel
def is_sound(record: Bytes, document: Any, first_token: Any, n_tokens: Any, check: Any, n_centroids: Any) -> Any:
    """Whether a record has the checksum that it must have, and names centroids alone."""
    codes, highest = record[: 2 * n_tokens].view(np.uint16), np.uint16(0)
    for t in range(n_tokens):
        highest = max(highest, codes[t])
    return checksum(record, document, first_token) == check and (n_tokens == 0 or highest < n_centroids)


@kernel
def verify_records(
    numbers: Int64s, documents: Int32s, at: Int64s, n_tokens: Int64s, firsts: Int64s, checks: U32, source: Bytes,
    token_bytes: int, n_centroids: int, states: Bytes,
) -> bool:  # fmt: skip
    """Verify those of the records ``numbers`` that are `UNREAD` and set their states; returns whether all are sound.

    A record is sound when its checksum is right and its codes name centroids, which index the kernels' tables.

    Parameters
    ----------
    documents, at, n_tokens, firsts, checks, states : (n,)
        Documents, and of each the byte of ``source`` where its record is, its tokens, the number of the first in the file,
        the checksum that it must have, and UNREAD, SOUND or DAMAGED.
    """
    sound = True
    for i in numbers:
        if states[i] == UNREAD:
            record = source[at[i] : at[i] + n_tokens[i] * token_bytes]
            right = is_sound(record, documents[i], firsts[i], n_tokens[i], checks[i], n_centroids)
            states[i] = SOUND if right else DAMAGED
        sound &= states[i] == SOUND
    return sound
