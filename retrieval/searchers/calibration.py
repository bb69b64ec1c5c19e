"""Calibration: measure which options of the centroid searcher reach which recall on a field, and store the table in the index.

`CentroidOptions.target_recall` chooses from the table.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arrays import Int32s, Int64s
from ...index.collection import Collection
from ...index.errors import RepresentationError
from ...index.multivector.field import TokenField
from ...index.representations.multivectors import MultiVectors
from ...index.snapshot import Snapshot
from ..progress import Progress
from .centroid import CentroidOptions, CentroidSearcher
from .common import checked_field, single
from .maxsim import MaxSimSearcher

K = 10
N_SAMPLED = 100
QUERY_TOKENS = 32
LADDER = [
    CentroidOptions(n_probe=n_probe, n_gathered=n_gathered, n_candidates=n_candidates, n_exact=n_exact)
    for n_probe, n_gathered, n_candidates, n_exact in [
        (4, 256, 64, 32), (8, 512, 128, 32), (16, 512, 256, 32), (32, 1024, 256, 32), (32, 1024, 512, 32), (32, 2048, 512, 64),
        (64, 2048, 1024, 64), (64, 4096, 2048, 128), (128, 8192, 4096, 128), (256, 32768, 16384, 256),
    ]
]  # fmt: skip
"""Settings that are tried, from cheap to expensive."""


def calibrate(
    path: Path | str, field_name: str | None = None, queries: MultiVectors | None = None, *, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Measure recall@10 and time of the ladder of options against exact MaxSim, and commit the table to the index.

    Parameters
    ----------
    path : Path or str
    field_name : str or None
        None: the only field of token vectors.
    queries : MultiVectors or None
        A sample of real queries, some hundred. None: up to 32 tokens of `N_SAMPLED` documents, with noise; the documents
        themselves do not count. Real queries differ from those: give some when there are any.
    progress : callable or None
        Called with the number of settings tried.

    Returns
    -------
    list of mapping
        ``options``, ``recall@10`` and ``cpu_ms`` (median per query), as it is stored.

    Raises
    ------
    RepresentationError
        There is no such field, none or several of token vectors and no name, or no documents.
    """
    snapshot = Snapshot.open(path)
    field = token_field(snapshot, field_name)
    searcher, oracle = CentroidSearcher(field), MaxSimSearcher(field)
    if not field.n_docs:
        raise RepresentationError(f"{path}: there are no documents to calibrate on")
    sources = np.full(0 if queries is None else len(queries), -1)
    if queries is None:
        queries, sources = _sampled(field)
    exact = [oracle.search(single(queries, i), K + 1).doc_nums for i in range(len(queries))]
    table = []
    for n_tried, options in enumerate(LADDER, 1):
        recalls, times = [], []
        for i in range(len(queries)):
            query = single(queries, i)
            start = time.thread_time()
            found = searcher.search(query, K + 1, options=options).doc_nums
            times.append(time.thread_time() - start)
            recalls.append(_recall(found, exact[i], int(sources[i])))
        table.append(
            {"options": options.numbers, "recall@10": round(float(np.mean(recalls)), 4),
             "cpu_ms": round(float(np.median(times)) * 1000, 3)}
        )  # fmt: skip
        if progress:
            progress(n_tried)
    with Collection.open(path) as collection:
        collection.set_calibration(field.name, table)
        collection.commit()
    return table


def token_field(snapshot: Snapshot, name: str | None = None) -> TokenField:
    """Return a field of token vectors by name, or the only one; raises RepresentationError when there is none."""
    if name is not None:
        return checked_field(snapshot.field(name), TokenField, "token vectors")
    return snapshot.only_field(TokenField, "token vectors")


def _sampled(field: TokenField) -> tuple[MultiVectors, Int64s]:
    """Make queries of documents' tokens, with noise, and return the doc_nums of those documents too."""
    generator = np.random.default_rng(1)
    numbers = np.sort(generator.choice(field.n_total, min(N_SAMPLED, field.n_total), replace=False))
    matrices, sources = [], []
    for number in numbers.tolist():
        tokens = field.document_tokens(number)
        if len(tokens):
            picked = tokens[np.sort(generator.choice(len(tokens), min(QUERY_TOKENS, len(tokens)), replace=False))]
            moved = picked + generator.standard_normal(picked.shape).astype(np.float32) * 0.3 / np.sqrt(picked.shape[1])
            matrices.append((moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32))
            sources.append(number)
    return MultiVectors.of(matrices, field.config.dim), np.array(sources, np.int64)


def _recall(found: Int32s, exact: Int32s, source: int) -> float:
    wanted = [number for number in exact.tolist() if number != source][:K]
    return len(set(wanted) & set(found.tolist())) / max(1, len(wanted))
