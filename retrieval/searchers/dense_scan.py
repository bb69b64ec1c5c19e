"""One query's way through parts of a dense field: scans of rows or codes, whole or list by list, and walks along graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ...index.arrays import Floats, Int32s, Int64s, Mask
from ...index.dense.field import DenseField, DenseSegment
from ...index.dense.graph import Graph
from ...index.dense.lists import Lists
from ...index.dense.quantiser import Quantiser
from ...index.kernels import read_only
from ...index.kernels.dense import unpacked
from ..kernels.dense import NO_FLOOR, best_numbers, choose_lists, fill_table, scan_codes, scan_rows, search_graph
from ..kernels.topk import Keys, new_keys
from .allowed import Allowed
from .common import Scratch

ONE_LIST = read_only(np.zeros(1, np.int64))
SPREAD = np.float32(0.3)
"""Share of its spread that the best document of a list reaches beyond the centroid. With 0, a near list of vectors that differ
little comes before a farther one that has nearer documents: recall on real vectors was .48 in place of .60."""
FRESH = np.array([0, NO_FLOOR], np.int64)
"""A scan's ``state`` at its beginning, see `kernels.dense`."""
MAX_STAMP = (1 << 32) - 1
ANNOUNCED_LISTS = 0.3
"""Share of the lists of a search after which the best so far are announced: of the best half .97 are found in the end
(`tests/bench/early_candidates.py`)."""
FEWEST_LISTS = 4
"""So few lists are scanned at once."""
Told = Callable[[Int32s], None]
"""Takes likely doc_nums, best first."""


class Target(NamedTuple):
    """A segment, and the documents of it that may be found.

    Attributes
    ----------
    segment : DenseSegment
    documents : Allowed
    allowed : (n_vectors,) bool, or (0,)
        The same by vector; (0,): all.
    n_allowed : int
        Documents.
    """

    segment: DenseSegment
    documents: Allowed
    allowed: Mask
    n_allowed: int

    @classmethod
    def of(cls, segment: DenseSegment, documents: Allowed, m: int) -> Target:
        """Bring a mask into the form that kernels take, for documents of m vectors."""
        allowed = documents.mask if m == 1 or not len(documents.mask) else read_only(np.repeat(documents.mask, m))
        return cls(segment, documents, allowed, documents.n_of(segment.n_docs))

    def doc_nums(self) -> Int32s:
        """doc_nums of the allowed documents, ascending."""
        found, mask = self.documents.documents, self.documents.mask
        if found is None:
            found = np.flatnonzero(mask).astype(np.int32) if len(mask) else np.arange(self.segment.n_docs, dtype=np.int32)
        return found + np.int32(self.segment.base)


