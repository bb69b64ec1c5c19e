"""Indexes of several fields, and what they hold by doc_id."""

import numpy as np
from corpora import ENCODER, documents, random_vectors
from dense_vectors import dense_vectors, new_dense_field
from sparse_token_vectors import SLIM_ENCODER, sparse_tokens
from token_vectors import TOKEN_ENCODER, token_vectors

from lexmax import SparseVectors
from lexmax.index.collection import NewField

BM25 = {"bm25": {"k1": 1.2, "b": 0.75}}


def counted(rng, n, n_terms=30):
    """Rows of term counts by strings, as BM25's encoder makes them."""
    rows = random_vectors(rng, n, n_terms, 8, levels=5)
    return SparseVectors(rows.indptr, rows.terms, rows.weights, [f"word{i}" for i in range(n_terms)])


class Fields:
    """Five fields of ``n`` documents, and how an index of them is made, filled and read."""

    def __init__(self, n=120, seed=1):
        rng = np.random.default_rng(seed)
        self.documents = documents(n)
        self.vectors = {
            "bm25": counted(rng, n),
            "splade": random_vectors(rng, n, 40, 8),
            "colbert": token_vectors(rng, rng.integers(0, 6, n)),
            "slim": sparse_tokens(rng, rng.integers(0, 5, n)),
            "dense": dense_vectors(rng, n),
        }
        self.new = {
            "bm25": NewField(encoder=ENCODER, options=BM25),
            "splade": NewField(encoder=ENCODER, scale=255 / 8),
            "colbert": NewField(
                encoder=TOKEN_ENCODER, representation="tokens", options={"dim": 32, "nbits": 2, "n_centroids": 16}
            ),
            "slim": NewField(encoder=SLIM_ENCODER, representation="sparse-tokens", scale=255 / 8),
            "dense": new_dense_field(24),
        }

    def batch(self, *rows, names=None):
        """Documents and vectors of some rows, as `Collection.add` takes them."""
        picked = np.array(rows, np.int64)
        names = self.vectors if names is None else names
        return [self.documents[i] for i in rows], {name: self.vectors[name].select(picked) for name in names}

    def encode(self, name):
        """An encoder's encode_documents for `Collection.fill`: it finds a text's vectors by the text."""
        rows = {document.content: i for i, document in enumerate(self.documents)}
        return lambda texts: self.vectors[name].select(np.array([rows[text] for text in texts], np.int64))

    def same(self, snapshot, rows, *, like=None, names=None):
        """Assert that a snapshot holds these documents and no others, with their own vectors in every field.

        ``like`` maps a doc_id to the row whose vectors it has instead of its own.
        """
        assert snapshot.n_docs == len(rows)
        numbers = snapshot.find([f"d{row}" for row in rows]).tolist()
        assert -1 not in numbers
        assert [document.doc_id for document in snapshot.get_many(numbers)] == [f"d{row}" for row in rows]
        for number, row in zip(numbers, rows, strict=True):
            for name in self.vectors if names is None else names:
                self._same_vectors(snapshot.field(name), number, name, (like or {}).get(row, row))

    def _same_vectors(self, field, number, name, row):
        if name == "colbert":
            expected = self.vectors[name].row(row)
            found = field.document_tokens(number)
            assert found.shape == expected.shape
            assert np.abs(found - expected).max(initial=0) < 0.06
            return
        if name == "dense":
            assert np.allclose(field.document_vector(number), self.vectors[name].row(row), rtol=2**-10)
            return
        if name == "slim":
            found, expected = field.document_sparse_tokens(number), self.vectors[name].row(row)
            assert found.indptr.tolist() == expected.indptr.tolist()
            assert found.terms.tolist() == expected.terms.tolist()
            return
        terms, weights = self.vectors[name].row(row)
        found = field.document_row(number)
        if name == "bm25":
            words = dict(zip(field.vocabulary.strings(found.terms), found.weights.tolist(), strict=True))
            assert sorted(words) == sorted(f"word{term}" for term in terms.tolist())
            counts = sorted(zip(weights.tolist(), (words[f"word{term}"] for term in terms.tolist()), strict=True))
            assert [weight for _, weight in counts] == sorted(words.values())  # higher counts weigh more
            return
        assert found.terms.tolist() == terms.tolist()
        assert np.abs(found.weights - np.minimum(weights, 8)).max(initial=0) < 0.51 * 8 / 255
