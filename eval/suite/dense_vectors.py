"""Exact ranking by dense vectors, which are kept so that a corpus is encoded once.

::

    PLACE/000000000.npy     vectors of documents 0 to 1023 of the corpus, (1024, dim) float32
    PLACE/000001024.npy     of the next; doc_ids are the corpus's, whose digest is in the folder's name

Every file is written whole or not at all: what was cut short goes on with the next file.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arrays import Floats
from ...index.storage import replace_file
from ...retrieval.encoders.dense import DenseEncoder
from .corpora import Collection, Workplace

FILE_ROWS = 1024
"""Documents of a file: what an interruption costs at most."""
SCORES_AT_ONCE = 1 << 24
"""64 MB of float32."""


class DenseRanker:
    """Ranks all documents by their inner products with queries; of equal ones, the first in the corpus comes first.

    Parameters
    ----------
    encoder : DenseEncoder
    doc_ids : sequence of str
    vectors : (n_docs, dim) float32
    """

    def __init__(self, encoder: DenseEncoder, doc_ids: Sequence[str], vectors: Floats) -> None:
        self.encoder, self._doc_ids, self._vectors = encoder, doc_ids, vectors

    def rank(self, texts: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        """Return (doc_id, score), best first, at most ``k`` for each text."""
        queries = self.encoder.encode_queries(texts)
        n_at_once = max(1, SCORES_AT_ONCE // max(1, len(self._doc_ids)))
        return [
            self._best(scores, k)
            for first in range(0, len(queries), n_at_once)
            for scores in queries[first : first + n_at_once] @ self._vectors.T
        ]

    def _best(self, scores: Floats, k: int) -> list[tuple[str, float]]:
        k = min(k, len(scores))
        if k == 0:
            return []
        lowest = np.partition(scores, -k)[-k]
        (numbers,) = np.nonzero(scores >= lowest)  # in the order of the corpus, which a stable sort keeps among ties
        numbers = numbers[np.argsort(-scores[numbers], kind="stable")][:k]
        return [(self._doc_ids[number], float(scores[number])) for number in numbers.tolist()]

    def info(self) -> dict[str, Any]:
        """Facts about the vectors."""
        return {"n_docs": len(self._doc_ids), "dim": self.encoder.dim}


def open_dense(encoder: DenseEncoder, collection: Collection, work: Workplace) -> DenseRanker:
    """Read the vectors of a collection; those that are not there yet are made.

    Errors are those of `read_corpus` and of the encoder.
    """
    place = collection.place(encoder.fingerprint, work)
    place.mkdir(parents=True, exist_ok=True)
    doc_ids: list[str] = []
    parts: list[Floats] = []
    documents, said = collection.documents(), False
    with work.bar(collection.sources) as bar:
        while batch := list(islice(documents, FILE_ROWS)):
            path = place / f"{len(doc_ids):09d}.npy"
            vectors = _read(path, (len(batch), encoder.dim))
            if vectors is None:
                if not said:
                    work.say(f"encoding {place}")
                    said = True
                vectors = encoder.encode_documents([document.content for document in batch])
                _write(path, vectors)
            parts.append(vectors)
            doc_ids += [document.doc_id for document in batch]
            if bar is not None:
                bar(len(doc_ids))
    return DenseRanker(encoder, doc_ids, np.concatenate([np.empty((0, encoder.dim), np.float32), *parts]))


def _read(path: Path, shape: tuple[int, int]) -> Floats | None:
    """Vectors of a file, None when it is not there or not of this shape."""
    if not path.is_file():
        return None
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return vectors if vectors.shape == shape and vectors.dtype == np.float32 else None


def _write(path: Path, vectors: Floats) -> None:
    content = io.BytesIO()
    np.save(content, vectors, allow_pickle=False)
    replace_file(path, content.getvalue())
