"""Semantic search over sparse embeddings in memory: a stand-in for sentence-transformers' ``semantic_search_*`` functions."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, overload

from ...index.collection import Collection, NewField
from ...index.documents import Document
from ...index.errors import RepresentationError
from ...index.representations.sparse import SparseVectors
from ...index.snapshot import Snapshot
from ...index.sparse.field import SparseField
from ..encoders.precomputed import VectorsEncoder
from ..fields import encoder_record
from ..searchers.blockmax import BlockMaxSearcher
from .vectors import to_sparse_vectors

Found = list[list[dict[str, int | float]]]


@overload
def semantic_search_lexmax(
    query_embeddings: object, corpus_embeddings: object = None, corpus_index: SemanticIndex | Path | str | None = None,
    top_k: int = 10, output_index: Literal[False] = False,
) -> tuple[Found, float]: ...  # fmt: skip


@overload
def semantic_search_lexmax(
    query_embeddings: object, corpus_embeddings: object = None, corpus_index: SemanticIndex | Path | str | None = None,
    top_k: int = 10, *, output_index: Literal[True],
) -> tuple[Found, float, SemanticIndex]: ...  # fmt: skip


def semantic_search_lexmax(
    query_embeddings: object, corpus_embeddings: object = None, corpus_index: SemanticIndex | Path | str | None = None,
    top_k: int = 10, output_index: bool = False,
) -> tuple[Found, float] | tuple[Found, float, SemanticIndex]:  # fmt: skip
    """Search sparse embeddings exactly, with the signature of sentence-transformers' ``semantic_search_seismic`` and kin.

    Parameters
    ----------
    query_embeddings : whatever `to_sparse_vectors` takes
        Tensors as ``SparseEncoder.encode`` gives them, or lists as its ``decode`` does.
    corpus_embeddings : whatever `to_sparse_vectors` takes, or None
        Indexed first, in a temporary folder; of the kind of the queries. Not used with ``corpus_index``.
    corpus_index : SemanticIndex, Path, str or None
        What an earlier call gave with ``output_index``, or the folder of an index whose doc_ids are whole numbers.
    top_k : int
        Answers a query; fewer only when fewer documents share a term with it.
    output_index : bool
        Return the index too.

    Returns
    -------
    results : list of list of dict
        For each query ``{"corpus_id": int, "score": float}``, best first; ``corpus_id`` is the row of the embedding.
    seconds : float
        Time of the search, without indexing.
    index : SemanticIndex
        With ``output_index`` only. A temporary folder goes with it.

    Raises
    ------
    ValueError
        Neither corpus nor index, or top_k < 1.
    TypeError, RepresentationError
        As `to_sparse_vectors`; or queries of term strings for an index of term numbers.
    """
    if isinstance(corpus_index, SemanticIndex):
        index = corpus_index
    elif corpus_index is not None:
        index = SemanticIndex(Snapshot.open(corpus_index))
    elif corpus_embeddings is not None:
        index = _temporary_index(to_sparse_vectors(corpus_embeddings))
    else:
        raise ValueError("give corpus_embeddings or corpus_index")
    start = time.perf_counter()
    queries = index.field.query_vectors(to_sparse_vectors(query_embeddings))
    hits = index.searcher.search(queries, top_k, n_threads=os.cpu_count() or 1)
    results: Found = []
    for number in range(len(hits)):
        doc_nums, scores = hits.query(number)
        corpus_ids = _whole_numbers(index.snapshot.doc_ids(doc_nums.tolist()))
        found = zip(corpus_ids, scores.tolist(), strict=True)
        results.append([{"corpus_id": corpus_id, "score": score} for corpus_id, score in found])
    seconds = time.perf_counter() - start
    return (results, seconds, index) if output_index else (results, seconds)


class SemanticIndex:
    """A snapshot with one sparse field, and its searcher."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot, self.field = snapshot, snapshot.only_field(SparseField, "sparse vectors")
        self.searcher = BlockMaxSearcher(self.field)


def _temporary_index(vectors: SparseVectors) -> SemanticIndex:
    folder = tempfile.mkdtemp(prefix="lexmax-")
    try:
        encoder = VectorsEncoder(terms="numbers" if vectors.vocabulary is None else "strings")
        with Collection.create(folder, {"vectors": NewField(encoder=encoder_record(encoder))}) as collection:
            documents = [Document(doc_id=str(row), text="") for row in range(len(vectors))]
            collection.add(documents, {"vectors": vectors})
            collection.commit()
        index = SemanticIndex(Snapshot.open(folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(index, shutil.rmtree, folder, ignore_errors=True)
    return index


def _whole_numbers(doc_ids: Sequence[str]) -> list[int]:
    try:
        return [int(doc_id) for doc_id in doc_ids]
    except ValueError:
        raise RepresentationError(
            f"corpus_id is a whole number, but the index has the doc_id {doc_ids[0]!r}: search it with a Retriever"
        ) from None
