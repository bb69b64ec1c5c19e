"""Random sparse token vectors, and indexes of them, that tests share."""

import numpy as np
from corpora import write_index

from lexmax import SparseVectors
from lexmax.index.collection import NewField
from lexmax.index.manifest import EncoderRecord
from lexmax.index.representations.sparse_multivectors import SparseMultiVectors
from lexmax.index.snapshot import Snapshot
from lexmax.index.sparse.field import SparseTokenField

SLIM_ENCODER = EncoderRecord(kind="slim", fingerprint="slim:0123456789abcdef", settings={})
N_TERMS = 60


def sparse_tokens(rng, widths, *, n_terms=N_TERMS, top_k=6, levels=0) -> SparseMultiVectors:
    """Texts of the given numbers of tokens, up to ``top_k`` terms each; few ``levels`` make many ties."""
    texts = []
    for width in widths:
        rows = []
        for _ in range(int(width)):
            size = int(rng.integers(0, top_k + 1))
            terms = rng.choice(n_terms, size, replace=False)
            weights = rng.integers(1, levels + 1, size) if levels else rng.gamma(2.0, 0.5, size) + 0.01
            rows.append((terms, weights.astype(np.float32)))
        texts.append(SparseVectors.from_rows(rows))
    return SparseMultiVectors.of(texts)


def dense_tokens(tokens: SparseVectors, n_terms=N_TERMS):
    """Tokens as (n_tokens, n_terms) float64."""
    matrix = np.zeros((len(tokens), n_terms))
    for i, row in enumerate(matrix):
        terms, weights = tokens.row(i)
        row[terms] = weights
    return matrix


def slim_score(query: SparseVectors, document: SparseVectors, n_terms=N_TERMS) -> float:
    """``sum_i max_j q_i . d_j``, as the paper has it."""
    if not len(query) or not len(document):
        return 0.0
    return float((dense_tokens(query, n_terms) @ dense_tokens(document, n_terms).T).max(axis=1).sum())


def make_slim_index(path, vectors: SparseMultiVectors, cuts=(), deleted=(), **options) -> Snapshot:
    """An index of one field, "slim", committed in a segment for each part between ``cuts``, all of one scale."""
    top = float(vectors.rows.weights.max()) if vectors.rows.n_postings else 1.0
    new = NewField(encoder=SLIM_ENCODER, representation="sparse-tokens", scale=255 / top)
    return write_index(path, {"slim": new}, {"slim": vectors}, cuts, deleted, **options)


def make_slim_field(path, vectors: SparseMultiVectors, cuts=(), deleted=()) -> SparseTokenField:
    """The field of `make_slim_index`."""
    return make_slim_index(path, vectors, cuts, deleted).field("slim")
