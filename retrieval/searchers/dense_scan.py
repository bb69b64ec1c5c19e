"""One query's way through parts of a dense field: scans of rows or codes, whole or list by list, and walks along graphs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ...index.arrays import Floats, Int32s, Int64s, Mask
from ...index.dense.field import DenseField, DenseSegment
from ...index.dense.graph import Graph
from ...index.dense.lists import Lists
from ...index.dense.quantiser import Quantiser
from ...index.kernels import read_only
from ...index.kernels.dense import unpacked
from ..kernels.dense import NO_FLOOR, scan_codes, scan_rows, search_graph
from ..kernels.topk import Keys, new_keys
from .common import Scratch

Pair = tuple[DenseSegment, Mask | None]
"""A segment and its allowed documents; None: all."""
EVERYTHING = read_only(np.empty(0, np.bool_))
ONE_LIST = read_only(np.zeros(1, np.int64))
SPREAD = np.float32(0.3)
"""Share of its spread that the best document of a list reaches beyond the centroid. With 0, a near list of vectors that differ
little comes before a farther one that has nearer documents: recall on real vectors was .48 in place of .60."""
MAX_STAMP = (1 << 32) - 1


def n_allowed(segment: DenseSegment, mask: Mask | None) -> int:
    """Number of allowed documents."""
    return segment.n_docs if mask is None else int(mask.sum())


def allowed_of(segment: DenseSegment, mask: Mask | None) -> Int32s:
    """doc_nums of the allowed documents, ascending."""
    positions = np.arange(segment.n_docs) if mask is None else np.flatnonzero(mask)
    return (positions + segment.base).astype(np.int32)


class Scan:
    """A query, and what it needs of the field's quantiser.

    Parameters
    ----------
    field : DenseField
    query : (dim,) float32, read-only
    scratch : Scratch
    """

    def __init__(self, field: DenseField, query: Floats, scratch: Scratch) -> None:
        self._field, self._query, self._scratch = field, query, scratch

    @cached_property
    def _quantiser(self) -> Quantiser:
        quantiser = self._field.quantiser
        if quantiser is None:
            raise ValueError(f"{self._field.path}, field {self._field.name}: lists without a quantiser")
        return quantiser

    @cached_property
    def _coarse(self) -> Floats:
        """Products with all centroids."""
        products: Floats = self._quantiser.centroids @ self._query[: self._field.config.list_dim]
        return products

    @cached_property
    def _table(self) -> Floats:
        return read_only(self._quantiser.table(self._query[: self._field.config.scan_dim]))

    def best(self, pairs: Sequence[Pair], n: int, *, n_probe: int = 1, ef_search: int = 1) -> tuple[Int32s, float]:
        """Find the n best documents that scans and walks meet.

        Returns
        -------
        doc_nums : (<= n,) int32
            Ascending.
        lowest : float
            The least of their scores, as the scan rounds them; none that was met and left out scores more.
        """
        doc_nums, scores = self.ranked(pairs, n, n_probe=n_probe, ef_search=ef_search)
        return np.sort(doc_nums), float(scores[-1]) if len(scores) else -np.inf

    def ranked(self, pairs: Sequence[Pair], n: int, *, n_probe: int = 1, ef_search: int = 1) -> tuple[Int32s, Floats]:
        """Return the same documents best first, with their scores as the scan rounds them, or codes estimate them."""
        keys, state = new_keys(n), np.array([0, NO_FLOOR], np.int64)
        for segment, mask in pairs:
            part, allowed = segment.part, EVERYTHING if mask is None else read_only(mask)
            if part.lists is not None:
                self._scan_lists(segment, part.lists, allowed, n_probe, keys, n, state)
            elif part.graph is None or not self._walk(segment, part.graph, allowed, max(n, ef_search), keys, n, state):
                starts = read_only(np.array([0, part.n_docs], np.int64))
                where = starts, ONE_LIST, part.documents, allowed, segment.base
                scan_rows(part.file.checked, part.rows, self._query, *where, keys, n, state)
            for file in part.files:
                file.raise_damage()
        doc_nums, scores = unpacked(np.sort(keys[: state[0]])[::-1][:n])
        return doc_nums.astype(np.int32), scores

    def _scan_lists(
        self, segment: DenseSegment, lists: Lists, allowed: Mask, n_probe: int, keys: Keys, n: int, state: Int64s
    ) -> None:
        part, query = segment.part, read_only(self._query[: self._field.config.scan_dim])
        probed = self._nearest(n_probe)
        where = lists.starts, probed, part.documents, allowed, segment.base
        if lists.codes is None:
            scan_rows(part.file.checked, part.rows, query, *where, keys, n, state)
        elif lists.codes.dtype == np.int8:
            scan_rows(lists.file.checked, lists.codes, query, *where, keys, n, state)
        else:
            biases = read_only(self._coarse[probed])
            scan_codes(lists.file.checked, lists.codes, self._table, biases, *where, keys, n, state)

    def _nearest(self, n_probe: int) -> Int64s:
        """Lists where the best documents are likely, best first: by products with centroids, and how far lists spread."""
        n_lists = self._quantiser.n_lists
        if n_lists == 1:
            return ONE_LIST
        reach = self._coarse + self._quantiser.spreads * (SPREAD * np.float32(np.linalg.norm(self._query)))
        order = np.argpartition(reach, n_lists - n_probe) if n_probe < n_lists else np.arange(n_lists)
        chosen = order[n_lists - n_probe :]
        return read_only(chosen[np.argsort(-reach[chosen], kind="stable")])

    def _walk(self, segment: DenseSegment, graph: Graph, allowed: Mask, ef: int, keys: Keys, n: int, state: Int64s) -> bool:
        """Walk along a graph; when it meets too few documents return False: the part has to be scanned."""
        part, n_docs = segment.part, segment.n_docs
        visited = self._scratch.take("visited", max(each.n_docs for each in self._field.segments), np.uint32)
        stamps = self._scratch.take("stamp", 1, np.uint32)
        if stamps[0] == MAX_STAMP:
            stamps[0] = 0
            visited[:] = 0
        stamps[0] += 1
        frontier, found = self._scratch.take("frontier", n_docs + 1, np.int64), self._scratch.take("found", ef, np.int64)
        wanted = min(n, n_allowed(segment, allowed if len(allowed) else None))
        walked = search_graph(
            part.file.checked, part.rows, self._query, graph.links, graph.entry, allowed, segment.base, visited, stamps[0],
            frontier, found, wanted, keys, n, state,
        )  # fmt: skip
        return bool(walked)
