"""Several systems on several test collections, in one table: nDCG@10, significance, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from ..measures import evaluate_queries
from ..significance import MEAN, compare_with_first
from .corpora import Collection, Workplace, load_collection
from .ranking import Cost, run_systems
from .systems import AnyEncoder, EncoderSpec, System, load_encoders

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
        System -> collection -> Cost.
    n_queries : mapping
        Collection -> number of queries.
    per_query : mapping
        System -> collection -> query_id -> nDCG@10.
    """

    scores: Mapping[str, Mapping[str, float]]
    p_values: Mapping[str, Mapping[str, float]]
    costs: Mapping[str, Mapping[str, Cost]]
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
                    "costs": {place: asdict(cost) for place, cost in self.costs[name].items()},
                }
                for name, scores in self.scores.items()
            },
        }

    def to_markdown(self) -> str:
        """Return two tables: scores, and costs averaged over collections."""
        first = next(iter(self.scores))
        rows = [["system", *self.scores[first]]]
        rows += [[name, *(self._cell(name, column) for column in scores)] for name, scores in self.scores.items()]
        costs = [["system", "unit", "per document", "per query", "documents/s", "query p50 ms"]]
        costs += [[name, *_averages(list(of_collection.values()))] for name, of_collection in self.costs.items()]
        queries = ", ".join(f"{collection} {n:,}" for collection, n in self.n_queries.items())
        notes = [f"{MEASURE}; queries: {queries}."]
        if self.p_values:
            notes.append(
                f"(+) better, (-) worse than {first}: paired randomisation test, p < {LEVEL} after Holm's correction for "
                f"{len(self.p_values)} systems."
            )
        return "\n".join([*_table(rows), "", *notes, "", *_table(costs)]) + "\n"

    def _cell(self, name: str, column: str) -> str:
        first, score = next(iter(self.scores.values()))[column], self.scores[name][column]
        if self.p_values.get(name, {}).get(column, 1.0) >= LEVEL:
            return f"{score:.4f}"
        return f"{score:.4f} ({'+' if score > first else '-'})"


def evaluate_suite(
    folders: Sequence[str], systems: Sequence[System], work: Workplace, *, split: str = "test", device: str = "cpu",
    n_documents: int = 0,
) -> SuiteReport:  # fmt: skip
    """Evaluate systems on collections; what cannot work is known before the first index is built.

    Parameters
    ----------
    folders : sequence of str
        BEIR folders, with names of their own.
    systems : sequence of System
        The others are tested against the first; see `systems.parse_systems`.
    work : Workplace
        Where indexes are kept, and who is told what is going on.
    split : str
        Which judgments.
    device : str
        Where models run.
    n_documents : int
        Of each collection the documents judged, and others up to so many in all; 0: all.

    Raises
    ------
    ValueError
        No folders, or two of the same name, or a setting that its encoder does not take.
    DatasetError, RepresentationError
        See `corpora.load_collection` and `systems.load_encoders`.
    """
    collections = [load_collection(folder, split, n_documents=n_documents) for folder in folders]
    names = [collection.folder.name for collection in collections]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a suite needs folders with names of their own, not {', '.join(names) or 'none'}")
    encoders = load_encoders(systems, device=device)
    per_query: dict[str, dict[str, dict[str, float]]] = {system.name: {} for system in systems}
    costs: dict[str, dict[str, Cost]] = {system.name: {} for system in systems}
    for name, collection in zip(names, collections, strict=True):
        values, of_system = _evaluate(systems, encoders, collection, work)
        for system in values:
            per_query[system][name], costs[system][name] = values[system], of_system[system]
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
    systems: Sequence[System], encoders: Mapping[EncoderSpec, AnyEncoder], collection: Collection, work: Workplace
) -> tuple[dict[str, dict[str, float]], dict[str, Cost]]:
    """System -> query_id -> value on one collection, and what each system takes."""
    dataset, values = collection.dataset, {}
    rankings, costs = run_systems(systems, encoders, collection, work)
    for name, found in rankings.items():
        run = dict(zip(dataset.queries, found, strict=True))
        values[name] = evaluate_queries(dataset.qrels, run, [MEASURE])[MEASURE]
    return values, costs


def _means(of_collection: Mapping[str, Mapping[str, float]], *, several: bool) -> dict[str, float]:
    means = {name: fmean(values.values()) for name, values in of_collection.items()}
    return {**means, MEAN: fmean(means.values())} if several else means


def _averages(costs: Sequence[Cost]) -> list[str]:
    speeds = [f"{fmean(cost.documents_per_s for cost in costs):,.1f}", f"{fmean(cost.query_ms for cost in costs):,.1f}"]
    encodings = [cost.encoding for cost in costs if cost.encoding is not None]
    if not encodings:
        return ["", "", "", *speeds]
    sizes = [f"{fmean(getattr(each, name) for each in encodings):,.1f}" for name in ("per_document", "per_query")]
    return [encodings[0].unit, *sizes, *speeds]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    aligns = ["---", *["---:"] * (len(rows[0]) - 1)]
    return [f"| {' | '.join(row)} |" for row in (rows[0], aligns, *rows[1:])]
