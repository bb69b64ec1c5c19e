"""Calibration: measure which options of the centroid searcher reach which recall on a field, and store the record in the index.

The truth is MaxSim in floats: over the tokens that the field keeps at 8 bits, or else over those that the encoder makes again
of the stored texts. A field that has neither cannot be calibrated: against its own codes every search looks better than it is.
`CentroidOptions.target_recall` chooses from the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from ...index.arrays import Floats, Int32s
from ...index.collection import Collection
from ...index.errors import RepresentationError
from ...index.multivector.field import TokenField
from ...index.representations.multivectors import MultiVectors
from ...index.snapshot import Snapshot
from ..encoders.base import MultiVectorEncoder
from ..encoders.registry import check_encoder, encoder_of
from ..hits import best
from ..progress import Progress
from .calibration_record import Calibration, Effort
from .centroid import CentroidOptions, CentroidSearcher
from .common import checked_field, single
from .maxsim import MaxSimSearcher, maxima_of, sums_of
from .sampling import N_SAMPLED, NO_SOURCE, passages_of, recall, without

K = 10
QUERY_TOKENS = 32
CANDIDATES = 5
"""Documents that are encoded again for a query, in multiples of k: the best by the stored codes."""
QUERIES_AT_ONCE, TEXTS_AT_ONCE = 8, 32
LADDER = [
    CentroidOptions(n_probe=n_probe, n_gathered=n_gathered, n_candidates=n_candidates, n_exact=n_exact)
    for n_probe, n_gathered, n_candidates, n_exact in [
        (4, 256, 64, 32), (8, 512, 128, 32), (16, 512, 256, 32), (32, 1024, 256, 32), (32, 1024, 512, 32), (32, 2048, 512, 64),
        (64, 2048, 1024, 64), (64, 4096, 2048, 128), (128, 8192, 4096, 128), (256, 32768, 16384, 256),
    ]
]  # fmt: skip
"""Settings that are tried, from cheap to expensive."""
Rankings = list[Int32s]
"""doc_nums of the best documents of each query, best first."""


def calibrate(
    path: Path | str, field_name: str | None = None, queries: MultiVectors | Sequence[str] | None = None, *, k: int = K,
    encoder: MultiVectorEncoder | None = None, model: str | None = None, device: str = "cpu",
    progress: Progress | None = None, notice: Callable[[str], None] | None = None,
) -> Calibration:  # fmt: skip
    """Measure recall and time of the ladder of options against MaxSim in floats, and commit the record to the index.

    Parameters
    ----------
    path : Path or str
    field_name : str or None
        None: the only field of token vectors.
    queries : MultiVectors, sequence of str, or None
        A sample of real queries, a hundred or more. None: passages of `N_SAMPLED` documents; the documents themselves do not
        count. Real queries differ from those: give some when there are any.
    k : int
        Answers that recall is measured of; searches of more are not covered.
    encoder : MultiVectorEncoder or None
        The field's encoder, at hand; None: it is loaded when it is needed, for texts, passages, or the truth of a field
        without exact tokens: then up to 5 k documents per query are encoded again.
    model, device
        Where the encoder's model is and runs, as in `fields.index_encoder`.
    progress : callable or None
        Called with the number of settings tried.
    notice : callable or None
        Called with a sentence about what is done.

    Raises
    ------
    RepresentationError
        There is no such field, none or several of token vectors and no name, no documents with tokens, or no truth: the
        field keeps no exact tokens, and it has no encoder or no texts.
    EncoderMismatchError
        The encoder is not the one that made the field.
    ValueError
        k < 1, or no queries.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    snapshot = Snapshot.open(path)
    field = token_field(snapshot, field_name)
    if not field.n_docs or not field.n_tokens:
        raise RepresentationError(f"{path}: there are no documents to calibrate on")
    exact, known = field.config.exact, encoder
    if encoder is None and field.record.encoder.kind != "vectors":
        if queries is None or not isinstance(queries, MultiVectors) or not exact:
            known = cast(MultiVectorEncoder, encoder_of(field.record.encoder, model=model, device=device))
    elif encoder is not None:
        check_encoder(field.record.encoder, encoder)
    if not exact and known is None:
        raise RepresentationError(
            f"{path}, field {field.name}: it keeps no exact tokens and has no encoder, so there is no truth to measure recall "
            "against: build it with exact=true"
        )
    vectors, sources, kind = _queries(snapshot, field, queries, known)
    if not len(vectors):
        raise ValueError(f"{path}, field {field.name}: calibration needs queries with tokens")
    if exact or known is None:
        truth, oracle = _best_by_field(field, vectors, k + 1), "exact tokens"
    else:
        truth, oracle = _best_by_encoder(snapshot, field, vectors, k + 1, known, notice), known.fingerprint
    wanted = [without(each, source)[:k] for each, source in zip(truth, sources, strict=True)]
    efforts = []
    for n_tried, options in enumerate(LADDER, 1):
        efforts.append(_tried(CentroidSearcher(field), options, vectors, sources, wanted, k))
        if progress:
            progress(n_tried)
    record = Calibration(
        k=k, generation=snapshot.generation, codec=field.codec_name, n_docs=field.n_docs, n_tokens=field.n_tokens,
        n_queries=len(vectors), queries=kind, oracle=oracle, efforts=tuple(efforts),
    )  # fmt: skip
    with Collection.open(path) as collection:
        collection.set_calibration(field.name, record.to_json())
        collection.commit()
    return record


