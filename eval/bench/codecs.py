"""`lexmax bench codecs`: what compressing token vectors costs in answers, bytes and time, all codecs around the same centroids.

Every codec encodes the same 16-bit tokens, and full MaxSim over what it decodes is compared with full MaxSim over the tokens
themselves. No index is searched, so that nothing but the codec errs. The codecs::

    lexmax-{1,2,4,8}bit      `index.residual`
    colbertv2-{1,2,4}bit     `index.colbertv2` (arXiv 2112.01488); centroids brought to unit length, as there
    pq-{16,32}bytes          product quantisation of the residual by faiss; the sum is brought to unit length
    int8                     no centroids: each number in steps of the token's largest one's 127th part, a 16-bit float

Bytes are those a token takes; what all tokens share (centroids, rotation, code books) is not counted.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...index.arrays import Floats, Int32s
from ...index.errors import DatasetError
from ...index.multivector.clustering import default_n_centroids, sample_size, train
from ...index.multivector.colbertv2 import ColbertV2Codec
from ...index.multivector.residual import Codec, Encoded, allowed_bits
from ..tables import markdown_table
from .multivector import Say
from .report import Report, Row
from .token_generator import TokenRecipe, generate_tokens
from .token_report import recalls
from .token_sets import TokenSet, read_npz

DEPTHS = (10, 100)
CHUNK_DOCS = 256
HELD_OUT, MAX_HELD_OUT = 0.05, 50_000
COLBERTV2_BITS, PQ_BYTES = (1, 2, 4), (16, 32)
PQ_TRAINING, MIN_PQ_TRAINING = 1 << 16, 256
PQ_SEED = 1
WARM_UP = 64
"""Tokens encoded and decoded before the clock starts, so that kernels are compiled."""

Encode = Callable[[Floats], tuple[Any, ...]]
Decode = Callable[..., Floats]


@dataclass(frozen=True, kw_only=True)
class CodecBench:
    """What to compare.

    Attributes
    ----------
    tokens : str or None
        A file as `token_sets.read_npz` takes it; None: generated.
    n_docs, seed, dim : int
        Of the generated collection.
    n_queries : int
        At most.
    n_centroids : int or None
        None: by the number of tokens, as an index has them.
    """

    tokens: str | None = None
    n_docs: int = 2000
    seed: int = 0
    dim: int = 128
    n_queries: int = 100
    n_centroids: int | None = None

    def __post_init__(self) -> None:
        if min(self.n_docs, self.dim, self.n_queries, 1 if self.n_centroids is None else self.n_centroids) < 1:
            raise ValueError("documents, dim, queries and centroids must be at least 1")

    @property
    def recipe(self) -> TokenRecipe:
        """Of the generated collection."""
        return TokenRecipe(n_docs=self.n_docs, n_queries=self.n_queries, seed=self.seed, dim=self.dim)


@dataclass(frozen=True)
class _Candidate:
    """A codec: ``encode`` gives the arrays that are stored, a row a token, and ``decode`` takes them."""

    name: str
    encode: Encode
    decode: Decode


class CodecReport(Report):
    """What the comparison found; ``score_error`` is the mean absolute difference of a document's MaxSim from the exact one,
    and ``encode_tokens_per_s`` counts one thread's CPU time, finding centroids included. Recall at a depth beyond the documents
    is None.
    """  # noqa: D205

    def to_markdown(self) -> str:
        """Return the rows as a table and the setup as a list."""
        table = [["codec", "bytes/token", "recall@10", "recall@100", "score error", "encode tokens/s"]]
        for row in self.rows:
            quality = ["" if row[f"recall@{k}"] is None else f"{row[f'recall@{k}']:.3f}" for k in DEPTHS]
            costs = [f"{row['score_error']:.4f}", f"{row['encode_tokens_per_s']:,.0f}"]
            table.append([row["codec"], f"{row['bytes_per_token']:.0f}", *quality, *costs])
        return "\n".join([*markdown_table(table), "", *(f"- {name}: {value}" for name, value in self.setup.items())]) + "\n"


def run_codec_bench(bench: CodecBench, say: Say = lambda message: None) -> CodecReport:
    """Train, encode, decode and score with every codec.

    Parameters
    ----------
    bench : CodecBench
    say : callable
        Gets a line for each step.

    Raises
    ------
    DatasetError
        A malformed file, or one without queries.
    ValueError
        A dim that a codec cannot have, or a number of centroids out of range.
    """
    say(f"reading {bench.tokens}" if bench.tokens else f"generating {bench.n_docs:,} documents")
    tokens = read_npz(bench.tokens, bench.n_queries) if bench.tokens else generate_tokens(bench.recipe)
    if not len(tokens.queries):
        raise DatasetError("there are no queries", path=bench.tokens)
    training, heldout = _samples(tokens, bench)
    n_centroids = bench.n_centroids or default_n_centroids(len(tokens.tokens))
    say(f"training {n_centroids:,} centroids")
    codec = train(training, n_centroids, seed=bench.seed + 1)
    exact = _scores(tokens, lambda rows: rows)
    rows = []
    for candidate in _candidates(codec, training, heldout):
        say(f"measuring {candidate.name}")
        rows.append(_measure(candidate, tokens, exact))
    return CodecReport(rows=rows, setup=_setup(bench, tokens, codec))


def _samples(tokens: TokenSet, bench: CodecBench) -> tuple[Floats, Floats]:
    """Tokens that centroids and code books are made of, and others for ColBERTv2's buckets; a lone token is both."""
    n = len(tokens.tokens)
    order = np.random.default_rng(bench.seed).permutation(n)
    n_heldout = min(MAX_HELD_OUT, max(1, int(HELD_OUT * n)))
    wanted = sample_size(bench.n_centroids or default_n_centroids(n))
    training = order[n_heldout : n_heldout + wanted] if n > n_heldout else order
    chosen = (np.sort(picks) for picks in (training, order[:n_heldout]))
    training_tokens, heldout = (tokens.tokens[picks].astype(np.float32) for picks in chosen)
    return training_tokens, heldout


