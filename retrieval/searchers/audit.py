"""Audits: measure how much of the exact answer a field's search finds, and store the record in the index.

The truth is ``algorithm="exhaustive"`` over the vectors that the field keeps. A record holds for the vectors that it was
measured on: `Field.info` calls it outdated once they have changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...index.collection import Collection
from ...index.dense.field import DenseField
from ...index.errors import RepresentationError
from ...index.fields import Field
from ...index.representations.dense import DenseVectors
from ...index.snapshot import Snapshot
from ..encoders.registry import check_encoder, encoder_of
from ..progress import Progress
from .common import single
from .registry import field_searcher, make_options
from .sampling import N_SAMPLED, NO_SOURCE, passages_of, recall, without

K = 10


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The record of an audit.

    Attributes
    ----------
    k : int
        Answers that recall was measured of.
    generation : int
        The commit that was measured.
    vectors : str
        What tells the field's vectors then from those of other commits, `Field.vectors_digest`.
    n_docs, n_queries : int
    queries : {"given", "passages", "vectors"}
        Queries of the caller; passages of documents, encoded as queries; documents' own vectors.
    options : dict
        Of the search.
    recall, error, worst : float
        Mean share of the k best documents that the search found, its standard error over queries, and the lowest.
    cpu_ms, exhaustive_cpu_ms : float
        Median time of a query on one core.
    """

    k: int
    generation: int
    vectors: str
    n_docs: int
    n_queries: int
    queries: str
    options: dict[str, Any]
    recall: float
    error: float
    worst: float
    cpu_ms: float
    exhaustive_cpu_ms: float

    def to_json(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return asdict(self)


def audit(
    path: Path | str, field_name: str, queries: Sequence[str] | object | None = None, *, k: int = K,
    options: Mapping[str, Any] | None = None, encoder: Any = None, model: str | None = None, device: str = "cpu",
    progress: Progress | None = None, notice: Callable[[str], None] | None = None,
) -> Audit:  # fmt: skip
    """Measure recall@k of a field's search against the exhaustive one, and commit the record to the index.

    Parameters
    ----------
    path : Path or str
    field_name : str
    queries : sequence of str, encoded vectors, or None
        None: passages of `N_SAMPLED` documents, or, of a dense field without an encoder, those documents' vectors. The
        documents themselves do not count. Real queries differ from those: give some when there are any.
    k : int
    options : mapping or None
        Of the search, by name; None: the defaults.
    encoder : Encoder or None
        The field's encoder, at hand; None: it is loaded when it is needed.
    model, device
        Where the encoder's model is and runs, as in `fields.index_encoder`.
    progress : callable or None
        Called with the number of queries done.
    notice : callable or None
        Called with a sentence about what is done.

    Raises
    ------
    RepresentationError
        There is no such field, there are no documents, or the field has no encoder and cannot make queries of its vectors.
    EncoderMismatchError
        The encoder is not the one that made the field.
    ValueError
        k < 1, no queries, or options that the search does not take.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    snapshot = Snapshot.open(path)
    field = snapshot.field(field_name)
    if not field.n_docs:
        raise RepresentationError(f"{path}, field {field_name}: there are no documents to audit")
    if encoder is not None:
        check_encoder(field.record.encoder, encoder)
    elif field.record.encoder.kind != "vectors" and (queries is None or _are_texts(queries)):
        encoder = encoder_of(field.record.encoder, model=model, device=device)
    searcher = field_searcher(field, encoder)
    chosen, every = make_options(searcher, options), make_options(searcher, {"algorithm": "exhaustive"})
    asked, sources, kind = _queries(snapshot, field, queries, encoder)
    vectors = searcher.vectors(asked)
    if not len(vectors):
        raise ValueError(f"{path}, field {field_name}: an audit needs queries")
    if notice:
        notice(f"searching {field.n_docs:,} documents exhaustively with {len(vectors)} queries ({kind})")
    searcher.warm()
    recalls, times = [], []
    for number, source in enumerate(sources):
        query, depth = single(cast(Any, vectors), number), k if source == NO_SOURCE else k + 1
        start = time.thread_time()
        found = searcher.search(query, depth, options=chosen).doc_nums
        between = time.thread_time()
        best = searcher.search(query, depth, options=every).doc_nums
        times.append((between - start, time.thread_time() - between))
        recalls.append(recall(without(best, source)[:k], without(found, source)[:k]) if len(best) else 1.0)
        if progress:
            progress(number + 1)
    cpu_ms, exhaustive_cpu_ms = (np.median(times, axis=0) * 1000).round(3).tolist()
    record = Audit(
        k=k, generation=snapshot.generation, vectors=field.vectors_digest, n_docs=field.n_docs, n_queries=len(vectors),
        queries=kind, options={name: getattr(chosen, name) for name in options or {}},
        recall=round(float(np.mean(recalls)), 4), error=round(float(np.std(recalls) / np.sqrt(len(recalls))), 4),
        worst=round(float(np.min(recalls)), 4), cpu_ms=cpu_ms, exhaustive_cpu_ms=exhaustive_cpu_ms,
    )  # fmt: skip
    with Collection.open(path) as collection:
        collection.set_audit(field_name, record.to_json())
        collection.commit()
    return record


def _are_texts(queries: object) -> bool:
    return isinstance(queries, Sequence) and all(isinstance(each, str) for each in queries)


def _queries(snapshot: Snapshot, field: Field[Any], given: object, encoder: Any) -> tuple[Any, list[int], str]:
    """Return encoded queries, the document that each was made of, and their kind."""
    if isinstance(given, str):
        raise TypeError("queries are vectors or a sequence of strings, not one string")
    if given is not None:
        if _are_texts(given) and encoder is None:
            raise RepresentationError(f"{field.path}, field {field.name}: it has no encoder: give queries as vectors, or none")
        vectors: Any = encoder.encode_queries(list(cast(Sequence[str], given))) if _are_texts(given) else given
        return vectors, [NO_SOURCE] * len(vectors), "given"
    live = np.flatnonzero(np.concatenate([np.ones(s.n_docs, np.bool_) if s.live is None else s.live for s in field.segments]))
    doc_nums = np.sort(np.random.default_rng(1).choice(live, min(N_SAMPLED, len(live)), replace=False)).tolist()
    passages = {} if encoder is None else passages_of(snapshot, doc_nums)
    if passages:
        return encoder.encode_queries(list(passages.values())), list(passages), "passages"
    if isinstance(field, DenseField):
        return DenseVectors(np.stack([field.document_vector(each) for each in doc_nums])), doc_nums, "vectors"
    raise RepresentationError(f"{field.path}, field {field.name}: it has no encoder or no texts: give queries as vectors")