def token_field(snapshot: Snapshot, name: str | None = None) -> TokenField:
    """Return a field of token vectors by name, or the only one; raises RepresentationError when there is none."""
    if name is not None:
        return checked_field(snapshot.field(name), TokenField, "token vectors")
    return snapshot.only_field(TokenField, "token vectors")


def _tried(
    searcher: CentroidSearcher, options: CentroidOptions, queries: MultiVectors, sources: list[int], wanted: Rankings, k: int
) -> Effort:
    """Measure one rung: a document that a query was made of is asked for in addition, and does not count."""
    recalls, times = [], []
    for i, (source, right) in enumerate(zip(sources, wanted, strict=True)):
        query = single(queries, i)
        start = time.thread_time()
        found = searcher.search(query, k if source == NO_SOURCE else k + 1, options=options).doc_nums
        times.append(time.thread_time() - start)
        recalls.append(recall(right, without(found, source)[:k]))
    return Effort(
        options=options.numbers,
        recall=round(float(np.mean(recalls)), 4),
        error=round(float(np.std(recalls) / np.sqrt(len(recalls))), 4),
        cpu_ms=round(float(np.median(times)) * 1000, 3),
    )


def _queries(
    snapshot: Snapshot, field: TokenField, given: MultiVectors | Sequence[str] | None, encoder: MultiVectorEncoder | None
) -> tuple[MultiVectors, list[int], str]:
    """Return queries that have tokens, the document that each was made of, and their kind."""
    if isinstance(given, str):
        raise TypeError("queries are MultiVectors or a sequence of strings, not one string")
    sources = None
    if given is None:
        numbers = _sampled(snapshot, field)
        passages = {} if encoder is None else passages_of(snapshot, numbers)
        if encoder is not None and passages:
            vectors, sources, kind = encoder.encode_queries(list(passages.values())), list(passages), "passages"
        else:
            vectors, sources, kind = _moved_tokens(field, numbers), numbers, "tokens"
    elif isinstance(given, MultiVectors):
        vectors, kind = given, "given"
    elif encoder is None:
        raise RepresentationError(f"{field.path}, field {field.name}: it has no encoder: give queries as vectors, or none")
    else:
        vectors, kind = encoder.encode_queries(list(given)), "given"
    sources = [NO_SOURCE] * len(vectors) if sources is None else sources
    filled = np.flatnonzero(np.diff(vectors.offsets) > 0)
    return vectors.select(filled), [sources[i] for i in filled.tolist()], kind


def _sampled(snapshot: Snapshot, field: TokenField) -> list[int]:
    """doc_nums of some live documents that have tokens, ascending."""
    filled = [np.diff(segment.part.offsets) > 0 for segment in field.segments]
    masks = [each if mask is None else each & mask for each, mask in zip(filled, field.masks(), strict=True)]
    doc_nums = np.flatnonzero(np.concatenate(masks))
    generator = np.random.default_rng(1)
    return sorted(map(int, generator.choice(doc_nums, min(N_SAMPLED, len(doc_nums)), replace=False)))


def _moved_tokens(field: TokenField, doc_nums: list[int]) -> MultiVectors:
    """Make queries of documents' tokens, with noise."""
    generator = np.random.default_rng(1)
    matrices = []
    for doc_num in doc_nums:
        tokens = field.document_tokens(doc_num)
        picked = tokens[np.sort(generator.choice(len(tokens), min(QUERY_TOKENS, len(tokens)), replace=False))]
        moved = picked + generator.standard_normal(picked.shape).astype(np.float32) * 0.3 / np.sqrt(picked.shape[1])
        matrices.append((moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32))
    return MultiVectors.of(matrices, field.config.dim)


def _best_by_field(field: TokenField, queries: MultiVectors, n: int) -> Rankings:
    """Rank all documents over the best tokens that the field keeps."""
    oracle, found = MaxSimSearcher(field), []
    for first in range(0, len(queries), QUERIES_AT_ONCE):
        batch = queries.select(np.arange(first, min(first + QUERIES_AT_ONCE, len(queries))))
        hits = oracle.search(batch, n)
        found += [hits.query(i)[0] for i in range(len(batch))]
    return found


def _best_by_encoder(
    snapshot: Snapshot, field: TokenField, queries: MultiVectors, n: int, encoder: MultiVectorEncoder,
    notice: Callable[[str], None] | None,
) -> Rankings:  # fmt: skip
    """Rank the candidates of all queries over tokens that are encoded again."""
    doc_nums = np.unique(np.concatenate(_best_by_field(field, queries, CANDIDATES * n)))
    if notice:
        notice(f"encoding {len(doc_nums):,} documents again with {encoder.fingerprint}: the field keeps no exact tokens")
    scores: list[Floats] = []
    for first in range(0, len(doc_nums), TEXTS_AT_ONCE):
        documents = snapshot.get_many(doc_nums[first : first + TEXTS_AT_ONCE].tolist())
        if not all(document.content for document in documents):
            raise RepresentationError(
                f"{snapshot.path}, field {field.name}: it keeps no exact tokens, and documents have no texts to encode again"
            )
        made = encoder.encode_documents([document.content for document in documents])
        scores.append(sums_of(maxima_of(made.tokens, made.offsets, queries.tokens), queries.offsets))
    return [best(doc_nums, row, n)[0] for row in np.concatenate(scores, axis=1)]
