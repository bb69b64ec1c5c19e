"""BEIR evaluation: every query of a test collection asked of an index, for quality and latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..retrieval.terminal import audited
from .datasets import Dataset
from .latency import percentiles_ms
from .measures import DEFAULT_MEASURES, evaluate_queries, parse_measure
from .runs import Qrels, Run
from .tables import markdown_table

if TYPE_CHECKING:
    from ..retrieval.retriever import Retriever

Ranking = list[tuple[str, float]]
"""(doc_id, score), best first."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an evaluation found.

    Attributes
    ----------
    dataset : str
        Collection and split.
    n_queries : int
    n_judged, n_missing : int
        Documents with a positive judgment, and how many of them the index does not have.
    measures : mapping
        Measure -> mean over queries.
    latency_ms : mapping
        ``p50``, ``p95``, ``p99`` over queries asked one at a time.
    index : mapping
        What the index says about itself.
    fingerprint : str
        The retriever's: the tag of its run.
    run : mapping
        query_id -> (doc_id, score), best first: for ``runs.write_run``.
    per_query : mapping
        Measure -> query_id -> value: for ``measures.paired_randomisation``.
    """

    dataset: str
    n_queries: int
    n_judged: int
    n_missing: int
    measures: Mapping[str, float]
    latency_ms: Mapping[str, float]
    index: Mapping[str, Any]
    fingerprint: str
    run: Run = field(repr=False)
    per_query: Mapping[str, Mapping[str, float]] = field(repr=False)

    @property
    def warning(self) -> str | None:
        """What is wrong where the index has not all documents that answer the queries; None where it has."""
        if not self.n_missing:
            return None
        if self.n_missing == self.n_judged:
            return (
                f"none of the {self.n_judged:,} documents judged relevant in {self.dataset} is in the index, so every measure "
                "is 0: it is another collection's index, or its doc_ids are not those of the judgments"
            )
        return (
            f"{self.n_missing:,} of the {self.n_judged:,} documents judged relevant in {self.dataset} are not in the index: "
            "measures are lower than for the whole collection"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the summary as what ``json.dumps`` takes, without run and single queries."""
        return {
            "dataset": self.dataset,
            "n_queries": self.n_queries,
            "n_judged": self.n_judged,
            "n_missing": self.n_missing,
            "warning": self.warning,
            "measures": dict(self.measures),
            "latency_ms": dict(self.latency_ms),
            "index": dict(self.index),
        }

    def to_markdown(self) -> str:
        """Return the summary as a table of one row, with the encoder and the index's plain facts below."""
        columns = {"dataset": self.dataset, "queries": str(self.n_queries)}
        columns |= {measure: f"{value:.4f}" for measure, value in self.measures.items()}
        columns |= {f"{percent} ms": f"{value:.2f}" for percent, value in self.latency_ms.items()}
        table = markdown_table([list(columns), list(columns.values())])
        facts = {n: v for n, v in self.index.items() if not isinstance(v, dict | list)}
        facts["encoder"] = self.fingerprint
        audits = {name: each.get("audit") for name, each in self.index.get("fields", {}).items()}
        facts |= {f"audit of {name}": audited(each) for name, each in audits.items() if each}
        if self.warning:
            table = [f"**Warning:** {self.warning}.", "", *table]
        return "\n".join([*table, "", *(f"- {name}: {value}" for name, value in facts.items())]) + "\n"


def without_query(ranking: Ranking, query_id: str, qrels: Qrels) -> Ranking:
    """Leave out the document whose id is the query's, as BEIR does for ArguAna and Quora, which ask with their documents.

    Where the judgments of the query name that document it is an answer and stays: MedQuAD numbers questions and answers alike.
    """
    if query_id in qrels.get(query_id, {}):
        return ranking
    return [(doc_id, score) for doc_id, score in ranking if doc_id != query_id]


def evaluate_index(
    retriever: Retriever,
    dataset: Dataset,
    *,
    k: int = 1000,
    measures: Sequence[str] = DEFAULT_MEASURES,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Ask every query of a dataset and report measures and latency.

    The query's own document is left out, see `without_query`, so ``k + 1`` are asked for. Queries are asked one at a time
    and timed from text to (doc_id, score) pairs, after one that is not timed.

    Parameters
    ----------
    k : int
        Depth of the rankings.
    progress : callable, optional
        Called with the number of queries done.

    Raises
    ------
    ValueError
        ``k`` < 1, an unknown measure, or one with a cut-off deeper than ``k``.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    for measure in measures:
        if parse_measure(measure)[1] > k:
            raise ValueError(f"{measure} looks deeper than the {k} results asked for: raise k")
    if not dataset.queries:
        raise ValueError(f"{dataset.name} has no queries")
    retriever.rank([next(iter(dataset.queries.values()))], k + 1)
    run, times_s = {}, []
    for query_id, text in dataset.queries.items():
        start = time.perf_counter()
        (ranking,) = retriever.rank([text], k + 1)
        times_s.append(time.perf_counter() - start)
        run[query_id] = without_query(ranking, query_id, dataset.qrels)[:k]
        if progress is not None:
            progress(len(run))
    per_query = evaluate_queries(dataset.qrels, run, measures)
    judged = sorted({doc_id for row in dataset.qrels.values() for doc_id, relevance in row.items() if relevance > 0})
    return Report(
        dataset=dataset.name,
        n_queries=len(run),
        n_judged=len(judged),
        n_missing=int((retriever.snapshot.find(judged) < 0).sum()),
        measures={measure: sum(values.values()) / len(values) for measure, values in per_query.items()},
        latency_ms=percentiles_ms(times_s),
        index=retriever.info(),
        fingerprint=retriever.fingerprint,
        run=run,
        per_query=per_query,
    )
