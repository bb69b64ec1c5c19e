r"""BM25 as impacts (Robertson et al., TREC-3; the variant of Lucene 8+ and of Kamphuis et al., ECIR 2020).

.. math::

    score(q, d) = \sum_{t \in q} count(t, q) \; idf(t) \; \frac{tf}{tf + k_1 (1 - b + b \, |d| / avgdl)}

    idf(t) = \ln\left(1 + \frac{N - df + 1/2}{df + 1/2}\right)

The fraction, which lies in (0, 1], is the document's weight and is stored as an impact; idf depends on the collection as it
is when a query comes, so it belongs to the query's weight. N, df and the average length are those of the live documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Floats, Int64s

SCALE = 255.0
"""Impact = weight x SCALE, or a multiple of it (`weighing.bm25_scale`)."""


@dataclass(frozen=True, kw_only=True)
class Bm25:
    """Parameters, with Lucene's defaults. Raises ValueError outside 0 <= k1 < inf, 0 <= b <= 1."""

    k1: float = 1.2
    b: float = 0.75

    def __post_init__(self) -> None:
        if not (0 <= self.k1 < inf and 0 <= self.b <= 1):
            raise ValueError(f"BM25 needs a finite k1 >= 0 and 0 <= b <= 1, not k1={self.k1}, b={self.b}")

    def document_weights(
        self, counts: npt.NDArray[np.unsignedinteger[Any]], indptr: Int64s, lengths: Int64s, average_length: float
    ) -> Floats:
        """Weights in (0, 1] of the (nnz,) counts; row ``i`` has ``lengths[i]`` tokens."""
        norms = self.k1 * (1 - self.b + self.b * lengths / max(average_length, 1e-9))
        tf = counts.astype(np.float32)
        return (tf / (tf + np.repeat(norms.astype(np.float32), np.diff(indptr)))).astype(np.float32)
