"""Recursive graph bisection: split documents into halves whose posting lists have small gaps, again and again.

A term in ``d`` of the ``n`` documents of a half costs about ``d * log2(n / (d + 1))`` bits there, its log-gaps. A document
that joins the half adds ``log2(n) - steps[d]``, ``d`` being the number of its *other* documents with the term. So ::

    pull of a document = sum over its terms of  steps[others on the right] - steps[others on the left]  + log2(n_left / n_right)

is how many bits are saved by having it on the right rather than on the left. Each round moves the documents with the largest
pulls to the right and all others to the left: the pairwise exchange of the paper, with a selection in place of two sorts.

Documents that move at the same time do not see each other move, so similar ones chase each other for ever, worst in small
partitions. Two remedies: every posting holds its document back, by ``(round / max_rounds)**2`` bits (6 % fewer (term, block)
pairs than without, in half the time); and in the first rounds only half of the documents may move, by lot, so that twins on
different sides meet instead of changing places.

Pulls are fixed-point integers: their sums do not depend on the order of addition, so neither does the result on the threads.
Terms are renumbered for each half, without those that cannot tell its documents apart; numbers, and with them the tables
that rounds read, shrink with the halves until they fit the first cache.

Dhulipala et al., "Compressing graphs and indexes with recursive graph bisection", KDD 2016; Mackenzie et al., "Faster index
reordering with bipartite graph partitioning", SIGIR 2021.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import kernel
from .postings import BLOCK
from .sorting import kth_smallest

FRACTION_BITS = 16
"""Binary places of a pull."""
SETTLED = 0.005
"""A split is done when a round moves no more than this share of the documents."""
LOT_ROUNDS = 3
"""Rounds in which the lot decides who may move."""
BOUND = 1 << 60
"""Pull to its own side of a document that may not move, larger than any sum."""
DROPPED = np.uint32(0xFFFFFFFF)

U32 = npt.NDArray[np.uint32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Rows(NamedTuple):
    """Documents in their present order, with the terms that matter in their partition.

    ``order`` (n,) are document numbers; the row at position ``i`` is ``terms[starts[i]:ends[i]]``.
    """

    order: I32
    starts: I64
    ends: I64
    terms: U32


class Sides(NamedTuple):
    """For each position: the pull in units of 2**-16 bits, which half it is in, whether the last round moved it."""

    pulls: I64
    right: Flags
    moved: Flags


class Terms(NamedTuple):
    """For each term of a partition: its documents, those on the right, its pull on a document on the left or on the right."""

    counts: I32
    right: I32
    if_left: I32
    if_right: I32


def log_gap_steps(n: int) -> I32:
    """(n,) ``(d + 1) * log2(d + 2) - d * log2(d + 1)``: what a term saves on its (d + 1)-th document in a half, fixed-point."""
    d = np.arange(n + 1, dtype=np.float64)
    steps: I32 = np.rint(np.diff(d * np.log2(d + 1)) * 2**FRACTION_BITS).astype(np.int32)
    return steps


@kernel
def half(n: int) -> int:
    """Size of the left half of ``n > BLOCK`` documents: whole blocks, so that the smallest partitions are blocks."""
    return (n // 2 + BLOCK // 2) // BLOCK * BLOCK


@kernel
def count_terms(terms: npt.NDArray[np.unsignedinteger[Any]], counts: I32) -> None:
    """Add the postings of each term to ``counts``."""
    for p in range(len(terms)):
        counts[terms[p]] += 1


@kernel
def number_terms(counts: I32, n_docs: int, numbers: U32) -> int:
    """Number the terms that are in at least two of ``n_docs`` documents and not in all; return how many they are.

    A term of one document pulls it nowhere, and a term of all documents pulls all alike.
    """
    n = 0
    for t in range(len(counts)):
        if 2 <= counts[t] < n_docs:
            numbers[t] = n
            n += 1
        else:
            numbers[t] = DROPPED
    return n


@kernel
def renumber_rows(
    indptr: I64, ranks: npt.NDArray[np.unsignedinteger[Any]], numbers: U32, target: Rows, lo: int, hi: int
) -> None:
    """Write the documents ``lo <= d < hi`` of the input to the same positions of ``target``."""
    p = indptr[lo]
    for d in range(lo, hi):
        target.order[d] = d
        target.starts[d] = p
        for q in range(indptr[d], indptr[d + 1]):
            t = numbers[ranks[q]]
            if t != DROPPED:
                target.terms[p] = t
                p += 1
        target.ends[d] = p


@kernel
def count_rows(rows: Rows, lo: int, hi: int, counts: I32) -> None:
    """Add the postings at ``lo <= i < hi`` of each term to ``counts``."""
    for i in range(lo, hi):
        for p in range(rows.starts[i], rows.ends[i]):
            counts[rows.terms[p]] += 1


@kernel
def term_pulls(terms: Terms, steps: I32, n_left: int, n_right: int, hold: float) -> None:
    """Fill the pulls of each term on a document of either half that has it; ``hold`` bits keep it where it is."""
    tilt, held = np.log2(n_left / n_right) * 2**FRACTION_BITS, hold * 2**FRACTION_BITS
    to_right, to_left = int(np.rint(tilt - held)), int(np.rint(tilt + held))
    for t in range(len(terms.counts)):
        on_right = terms.right[t]
        on_left = terms.counts[t] - on_right
        terms.if_left[t] = to_right + steps[on_right] - steps[max(on_left - 1, 0)]
        terms.if_right[t] = to_left + steps[max(on_right - 1, 0)] - steps[on_left]


@kernel
def may_move(document: int, i_round: int) -> bool:
    """Whether a document may move in this round, counted from 1; half of them in the first rounds, then all."""
    return i_round > LOT_ROUNDS or (np.int64(document) * 2_654_435_769 >> (28 + i_round)) % 2 == 1


@kernel
def document_pulls(rows: Rows, sides: Sides, terms: Terms, i_round: int, lo: int, hi: int) -> None:
    """Fill ``sides.pulls`` of the documents at ``lo <= i < hi``."""
    for i in range(lo, hi):
        if not may_move(rows.order[i], i_round):
            sides.pulls[i] = BOUND if sides.right[i] else -BOUND
            continue
        pulls = terms.if_right if sides.right[i] else terms.if_left
        pull = np.int64(0)
        for p in range(rows.starts[i], rows.ends[i]):
            pull += pulls[rows.terms[p]]
        sides.pulls[i] = pull


@kernel
def exchange(sides: Sides, lo: int, hi: int, n_left: int) -> int:
    """Have the ``n_left`` smallest pulls on the left and the others on the right; return how many documents moved.

    Of equal pulls at the border as few as possible move, those with the lowest positions.
    """
    border = kth_smallest(sides.pulls[lo:hi], n_left - 1)
    excess, n_moved = 0, 0
    for i in range(lo, hi):
        moves = sides.pulls[i] < border if sides.right[i] else sides.pulls[i] > border
        sides.moved[i] = moves
        if moves:
            n_moved += 1
            excess += -1 if sides.right[i] else 1
    for i in range(lo, hi):
        if excess == 0:
            break
        if sides.pulls[i] == border and sides.right[i] == (excess > 0):
            sides.moved[i] = True
            n_moved += 1
            excess += -1 if sides.right[i] else 1
    for i in range(lo, hi):
        sides.right[i] ^= sides.moved[i]
    return n_moved


@kernel
def count_moves(rows: Rows, sides: Sides, lo: int, hi: int, right: I32) -> None:
    """Correct ``right`` by the postings of the documents that moved."""
    for i in range(lo, hi):
        if sides.moved[i]:
            change = 1 if sides.right[i] else -1
            for p in range(rows.starts[i], rows.ends[i]):
                right[rows.terms[p]] += change


@kernel
def write_half(
    source: Rows, target: Rows, sides: Sides, lo: int, hi: int, is_right: bool, at: int, p: int, numbers: U32
) -> int:
    """Write the documents of one half to ``target``, the first at position ``at`` with its row from ``terms[p]`` on.

    Returns where the last row ends.
    """
    for i in range(lo, hi):
        if sides.right[i] == is_right:
            target.order[at] = source.order[i]
            target.starts[at] = p
            for q in range(source.starts[i], source.ends[i]):
                t = numbers[source.terms[q]]
                if t != DROPPED:
                    target.terms[p] = t
                    p += 1
            target.ends[at] = p
            at += 1
    return p


@kernel
def split(
    source: Rows, target: Rows, sides: Sides, lo: int, hi: int, scratch: Terms, numbers: U32, n_terms: int, steps: I32,
    max_rounds: int,
) -> tuple[int, int]:  # fmt: skip
    """Write the halves of the partition at ``lo <= i < hi`` to the same place of ``target``; return their numbers of terms."""
    n_left = half(hi - lo)
    n_right = hi - lo - n_left
    terms = Terms(scratch.counts[:n_terms], scratch.right[:n_terms], scratch.if_left[:n_terms], scratch.if_right[:n_terms])
    counts, right = terms.counts, terms.right
    sides.right[lo : lo + n_left] = False
    sides.right[lo + n_left : hi] = True
    counts[:] = 0
    right[:] = 0
    count_rows(source, lo, hi, counts)
    count_rows(source, lo + n_left, hi, right)
    for i in range(1, max_rounds + 1):
        term_pulls(terms, steps, n_left, n_right, (i / max_rounds) ** 2)
        document_pulls(source, sides, terms, i, lo, hi)
        n_moved = exchange(sides, lo, hi, n_left)
        count_moves(source, sides, lo, hi, right)
        if i > LOT_ROUNDS and n_moved <= SETTLED * (hi - lo):
            break
    counts -= right  # now those on the left
    n_left_terms = number_terms(counts, n_left, numbers)
    p = write_half(source, target, sides, lo, hi, False, lo, source.starts[lo], numbers)
    n_right_terms = number_terms(right, n_right, numbers)
    write_half(source, target, sides, lo, hi, True, lo + n_left, p, numbers)
    return n_left_terms, n_right_terms


@kernel
def bisect(
    rows: Rows, spare: Rows, sides: Sides, lo: int, hi: int, n_terms: int, steps: I32, min_partition: int, max_rounds: int
) -> None:
    """Order the partition at ``lo <= i < hi`` of ``rows.order``. Its rows, and ``spare`` at its place, are overwritten."""
    scratch = Terms(
        np.empty(n_terms, np.int32), np.empty(n_terms, np.int32), np.empty(n_terms, np.int32), np.empty(n_terms, np.int32)
    )
    numbers = np.empty(n_terms, np.uint32)
    waiting = np.empty((64, 4), np.int64)  # two for each level, and there are less than 32
    waiting[0] = lo, hi, n_terms, 0
    n_waiting = 1
    while n_waiting:
        n_waiting -= 1
        first, end, n, is_in_spare = waiting[n_waiting]
        source, target = (spare, rows) if is_in_spare else (rows, spare)
        if end - first > min_partition:
            n_left_terms, n_right_terms = split(source, target, sides, first, end, scratch, numbers, n, steps, max_rounds)
            middle = first + half(end - first)
            waiting[n_waiting] = first, middle, n_left_terms, 1 - is_in_spare
            waiting[n_waiting + 1] = middle, end, n_right_terms, 1 - is_in_spare
            n_waiting += 2
        elif is_in_spare:
            rows.order[first:end] = spare.order[first:end]


@kernel
def order_cost(indptr: I64, ranks: npt.NDArray[np.unsignedinteger[Any]], order: I32, n_terms: int) -> tuple[float, int]:
    """Sum of log2 of the gaps in all posting lists, the first counted from position -1; number of (term, block) pairs."""
    bits, n_pairs = 0.0, 0
    last = np.full(n_terms, -1, np.int64)
    for i in range(len(order)):
        for p in range(indptr[order[i]], indptr[order[i] + 1]):
            before = last[ranks[p]]
            bits += np.log2(i - before)
            n_pairs += before // BLOCK != i // BLOCK
            last[ranks[p]] = i
    return bits, n_pairs
