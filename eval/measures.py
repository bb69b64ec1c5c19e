"""Measures of a run against judgments, computed by ranx, and a significance test between two runs.

With ``rel(i)`` the relevance of the document at rank ``i`` and a cut-off ``k`` (none: the whole ranking)::

    nDCG@k    DCG@k / ideal DCG@k,  DCG@k = sum over i <= k of rel(i) / log2(i + 1)
    MRR@k     1 / rank of the first relevant document, 0 when none is in the first k
    Recall@k  relevant documents in the first k / relevant documents
    MAP@k     sum of P@i over the ranks i <= k of relevant documents / relevant documents
    P@k       relevant documents in the first k / k

The names of ir_measures are known too: ``RR@k``, ``R@k``, ``AP@k``. Relevant is any judgment > 0. The gain of nDCG is linear,
as in trec_eval and BEIR (Järvelin & Kekäläinen, TOIS 2002; ranx's ``ndcg``), not exponential (Burges et al., ICML 2005; ranx's
``ndcg_burges``).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ..index.errors import MissingDependencyError
from .runs import Qrels, Run

DEFAULT_MEASURES = ("nDCG@10", "MRR@10", "Recall@100", "Recall@1000")

_RANX_NAMES = {
    "ndcg": "ndcg",
    "mrr": "reciprocal_rank",
    "recall": "recall",
    "map": "average_precision",
    "p": "precision",
    # as ir_measures calls them
    "rr": "reciprocal_rank",
    "r": "recall",
    "ap": "average_precision",
}
_PERMUTATIONS_AT_ONCE = 256


def parse_measure(name: str) -> tuple[str, int]:
    """Split ``"nDCG@10"`` into the name of ranx's function and the cut-off, 0 for none; case is ignored.

    Raises
    ------
    ValueError
        When there is no such measure, or the cut-off is not a whole number above 0.
    """
    match = re.fullmatch(r"([a-z]+)(?:@([1-9][0-9]*))?", name.lower())
    if match is None or match[1] not in _RANX_NAMES:
        raise ValueError(
            f"unknown measure {name!r}: use nDCG, MRR (RR), Recall (R), MAP (AP) or P, with a cut-off as in nDCG@10"
        )
    return _RANX_NAMES[match[1]], int(match[2] or 0)


def evaluate(qrels: Qrels, run: Run, measures: Sequence[str] = DEFAULT_MEASURES) -> dict[str, float]:
    """Return the mean of each measure; see ``evaluate_queries``."""
    return {
        measure: float(np.mean(list(values.values()))) for measure, values in evaluate_queries(qrels, run, measures).items()
    }


def evaluate_queries(qrels: Qrels, run: Run, measures: Sequence[str] = DEFAULT_MEASURES) -> dict[str, dict[str, float]]:
    """Return measure -> query_id -> value, with measures named as given.

    Every query with a positive judgment counts, with 0 when the run has nothing for it. Other queries of the run are passed
    over, with a warning where they have no judgment at all. A ranking is taken in the order given: ties are not broken again.

    Raises
    ------
    ValueError
        A measure is unknown, a ranking names a document twice, or no query has a positive judgment.
    MissingDependencyError
        ranx is not installed.
    """
    parsed = {measure: parse_measure(measure) for measure in measures}
    query_ids = [query_id for query_id, judged in qrels.items() if any(r > 0 for r in judged.values())]
    if not query_ids:
        raise ValueError("no query has a positive judgment, so there is nothing to evaluate")
    unknown = [query_id for query_id in run if query_id not in qrels]
    if unknown:
        warnings.warn(f"{len(unknown):,} queries of the run have no judgments, such as {unknown[0]!r}", stacklevel=2)
    metrics = _ranx_metrics()
    from numba.core.errors import NumbaTypeSafetyWarning
    from numba.typed import List

    ideals, rankings = List(), List()
    for query_id in query_ids:
        ideal, ranking = _as_arrays(query_id, qrels[query_id], run.get(query_id, ()))
        ideals.append(ideal)
        rankings.append(ranking)
    results = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaTypeSafetyWarning)  # of ranx's own code, when it is compiled
        for measure, (function, cutoff) in parsed.items():
            values = getattr(metrics, function)(ideals, rankings, cutoff)
            results[measure] = dict(zip(query_ids, map(float, values), strict=True))
    return results


def _ranx_metrics() -> ModuleType:
    """Import ranx, which would leave Numba's threading layer of the whole process on "workqueue"."""
    import numba

    config: Any = numba.config
    threading_layer = config.THREADING_LAYER
    try:
        import ranx.metrics
    except ImportError as error:
        raise MissingDependencyError("ranx", "eval", "evaluation") from error
    finally:
        config.THREADING_LAYER = threading_layer
    return ranx.metrics  # type: ignore[no-any-return]


def _as_arrays(query_id: str, judged: Mapping[str, int], ranking: Sequence[tuple[str, float]]) -> tuple[Any, Any]:
    """Return what ranx's functions take: judgments and ranking, (n, 2) float64, best first.

    Columns are the document, numbered by judgment, -1 for those not judged, and its relevance (in the
    ranking: not read). ranx's own conversion hashes ids, orders ties by chance and fails when no query has
    results.
    """
    doc_ids = [doc_id for doc_id, _ in ranking]
    if len(set(doc_ids)) != len(doc_ids):
        raise ValueError(f"the run names a document twice for query {query_id!r}")
    numbers = {doc_id: i for i, doc_id in enumerate(sorted(judged, key=lambda d: -judged[d]))}
    ideal = np.array([(i, judged[doc_id]) for doc_id, i in numbers.items()], np.float64)
    found = np.zeros((len(ranking), 2))
    found[:, 0] = [numbers.get(doc_id, -1) for doc_id in doc_ids]
    return ideal, found


def paired_randomisation(a: Mapping[str, float], b: Mapping[str, float], n_permutations: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p-value that two runs differ in mean as much by chance alone.

    The signs of the per-query differences are drawn at random (Smucker, Allan & Carterette, CIKM 2007). The
    observed signs count as one draw, so p is never below 1 / (n_permutations + 1).

    Parameters
    ----------
    a, b : mapping
        query_id -> value of the same queries.

    Raises
    ------
    ValueError
        When the queries differ, or there are none, or ``n_permutations`` < 1.
    """
    if a.keys() != b.keys() or not a:
        raise ValueError("a paired test needs the same queries on both sides, and at least one")
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1, not {n_permutations}")
    differences = np.array([a[query_id] - b[query_id] for query_id in a])
    observed = abs(differences.sum()) - 1e-9  # equal sums may differ in their last bits
    random = np.random.default_rng(seed)
    n_as_large = 0
    for start in range(0, n_permutations, _PERMUTATIONS_AT_ONCE):
        n_draws = min(_PERMUTATIONS_AT_ONCE, n_permutations - start)
        signs = random.choice([-1.0, 1.0], size=(n_draws, len(differences)))
        n_as_large += int(np.count_nonzero(np.abs(signs @ differences) >= observed))
    return (n_as_large + 1) / (n_permutations + 1)
