"""Several systems on several test collections, in one table: nDCG@10, significance, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from ...retrieval.fields import FieldEncoder
from ..measures import evaluate_queries
from ..significance import MEAN, compare_with_first
from ..tables import markdown_table
from .corpora import Collection, Workplace, load_collection
from .ranking import Costs, run_systems
from .systems import System, checked

MEASURE = "nDCG@10"
LEVEL = 0.05
"""Corrected p-values below it are marked."""


@dataclass(frozen=True, kw_only=True)
class SuiteReport:
    """What a comparison found.

    Attributes
    ----------
    scores : mapping
        System -> collection -> mean nDCG@10; with several collections also ``"mean"``, over them.
    p_values : mapping
        System, but for the first -> collection, ``"mean"`` -> p-value against the first system, see `significance`.
    costs : mapping
        Collection -> Costs.
    n_queries : mapping
        Collection -> number of queries.
    per_query : mapping
        System -> collection -> query_id -> nDCG@10.
    """

    scores: Mapping[str, Mapping[str, float]]
    p_values: Mapping[str, Mapping[str, float]]
    costs: Mapping[str, Costs]
    n_queries: Mapping[str, int]
    per_query: Mapping[str, Mapping[str, Mapping[str, float]]] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return everything but single queries as what ``json.dumps`` takes."""
        return {
            "measure": MEASURE,
            "n_queries": dict(self.n_queries),
            "systems": {
                name: {
                    "scores": dict(scores),
                    "p_values": dict(self.p_values.get(name, {})),
                }
                for name, scores in self.scores.items()
            },
            "costs": {place: asdict(costs) for place, costs in self.costs.items()},
        }

    def to_markdown(self) -> str:
        """Return three tables: scores, query times, and what texts become in each field, averaged over collections."""
        first = next(iter(self.scores))
        rows = [["system", *self.scores[first]]]
        rows += [[name, *(self._cell(name, column) for column in scores)] for name, scores in self.scores.items()]
        queries = ", ".join(f"{collection} {n:,}" for collection, n in self.n_queries.items())
        notes = [f"{MEASURE}; queries: {queries}."]
        if self.p_values:
            notes.append(
                f"(+) better, (-) worse than {first}: paired randomisation test, p < {LEVEL} after Holm's correction for "
                f"{len(self.p_values)} systems."
            )
        return "\n".join([*markdown_table(rows), "", *notes, "", *self._query_table(), "", *self._field_table()]) + "\n"

    def _query_table(self) -> list[str]:
        rows = [["system", "query p50 ms"]]
        for name in self.scores:
            rows.append([name, f"{fmean(costs.query_ms[name] for costs in self.costs.values()):,.1f}"])
        return markdown_table(rows)

    def _field_table(self) -> list[str]:
        rows = [["field", "unit", "per document", "per query"]]
        for name in next(iter(self.costs.values())).fields:
            costs = [each.fields[name] for each in self.costs.values()]
            sizes = (fmean(getattr(cost, part) for cost in costs) for part in ("per_document", "per_query"))
            rows.append([name, costs[0].unit, *(f"{size:,.1f}" for size in sizes)])
        speed = fmean(each.documents_per_s for each in self.costs.values())
        return [*markdown_table(rows), "", f"All fields are encoded in one pass: {speed:,.1f} documents/s."]

    def _cell(self, name: str, column: str) -> str:
        first, score = next(iter(self.scores.values()))[column], self.scores[name][column]
        if self.p_values.get(name, {}).get(column, 1.0) >= LEVEL:
            return f"{score:.4f}"
        return f"{score:.4f} ({'+' if score > first else '-'})"


def evaluate_suite(
    folders: Sequence[str], systems: Sequence[System], fields: Mapping[str, FieldEncoder], work: Workplace, *,
    split: str = "test", n_documents: int = 0,
) -> SuiteReport:  # fmt: skip
    """Evaluate systems on collections.

    Parameters
    ----------
    folders : sequence of str
        BEIR folders, with names of their own.
    systems : sequence of System
        The others are tested against the first; see `systems`.
    fields : mapping of str to FieldEncoder
        The fields of each collection's index.
    work : Workplace
        Where indexes are kept, and who is told what is going on.
    split : str
        Which judgments.
    n_documents : int
        Of each collection the documents judged, and others up to so many in all; 0: all.

    Raises
    ------
    ValueError
        No folders, two of the same name, or systems that make no sense.
    DatasetError
        See `corpora.load_collection`.
    """
    systems = checked(systems, fields)
    collections = [load_collection(folder, split, n_documents=n_documents) for folder in folders]
    names = [collection.folder.name for collection in collections]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a suite needs folders with names of their own, not {', '.join(names) or 'none'}")
    per_query: dict[str, dict[str, dict[str, float]]] = {system.name: {} for system in systems}
    costs: dict[str, Costs] = {}
    for name, collection in zip(names, collections, strict=True):
        values, costs[name] = _evaluate(systems, fields, collection, work)
        for system in values:
            per_query[system][name] = values[system]
        means = ", ".join(f"{system} {fmean(of_query.values()):.4f}" for system, of_query in values.items())
        work.say(f"{name}: {means}")
    p_values = compare_with_first(per_query)
    several = len(names) > 1
    return SuiteReport(
        scores={system: _means(of_collection, several=several) for system, of_collection in per_query.items()},
        p_values={s: {c: p for c, p in columns.items() if several or c != MEAN} for s, columns in p_values.items()},
        costs=costs,
        n_queries={name: len(collection.dataset.queries) for name, collection in zip(names, collections, strict=True)},
        per_query=per_query,
    )


def _evaluate(
    systems: Sequence[System], fields: Mapping[str, FieldEncoder], collection: Collection, work: Workplace
) -> tuple[dict[str, dict[str, float]], Costs]:
    """System -> query_id -> value on one collection, and what that took."""
    dataset, values = collection.dataset, {}
    rankings, costs = run_systems(systems, fields, collection, work)
    for name, found in rankings.items():
        run = dict(zip(dataset.queries, found, strict=True))
        values[name] = evaluate_queries(dataset.qrels, run, [MEASURE])[MEASURE]
    return values, costs


def _means(of_collection: Mapping[str, Mapping[str, float]], *, several: bool) -> dict[str, float]:
    means = {name: fmean(values.values()) for name, values in of_collection.items()}
    return {**means, MEAN: fmean(means.values())} if several else means
