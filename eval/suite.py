"""Several systems on several test collections, in one table: nDCG@10, significance, and what the encoders make of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from ..retrieval.encoders.base import Encoder
from .measures import evaluate_queries
from .significance import MEAN, compare_with_first
from .systems import Collection, Encoding, Say, System, load_collection, load_encoders, measure_encoding, open_system, rank_all

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
    encodings : mapping
        System that encodes -> collection -> Encoding.
    n_queries : mapping
        Collection -> number of queries.
    per_query : mapping
        System -> collection -> query_id -> nDCG@10.
    """

    scores: Mapping[str, Mapping[str, float]]
    p_values: Mapping[str, Mapping[str, float]]
    encodings: Mapping[str, Mapping[str, Encoding]]
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
                    "encoding": {place: asdict(facts) for place, facts in self.encodings.get(name, {}).items()},
                }
                for name, scores in self.scores.items()
            },
        }

    def to_markdown(self) -> str:
        """Return two tables: scores, and encodings averaged over collections."""
        first = next(iter(self.scores))
        rows = [["system", *self.scores[first]]]
        rows += [[name, *(self._cell(name, column) for column in scores)] for name, scores in self.scores.items()]
        facts = [["system", "unit", "per document", "per query", "documents/s", "queries/s"]]
        facts += [[name, *_averages(list(encodings.values()))] for name, encodings in self.encodings.items()]
        queries = ", ".join(f"{collection} {n:,}" for collection, n in self.n_queries.items())
        notes = [f"{MEASURE}; queries: {queries}."]
        if self.p_values:
            notes.append(
                f"(+) better, (-) worse than {first}: paired randomisation test, p < {LEVEL} after Holm's correction for "
                f"{len(self.p_values)} systems."
            )
        return "\n".join([*_table(rows), "", *notes, "", *_table(facts)]) + "\n"

    def _cell(self, name: str, column: str) -> str:
        first, score = next(iter(self.scores.values()))[column], self.scores[name][column]
        if self.p_values.get(name, {}).get(column, 1.0) >= LEVEL:
            return f"{score:.4f}"
        return f"{score:.4f} ({'+' if score > first else '-'})"


def evaluate_suite(
    folders: Sequence[str], systems: Sequence[System], work: Path | str, *, split: str = "test", device: str = "cpu",
    say: Say | None = None,
) -> SuiteReport:  # fmt: skip
    """Evaluate systems on collections; what cannot work is known before the first index is built.

    Parameters
    ----------
    folders : sequence of str
        BEIR folders, with names of their own.
    systems : sequence of System
        The others are tested against the first; see `systems.parse_systems`.
    work : Path or str
        Where indexes are kept.
    split : str
        Which judgments.
    device : str
        Where models run.
    say : callable, optional
        Told what is going on, in lines.

    Raises
    ------
    ValueError
        No folders, or two of the same name.
    DatasetError, RepresentationError
        See `systems.load_collection` and `systems.load_encoders`.
    """
    collections = [load_collection(folder, split) for folder in folders]
    names = [collection.folder.name for collection in collections]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a suite needs folders with names of their own, not {', '.join(names) or 'none'}")
    encoders = load_encoders(systems, device=device)
    per_query: dict[str, dict[str, dict[str, float]]] = {system.name: {} for system in systems}
    encodings: dict[str, dict[str, Encoding]] = {name: {} for name in encoders}
    for name, collection in zip(names, collections, strict=True):
        values, facts = _evaluate(systems, encoders, collection, Path(work), say)
        for system in systems:
            per_query[system.name][name] = values[system.name]
        for encoder, encoding in facts.items():
            encodings[encoder][name] = encoding
        if say:
            means = ", ".join(f"{system} {fmean(of_query.values()):.4f}" for system, of_query in values.items())
            say(f"{name}: {means}")
    p_values = compare_with_first(per_query)
    several = len(names) > 1
    return SuiteReport(
        scores={system: _means(of_collection, several=several) for system, of_collection in per_query.items()},
        p_values={s: {c: p for c, p in columns.items() if several or c != MEAN} for s, columns in p_values.items()},
        encodings=encodings,
        n_queries={name: len(collection.dataset.queries) for name, collection in zip(names, collections, strict=True)},
        per_query=per_query,
    )


def _evaluate(
    systems: Sequence[System], encoders: Mapping[str, Encoder], collection: Collection, work: Path, say: Say | None
) -> tuple[dict[str, dict[str, float]], dict[str, Encoding]]:
    """System -> query_id -> value on one collection, and what its encoders make of it."""
    dataset = collection.dataset
    with ExitStack() as stack:
        retrievers = {
            name: stack.enter_context(open_system(encoder, collection, work, say=say)) for name, encoder in encoders.items()
        }
        facts = {name: measure_encoding(retriever, collection) for name, retriever in retrievers.items()}
        rankings = rank_all(systems, retrievers, dataset)
    values = {}
    for name, found in rankings.items():
        run = dict(zip(dataset.queries, found, strict=True))
        values[name] = evaluate_queries(dataset.qrels, run, [MEASURE])[MEASURE]
    return values, facts


def _means(of_collection: Mapping[str, Mapping[str, float]], *, several: bool) -> dict[str, float]:
    means = {name: fmean(values.values()) for name, values in of_collection.items()}
    return {**means, MEAN: fmean(means.values())} if several else means


def _averages(encodings: Sequence[Encoding]) -> list[str]:
    numbers = ("per_document", "per_query", "documents_per_s", "queries_per_s")
    return [encodings[0].unit, *(f"{fmean(getattr(each, number) for each in encodings):,.1f}" for number in numbers)]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    aligns = ["---", *["---:"] * (len(rows[0]) - 1)]
    return [f"| {' | '.join(row)} |" for row in (rows[0], aligns, *rows[1:])]