def _candidates(codec: Codec, training: Floats, heldout: Floats) -> list[_Candidate]:
    """Every codec around the centroids of ``codec``, brought back from its rotation; PQ if there are tokens to train it."""
    centroids = codec.centroid_scale * (codec.centroids.astype(np.float32) - 128) + codec.mean
    centroids = np.asarray(centroids @ codec.rotation.T, np.float32)
    unit = centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    parts = [n_bytes for n_bytes in PQ_BYTES if codec.dim % n_bytes == 0 and len(training) >= MIN_PQ_TRAINING]
    return [
        *(_lexmax(codec, nbits) for nbits in allowed_bits(codec.dim)),
        *(_colbertv2(ColbertV2Codec.fit(unit, heldout, nbits)) for nbits in COLBERTV2_BITS),
        *(_pq(codec, centroids, training, n_bytes) for n_bytes in parts),
        _Candidate("int8", _encode_int8, _decode_int8),
    ]  # fmt: skip


def _lexmax(codec: Codec, nbits: int) -> _Candidate:
    def encode(rows: Floats) -> tuple[Any, ...]:
        rotated = codec.rotate(rows)
        codes = codec.assign(rotated)
        encoded, _ = codec.encode(rotated, codes, nbits)
        return codes.astype(np.uint16), encoded.scalars, encoded.levels

    def decode(codes: Any, scalars: Any, levels: Any) -> Floats:
        return codec.decode(codes, Encoded(levels, scalars))

    return _Candidate(f"lexmax-{nbits}bit", encode, decode)


def _colbertv2(codec: ColbertV2Codec) -> _Candidate:
    return _Candidate(f"colbertv2-{codec.nbits}bit", codec.encode, codec.decode)


