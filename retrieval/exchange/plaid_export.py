"""Token fields as PLAID indexes in the layout of fast-plaid, which `plaid` describes and reads.

Tokens are decoded and encoded again by ColBERTv2's codec (arXiv 2112.01488), around the field's own centroids. Stanford's
files, which are pickles, are not written. Beside the index stand ids and texts, as RAGatouille keeps them::

    avg_residual.npy (dim,) f16 | ivf.npy (L,) i64 | ivf_lengths.npy (n_centroids,) i32     passages of each centroid, ascending
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arrays import Floats, Int64s
from ...index.errors import RepresentationError
from ...index.multivector.colbertv2 import BITS, ColbertV2Codec
from ...index.multivector.field import TokenField
from ...index.refusals import storage_errors
from ...index.snapshot import Snapshot
from .plaid import METADATA_NAME, TEXTS_NAME

CHUNK_DOCS = 25_000
HELD_OUT = 50_000
"""Tokens that the buckets are made from, at most."""


def export_plaid(index: Path | str, out: Path | str, *, field: str | None = None, nbits: int = 4, seed: int = 0) -> int:
    """Write a token field as a folder of fast-plaid; its number of documents is returned.

    Parameters
    ----------
    index : Path or str
    out : Path or str
        A folder, made anew.
    field : str or None
        Name of the field; None: the only one of token vectors.
    nbits : {1, 2, 4, 8}
        Bits per coordinate.
    seed : int
        Of the choice of documents that the buckets are made from.

    Raises
    ------
    FileExistsError
        ``out`` is there already.
    IndexNotFoundError, IndexFormatError
        No index there, or a damaged one.
    RepresentationError
        No such field of token vectors, no tokens, or a dim that is no multiple of 8.
    StorageError
        The disk refuses.
    """
    if nbits not in BITS:
        raise ValueError(f"nbits is {nbits}: it must be one of {', '.join(map(str, BITS))}")
    target, snapshot = Path(out), Snapshot.open(index, verify=True)
    if target.exists():
        raise FileExistsError(f"{target} is there already: choose another folder")
    chosen = snapshot.only_field(TokenField, "token vectors") if field is None else snapshot.field(field)
    if not isinstance(chosen, TokenField):
        raise RepresentationError(
            f"{snapshot.path}: the field {field!r} holds no token vectors but {chosen.representation} ones"
        )
    pairs = zip(snapshot.segments, snapshot.masks(), strict=True)
    live = np.concatenate([np.empty(0, np.int64), *(
        segment.base + (np.arange(segment.n_docs) if mask is None else np.flatnonzero(mask)) for segment, mask in pairs
    )])  # fmt: skip
    codec, average = _codec(snapshot, chosen, live, nbits, seed)
    with storage_errors(target), tempfile.TemporaryDirectory(prefix=".lexmax-", dir=target.absolute().parent) as place:
        folder = Path(place) / "index"
        folder.mkdir()
        _write(folder, snapshot, chosen, live, codec, average)
        folder.rename(target)
    return len(live)


def _codec(snapshot: Snapshot, field: TokenField, live: Int64s, nbits: int, seed: int) -> tuple[ColbertV2Codec, Floats]:
    """The codec, and the mean size of what centroids leave over, (dim,)."""
    own = field.codec
    if own is None or not len(live) or own.dim % 8:
        raise RepresentationError(f"{snapshot.path}, field {field.name}: there are no tokens, or their dim is no multiple of 8")
    centroids = (own.mean + own.centroid_scale * (own.centroids.astype(np.float32) - 128)) @ own.rotation.T
    centroids = (centroids / np.linalg.norm(centroids, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    held, n_held = [], 0
    for doc_num in np.random.default_rng(seed).permutation(live).tolist():
        held.append(field.document_tokens(doc_num))
        n_held += len(held[-1])
        if n_held >= HELD_OUT:
            break
    tokens = np.concatenate(held)
    if not len(tokens):
        raise RepresentationError(f"{snapshot.path}, field {field.name}: no document has tokens")
    codec = ColbertV2Codec.fit(np.ascontiguousarray(centroids, np.float32), tokens, nbits)
    return codec, np.abs(tokens - codec.centroids[codec.assign(tokens)]).mean(axis=0)


def _write(
    folder: Path, snapshot: Snapshot, field: TokenField, live: Int64s, codec: ColbertV2Codec, average: Floats
) -> None:  # fmt: skip
    for name, array in (("centroids", codec.centroids), ("bucket_cutoffs", codec.cutoffs), ("bucket_weights", codec.weights),
                        ("avg_residual", average)):  # fmt: skip
        np.save(folder / f"{name}.npy", array.astype(np.float16))
    owners: list[Int64s] = []
    n_tokens = 0
    starts = range(0, len(live), CHUNK_DOCS)
    for number, first in enumerate(starts):
        rows = [field.document_tokens(doc_num) for doc_num in live[first : first + CHUNK_DOCS].tolist()]
        widths = [len(each) for each in rows]
        codes, residuals = codec.encode(np.concatenate(rows))
        np.save(folder / f"{number}.codes.npy", codes.astype(np.int64))
        np.save(folder / f"{number}.residuals.npy", residuals)
        _json(folder / f"doclens.{number}.json", widths)
        _json(folder / f"{number}.metadata.json", {"passage_offset": first, "num_passages": len(rows),
                                                   "embedding_offset": n_tokens, "num_embeddings": len(codes)})  # fmt: skip
        passages = np.repeat(np.arange(first, first + len(rows)), widths)
        owners.append(np.unique(codes.astype(np.int64) * len(live) + passages))  # a centroid's passages, each once
        n_tokens += len(codes)
    lists = np.sort(np.concatenate(owners))
    lengths = np.bincount(lists // len(live), minlength=len(codec.centroids))
    np.save(folder / "ivf.npy", lists % len(live))
    np.save(folder / "ivf_lengths.npy", lengths.astype(np.int32))
    documents = snapshot.get_many(live.tolist())
    _json(folder / TEXTS_NAME, [each.content for each in documents])
    _json(folder / "pid_docid_map.json", {number: each.doc_id for number, each in enumerate(documents)})
    _json(folder / METADATA_NAME, {
        "num_chunks": len(starts), "nbits": codec.nbits, "num_partitions": len(codec.centroids), "num_embeddings": n_tokens,
        "num_documents": len(live), "avg_doclen": n_tokens / len(live), "compress_only": False,
    })  # fmt: skip


def _json(path: Path, value: Sequence[Any] | dict[Any, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), "utf-8")