class Query:
    """A query, and what it needs of the field's quantiser.

    Parameters
    ----------
    field : DenseField
    vector : (dim,) float32, read-only
    scratch : Scratch
    announce : callable or None
        Told likely documents before the best are known.
    """

    def __init__(self, field: DenseField, vector: Floats, scratch: Scratch, announce: Told | None = None) -> None:
        self._field, self._config, self.vector, self._scratch = field, field.config, vector, scratch
        self._announce = announce
        self._scanned = vector if self._config.search_dim is None else vector[: self._config.scan_dim]
        self._table: Floats | None = None

    def best(self, targets: Sequence[Target], n: int, *, n_probe: int = 1, ef_search: int = 1) -> tuple[Int32s, float]:
        """Find the n best documents that scans and walks meet.

        Parameters
        ----------
        targets : sequence of Target
        n : int
        n_probe : int
            Lists that are scanned.
        ef_search : int
            Vectors that a walk keeps, if more than ``n`` documents have.

        Returns
        -------
        doc_nums : (n_found,) int32
            Ascending, read-only. A scan of lists or a walk may meet fewer than n.
        lowest : float
            No vector of any document that was met and left out scores more, as the scan rounds it.
        """
        m = self._config.vectors_per_doc
        keys, n_keys = self._met(targets, n * m, n_probe, ef_search)
        found = np.empty(n * m, np.int32)
        n_found, lowest = best_numbers(keys, n_keys, n * m, m, found)
        found.flags.writeable = False
        return found[:n_found], lowest

    def ranked(self, targets: Sequence[Target], n: int, *, n_probe: int = 1) -> tuple[Int32s, Floats]:
        """Return the same documents best first, with their scores as codes estimate them."""
        return self._in_order(*self._met(targets, n * self._config.vectors_per_doc, n_probe, 1), n)

    def _in_order(self, keys: Keys, n_keys: int, n: int) -> tuple[Int32s, Floats]:
        m = self._config.vectors_per_doc
        numbers, scores = unpacked(np.sort(keys[:n_keys])[::-1][: n * m])
        doc_nums = numbers // m
        first = np.sort(np.unique(doc_nums, return_index=True)[1])[:n]
        return read_only(doc_nums[first].astype(np.int32)), scores[first]

    def _met(self, targets: Sequence[Target], n_keys: int, n_probe: int, ef_search: int) -> tuple[Keys, int]:
        """Keys, and how many, among which are those of the ``n_keys`` best vectors that scans and walks meet."""
        m = self._config.vectors_per_doc
        keys, state = new_keys(n_keys), FRESH.copy()
        if any(target.segment.part.lists is not None for target in targets):
            self._scan_all_lists(targets, n_probe, keys, n_keys, state)
        for target in targets:
            part = target.segment.part
            scanned = part.lists is not None or (
                part.graph is not None and self._walk(target, part.graph, max(n_keys, ef_search), keys, n_keys, state)
            )
            if not scanned:
                where = part.whole, ONE_LIST, part.documents, target.allowed, target.segment.base * m
                scan_rows(part.file.checked, part.rows, self.vector, *where, keys, n_keys, state)
            part.raise_damage()
        return keys, int(state[0])

    def _scan_all_lists(self, targets: Sequence[Target], n_probe: int, keys: Keys, n_keys: int, state: Int64s) -> None:
        """Scan lists of all targets; after the first of them tell what is likely to be found."""
        lists, biases = self._probed(n_probe)
        early = 0 if self._announce is None or len(lists) < FEWEST_LISTS else round(ANNOUNCED_LISTS * len(lists))
        for span in (slice(early), slice(early, None)) if early else (slice(None),):
            for target in targets:
                if target.segment.part.lists is not None:
                    self._scan_lists(target, target.segment.part.lists, (lists[span], biases[span]), keys, n_keys, state)
            if self._announce is not None and early and span.stop == early:
                self._announce(self._in_order(keys, int(state[0]), n_keys)[0])

    def _probed(self, n_probe: int) -> tuple[Int64s, Floats]:
        """Choose lists, best first, and give their centroids' products."""
        quantiser = self._quantiser
        n_probe = min(n_probe, quantiser.n_lists)
        lists, biases = np.empty(n_probe, np.int64), np.empty(n_probe, np.float32)
        products = self._scratch.take("products", quantiser.n_lists, np.float32)
        choose_lists(
            quantiser.coarse, quantiser.centroids, quantiser.spreads, self.vector, SPREAD, products, new_keys(n_probe), lists,
            biases,
        )  # fmt: skip
        lists.flags.writeable = biases.flags.writeable = False  # kernels are compiled for such arrays alone
        return lists, biases

    def _scan_lists(
        self, target: Target, lists: Lists, probed: tuple[Int64s, Floats], keys: Keys, n_keys: int, state: Int64s
    ) -> None:  # fmt: skip
        part, (chosen, biases) = target.segment.part, probed
        where = lists.starts, chosen, part.documents, target.allowed, target.segment.base * self._config.vectors_per_doc
        if lists.codes is None:
            scan_rows(part.file.checked, part.rows, self._scanned, *where, keys, n_keys, state)
        elif lists.codes.dtype == np.int8:
            scan_rows(lists.file.checked, lists.codes, self._scanned, *where, keys, n_keys, state)
        else:
            scan_codes(lists.file.checked, lists.codes, self._products(), biases, *where, keys, n_keys, state)

    def _products(self) -> Floats:
        """Products with all entries of the codebooks, (m * 256,)."""
        if self._table is None:
            columns, turned = self._quantiser.columns, self._quantiser.turned(self._scanned)
            self._table = np.empty(columns.shape[0] * columns.shape[2], np.float32)
            fill_table(columns, read_only(turned), self._table)
            self._table.flags.writeable = False
        return self._table

    @property
    def _quantiser(self) -> Quantiser:
        quantiser = self._field.quantiser
        if quantiser is None:
            raise ValueError(f"{self._field.path}, field {self._field.name}: lists without a quantiser")
        return quantiser

    def _walk(self, target: Target, graph: Graph, ef: int, keys: Keys, n_keys: int, state: Int64s) -> bool:
        """Walk along a graph; when it meets too few documents return False: the part has to be scanned."""
        part, m = target.segment.part, self._config.vectors_per_doc
        visited = self._scratch.take("visited", max(each.part.n_vectors for each in self._field.segments), np.uint32)
        stamps = self._scratch.take("stamp", 1, np.uint32)
        if stamps[0] == MAX_STAMP:
            stamps[0] = 0
            visited[:] = 0
        stamps[0] += 1
        frontier = self._scratch.take("frontier", part.n_vectors + 1, np.int64)
        found, wanted = self._scratch.take("found", ef, np.int64), min(n_keys, target.n_allowed * m)
        walked = search_graph(
            part.file.checked, part.rows, self.vector, graph.links, graph.entry, target.allowed, target.segment.base * m,
            visited, stamps[0], frontier, found, wanted, keys, n_keys, state,
        )  # fmt: skip
        return bool(walked)
