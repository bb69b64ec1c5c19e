"""Inner products of a query with dense vectors, row by row: a row's product does not depend on the other rows."""

from __future__ import annotations

from ...index.arrays import Floats
from ...index.kernels import sum_kernel


@sum_kernel
def inner_products(rows: Floats, query: Floats, out: Floats) -> None:
    """Write the inner product of each row (n, dim) with the query (dim,) to ``out`` (n,)."""
    for i in range(len(rows)):
        total = out[i] * 0
        for j in range(len(query)):
            total += rows[i, j] * query[j]
        out[i] = total
