"""Test collections: queries and judgments of a BEIR folder or of the ir_datasets package.

::

    FOLDER/queries.jsonl[.gz]    {"_id": ..., "text": ...} a line
    FOLDER/qrels/SPLIT.tsv       header, then query-id <TAB> corpus-id <TAB> score; also TREC's four columns

BEIR: Thakur et al., "BEIR: A heterogenous benchmark for zero-shot evaluation of information retrieval
models", NeurIPS Datasets and Benchmarks 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..index.errors import DatasetError, MissingDependencyError
from ..retrieval.corpora.reading import Fields, read_corpus
from .runs import Qrels, judgments

COLLECTIONS = Path(__file__).parent / "collections"  # in the repository, not in the wheel


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Queries that can be evaluated, and their judgments.

    Attributes
    ----------
    name : str
        Collection and split, as in ``scifact/test``.
    queries : mapping
        query_id -> text: exactly the queries with at least one positive judgment. A query with none scores 0
        whatever is found, so it would only shrink every mean.
    qrels : mapping
        query_id -> doc_id -> relevance, of the same queries.
    n_unjudged : int
        Queries that were left out.
    """

    name: str
    queries: Mapping[str, str]
    qrels: Qrels
    n_unjudged: int = 0


def load_dataset(name_or_path: str | Path, split: str = "test") -> Dataset:
    """Load queries and judgments; only queries with a positive judgment are kept.

    Parameters
    ----------
    name_or_path : str or Path
        A BEIR folder; the name of a folder in the repository's ``eval/collections``; or an id of ir_datasets,
        with or without ``ir_datasets:`` before it. Of an id without judgments of its own, ``id/split`` is
        taken.
    split : str
        Which judgments: the file ``qrels/SPLIT.tsv``.

    Raises
    ------
    DatasetError
        The collection or the split is not there, or a file is malformed: path and line.
    MissingDependencyError
        The name is no folder, and ir_datasets is not installed.
    """
    name = str(name_or_path)
    for folder in (Path(name), COLLECTIONS / name):
        if folder.is_dir():
            return _load_folder(folder, split)
    if Path(name).exists():
        raise DatasetError("is a file; a BEIR folder is expected (queries.jsonl, qrels/)", path=name)
    return _load_ir_datasets(name.removeprefix("ir_datasets:"), split)


def _load_folder(folder: Path, split: str) -> Dataset:
    qrels_path = folder / "qrels" / f"{split}.tsv"
    if not qrels_path.is_file():
        present = ", ".join(sorted(path.stem for path in qrels_path.parent.glob("*.tsv"))) or "none"
        raise DatasetError(f"no split {split!r} (qrels/{split}.tsv); there is: {present}", path=folder)
    names = ("queries.jsonl", "queries.jsonl.gz")
    queries_path = next((folder / name for name in names if (folder / name).is_file()), None)
    if queries_path is None:
        raise DatasetError("the folder has no queries.jsonl or queries.jsonl.gz", path=folder)
    queries = _read_queries(queries_path)
    qrels: dict[str, dict[str, int]] = {}
    for line, query_id, doc_id, relevance in judgments(qrels_path):
        if query_id not in queries:
            raise DatasetError(f"query {query_id!r} is not in {queries_path.name}", path=qrels_path, line=line)
        qrels.setdefault(query_id, {})[doc_id] = relevance
    return _dataset(f"{folder.resolve().name}/{split}", queries, qrels)


def _read_queries(path: Path) -> dict[str, str]:
    queries: dict[str, str] = {}
    corpus = read_corpus([str(path)], fields=Fields(title=(), metadata=()))  # same form as documents
    for query in corpus:
        if query.doc_id in queries:
            line = corpus.place.line if corpus.place else None
            raise DatasetError(f"query {query.doc_id!r} is there twice", path=path, line=line)
        queries[query.doc_id] = query.text
    return queries


def _load_ir_datasets(dataset_id: str, split: str) -> Dataset:
    try:
        import ir_datasets
    except ImportError as error:
        what = f"{dataset_id!r} is no folder, and to look it up as an id"
        raise MissingDependencyError("ir_datasets", "eval", what) from error
    for candidate in (dataset_id, f"{dataset_id}/{split}"):
        try:
            found: Any = ir_datasets.load(candidate)
        except KeyError:
            continue
        if found.has_queries() and found.has_qrels():
            queries = {query.query_id: query.default_text() for query in found.queries_iter()}
            qrels: dict[str, dict[str, int]] = {}
            for judgment in found.qrels_iter():
                qrels.setdefault(judgment.query_id, {})[judgment.doc_id] = judgment.relevance
            return _dataset(candidate, queries, qrels)
    raise DatasetError(
        f"{dataset_id!r} is no folder, and ir_datasets has no queries with judgments as {dataset_id!r} "
        f"or {dataset_id + '/' + split!r}"
    )


def _dataset(name: str, queries: Mapping[str, str], qrels: Qrels) -> Dataset:
    evaluated = {
        query_id: text
        for query_id, text in queries.items()
        if any(relevance > 0 for relevance in qrels.get(query_id, {}).values())
    }
    if not evaluated:
        raise DatasetError(f"{name}: no query has a positive judgment")
    return Dataset(
        name=name, queries=evaluated, qrels={query_id: qrels[query_id] for query_id in evaluated},
        n_unjudged=len(queries) - len(evaluated),
    )  # fmt: skip
