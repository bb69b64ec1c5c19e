"""How a dense field keeps and searches its vectors."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

PRECISIONS = ("float16", "float32", "int8")
STRUCTURES = ("auto", "flat", "ivf", "hnsw")
CODES = ("none", "int8", "pq", "opq")
ORDERS = ("given", "random", "lid_desc")
MAX_DIM = 1 << 16
MAX_LISTS = 1 << 16
MAX_VECTORS = 64
"""Vectors of a document."""
MAX_LENGTH = 1e18
"""Of vectors, so that products and squares of distances are finite 32-bit floats."""
AUTO_BYTES = 1 << 28
"""``structure="auto"`` scans fields up to this size whole: some 20 ms on one core."""
LIST_POINTS = 32
"""Fewest vectors of a list, on average, when lists are made."""
CODE_POINTS = 1024
"""Fewest vectors that product quantisation is trained on."""
GRAPH_VECTORS = 1024
"""Segments of fewer vectors have no graph: scanning them is as fast."""


@dataclass(frozen=True, kw_only=True)
class DenseFieldConfig:
    """How a dense field keeps and searches its vectors.

    Attributes
    ----------
    dim : int
        Numbers of a vector.
    vectors_per_doc : int
        Vectors of a document, of which the best decides (ME-BERT, arXiv 2005.00181).
    keep : {"float16", "float32", "int8"}
        Numbers as they are kept, and scored. float16 rounds them by at most 2^-11 of their size; int8 by half of a 127th of the
        vector's largest.
    structure : {"auto", "flat", "ivf", "hnsw"}
        What a search looks through: all vectors; lists of vectors, the nearest ones (inverted file); a graph (HNSW, arXiv
        1603.09320). "auto": all vectors up to `AUTO_BYTES`, then lists.
    quantise : {"none", "int8", "pq", "opq"}
        Codes that a search scans in place of the kept vectors: signed bytes, product quantisation, or that after a learned
        rotation. The best are scored again from the kept vectors.
    pq_bytes : int or None
        Bytes of a code. None: one for eight dimensions.
    n_lists : int or None
        None: by the number of vectors, `default_n_lists`.
    coarse_dim, search_dim : int or None
        First dimensions that choose lists, and that scans and codes compare (AdANNS, arXiv 2305.19435): for Matryoshka vectors.
        None: all.
    n_links, ef_construction : int
        HNSW: neighbours of a document on each level, twice as many on the lowest; candidates for them.
    order : {"given", "random", "lid_desc"}
        HNSW: in which order documents enter the graph; "lid_desc": those of high local intrinsic dimensionality first.
    """

    dim: int
    vectors_per_doc: int = 1
    keep: str = "float16"
    structure: str = "auto"
    quantise: str = "none"
    pq_bytes: int | None = None
    n_lists: int | None = None
    coarse_dim: int | None = None
    search_dim: int | None = None
    n_links: int = 16
    ef_construction: int = 128
    order: str = "given"

    def __post_init__(self) -> None:
        for name, allowed in (("keep", PRECISIONS), ("structure", STRUCTURES), ("quantise", CODES), ("order", ORDERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be {_choices(allowed)}")
        bounds = {
            "dim": (1, MAX_DIM), "vectors_per_doc": (1, MAX_VECTORS), "n_lists": (1, MAX_LISTS), "pq_bytes": (1, self.dim),
            "search_dim": (1, self.dim), "coarse_dim": (1, self.scan_dim), "n_links": (2, 256), "ef_construction": (1, 1 << 16),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value is not None and not (type(value) is int and low <= value <= high):
                raise ValueError(f"{name} is {value!r}: it must be {low} to {high}")
        for name in self._idle:
            raise ValueError(f"{name} has no use with structure={self.structure} and quantise={self.quantise}: leave it out")

    @property
    def _idle(self) -> list[str]:
        """Settings that were given and change nothing."""
        structure, quantise = self.structure, self.quantise
        uses = {
            "quantise": structure != "hnsw",
            "pq_bytes": quantise in ("pq", "opq"),
            "n_lists": structure in ("auto", "ivf"),
            "coarse_dim": structure in ("auto", "ivf"),
            "search_dim": structure in ("auto", "ivf") or quantise != "none",
            **dict.fromkeys(("n_links", "ef_construction", "order"), structure == "hnsw"),
        }
        return [
            each.name for each in fields(self) if not uses.get(each.name, True) and getattr(self, each.name) != each.default
        ]

    @property
    def scan_dim(self) -> int:
        """Dimensions that a scan compares."""
        return self.search_dim or self.dim

    @property
    def list_dim(self) -> int:
        """Dimensions that choose lists."""
        return self.coarse_dim or self.scan_dim

    @property
    def code_bytes(self) -> int:
        """Bytes of a product quantisation's code."""
        return self.pq_bytes or -(-self.scan_dim // 8)

    @property
    def scanned_bytes(self) -> int:
        """Bytes of a vector that a scan reads."""
        if self.quantise in ("pq", "opq"):
            return self.code_bytes
        precision = "int8" if self.quantise == "int8" else self.keep
        return {"float16": 2, "float32": 4, "int8": 1}[precision] * self.scan_dim

    def structure_of(self, n_vectors: int) -> str:
        """Return what is made of so many vectors: "flat", "ivf" or "hnsw"."""
        if self.structure != "auto":
            return self.structure
        return "ivf" if n_vectors * self.scanned_bytes > AUTO_BYTES else "flat"

    def lists_of(self, n_vectors: int) -> int:
        """Return how many lists are made of so many vectors; 0: they are scanned as they are kept."""
        listed = self.structure_of(n_vectors) == "ivf"
        n_lists = (self.n_lists or default_n_lists(n_vectors)) if listed else 1
        too_few = n_vectors < (CODE_POINTS if self.quantise in ("pq", "opq") else 1) or n_vectors < LIST_POINTS * n_lists
        return 0 if too_few or not (listed or self.quantise != "none") else n_lists

    def options(self) -> dict[str, Any]:
        """Return what makes this again: ``dim``, ``keep``, and what is not the default."""
        defaults = {each.name: each.default for each in fields(self) if each.name != "keep"}
        return {name: value for name, value in asdict(self).items() if value != defaults.get(name, ...)}


def default_n_lists(n_vectors: int) -> int:
    """Return four times the square root of the vectors, down to a power of two, so that a list has 32 or more."""
    wanted = min(4 * max(1, n_vectors) ** 0.5, n_vectors / LIST_POINTS, MAX_LISTS)
    return 1 << max(0, int(wanted).bit_length() - 1)


def _choices(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
