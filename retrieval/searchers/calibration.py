"""Which options of the centroid searcher reach which recall on this index: tried once, stored in it, chosen from later."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...index.collection import Collection
from ...index.errors import RepresentationError
from ...index.representations.multivectors import MultiVectors
from ...index.snapshot import Snapshot
from ..progress import Progress
from .centroid import CentroidOptions, CentroidSearcher
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
"""Settings that are tried, from cheap to dear."""


def calibrate(
    path: Path | str, queries: MultiVectors | None = None, *, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Measure recall@10 and time of the ladder of options against exact MaxSim, and commit the table to the index.

    Parameters
    ----------
    path : Path or str
    queries : MultiVectors or None
        A sample of real queries, some hundred. None: up to 32 tokens of `N_SAMPLED` documents, noised; the documents
        themselves do not count. Real queries differ from those: give some when there are any.
    progress : callable or None
        Called with the number of settings tried.

    Returns
    -------
    list of mapping
        ``options``, ``recall@10`` and ``cpu_ms`` (median of a query), as it is stored.

    Raises
    ------
    RepresentationError
        The index holds sparse vectors, or no documents.
    """
    snapshot = Snapshot.open(path)
    searcher, oracle = CentroidSearcher(snapshot), MaxSimSearcher(snapshot)
    if not snapshot.n_docs:
        raise RepresentationError(f"{path}: there are no documents to calibrate on")
    sources = np.full(0 if queries is None else len(queries), -1)
    if queries is None:
        queries, sources = _sampled(snapshot)
    exact = [oracle.search(_single(queries, i), K + 1).doc_nums for i in range(len(queries))]
    table = []
    for n_tried, options in enumerate(LADDER, 1):
        recalls, times = [], []
        for i in range(len(queries)):
            query = _single(queries, i)
            start = time.thread_time()
            found = searcher.search(query, K + 1, options=options).doc_nums
            times.append(time.thread_time() - start)
            recalls.append(_recall(found, exact[i], int(sources[i])))
        table.append(
            {"options": asdict(options), "recall@10": round(float(np.mean(recalls)), 4),
             "cpu_ms": round(float(np.median(times)) * 1000, 3)}
        )  # fmt: skip
        if progress:
            progress(n_tried)
    with Collection.open(path) as collection:
        collection.calibration = table
        collection.commit()
    return table


def options_for(snapshot: Snapshot, target_recall: float) -> CentroidOptions:
    """Return the cheapest options that reached the recall when the index was calibrated.

    Raises
    ------
    ValueError
        A target outside of (0, 1], an index that was not calibrated, or a recall that nothing reached.
    """
    if not 0 < target_recall <= 1:
        raise ValueError(f"target_recall must be in (0, 1], not {target_recall}")
    table = snapshot.manifest.calibration
    if not table:
        raise ValueError(f"{snapshot.path}: not calibrated: run `lexmax calibrate {snapshot.path}` once")
    enough = [row for row in table if row["recall@10"] >= target_recall]
    if not enough:
        best = max(row["recall@10"] for row in table)
        raise ValueError(f"{snapshot.path}: recall {target_recall} was not reached, the best is {best}; search exhaustively")
    return CentroidOptions(**min(enough, key=lambda row: float(row["cpu_ms"]))["options"])


def _sampled(snapshot: Snapshot) -> tuple[MultiVectors, np.ndarray[Any, np.dtype[np.int64]]]:
    """Make queries of documents' tokens, moved a little; and say which documents those are."""
    generator = np.random.default_rng(1)
    n_docs = sum(segment.record.n_docs for segment in snapshot.segments)
    numbers = np.sort(generator.choice(n_docs, min(N_SAMPLED, n_docs), replace=False))
    matrices, sources = [], []
    for number in numbers.tolist():
        tokens = snapshot.document_tokens(number)
        if len(tokens):
            picked = tokens[np.sort(generator.choice(len(tokens), min(QUERY_TOKENS, len(tokens)), replace=False))]
            moved = picked + generator.standard_normal(picked.shape).astype(np.float32) * 0.3 / np.sqrt(picked.shape[1])
            matrices.append((moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32))
            sources.append(number)
    dim = snapshot.codec.dim if snapshot.codec else 1
    return MultiVectors.of(matrices, dim), np.array(sources, np.int64)


def _single(queries: MultiVectors, number: int) -> MultiVectors:
    return MultiVectors.of([queries.row(number)], queries.dim)


def _recall(found: Sequence[int] | np.ndarray[Any, Any], exact: np.ndarray[Any, Any], source: int) -> float:
    wanted = [number for number in exact.tolist() if number != source][:K]
    return len(set(wanted) & set(np.asarray(found).tolist())) / max(1, len(wanted))