def _pq(codec: Codec, centroids: Floats, training: Floats, n_bytes: int) -> _Candidate:
    """Product quantisation of what the nearest centroid leaves over, at a byte for each of ``n_bytes`` parts."""
    import faiss

    def assign(rows: Floats) -> Int32s:
        return codec.assign(codec.rotate(rows))

    faiss.omp_set_num_threads(1)
    quantiser: Any = faiss.ProductQuantizer(codec.dim, n_bytes, 8)
    quantiser.cp.seed, quantiser.cp.min_points_per_centroid = PQ_SEED, 1
    some = training[:: max(1, len(training) // PQ_TRAINING)]
    quantiser.train(some - centroids[assign(some)])

    def encode(rows: Floats) -> tuple[Any, ...]:
        codes = assign(rows)
        return codes.astype(np.uint16), quantiser.compute_codes(rows - centroids[codes])

    def decode(codes: Any, parts: Any) -> Floats:
        sums = centroids[codes] + quantiser.decode(parts)
        return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12), np.float32)

    return _Candidate(f"pq-{n_bytes}bytes", encode, decode)


def _encode_int8(rows: Floats) -> tuple[Any, ...]:
    steps = (np.abs(rows).max(axis=1, keepdims=True) / 127).astype(np.float16)
    levels = np.rint(rows / np.maximum(steps.astype(np.float32), 1e-12))
    return steps, np.clip(levels, -127, 127).astype(np.int8)


def _decode_int8(steps: Any, levels: Any) -> Floats:
    return np.asarray(levels * steps.astype(np.float32), np.float32)


def _measure(candidate: _Candidate, tokens: TokenSet, exact: Floats) -> Row:
    candidate.decode(*candidate.encode(tokens.tokens[:WARM_UP].astype(np.float32)))
    elapsed, n_bytes = 0.0, 0

    def round_trip(rows: Floats) -> Floats:
        nonlocal elapsed, n_bytes
        start = time.process_time()
        stored = candidate.encode(rows)
        elapsed += time.process_time() - start
        n_bytes += sum(array.nbytes for array in stored)
        return candidate.decode(*stored)

    scores = _scores(tokens, round_trip)
    order = np.argsort(-scores, axis=1, kind="stable")
    depths = [k for k in DEPTHS if k <= len(tokens)]
    at = {k: round(float(recalls([row[:k] for row in order], exact, k).mean()), 4) for k in depths}
    return {
        "codec": candidate.name,
        "bytes_per_token": n_bytes / max(1, len(tokens.tokens)),
        **{f"recall@{k}": at.get(k) for k in DEPTHS},
        "score_error": round(float(np.abs(scores - exact).mean()), 5),
        "encode_tokens_per_s": round(len(tokens.tokens) / max(elapsed, 1e-9)),
    }


def _scores(tokens: TokenSet, round_trip: Callable[[Floats], Floats]) -> Floats:
    """MaxSim of every query with every document after a round trip of its tokens, (n_queries, n_docs); 0 for no tokens."""
    queries = tokens.queries
    scores = np.zeros((len(queries), len(tokens)), np.float32)
    asked = np.flatnonzero(np.diff(queries.offsets))
    for first in range(0, len(tokens), CHUNK_DOCS):
        offsets = tokens.offsets[first : first + CHUNK_DOCS + 1]
        filled = np.flatnonzero(np.diff(offsets))
        if not len(filled):
            continue
        rows = round_trip(tokens.tokens[offsets[0] : offsets[-1]].astype(np.float32))
        maxima = np.maximum.reduceat(rows @ queries.tokens.T, offsets[filled] - offsets[0], axis=0)
        scores[np.ix_(asked, first + filled)] = np.add.reduceat(maxima, queries.offsets[asked], axis=1).T
    return scores


def _setup(bench: CodecBench, tokens: TokenSet, codec: Codec) -> Mapping[str, Any]:
    return {
        "documents": bench.tokens or f"generated: {asdict(bench.recipe)}",
        "n_docs": len(tokens),
        "n_tokens": len(tokens.tokens),
        "dim": codec.dim,
        "n_centroids": codec.n_centroids,
        "queries": len(tokens.queries),
        "threads": 1,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }
