"""A stand-in for a ColBERT model: a fixed unit vector for each word, so that commands on token vectors run without a model."""

import sys
import zlib

import numpy as np

from lexmax import MultiVectors
from lexmax.retrieval.encoders import methods, registry

DIM = 32


class HashedTokens:
    """Every word is a token, its vector drawn by its hash."""

    kind, representation, dim, document_length = "hashed", "tokens", DIM, 8
    fingerprint, settings = "hashed:0123456789abcdef", {}

    def encode_documents(self, texts):
        return MultiVectors.of([self._vectors(text.split()[: self.document_length]) for text in texts], DIM)

    encode_queries = encode_documents

    def n_truncated(self, texts, *, side="document"):
        return sum(len(text.split()) > self.document_length for text in texts)

    @staticmethod
    def _vectors(words):
        rows = [np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIM) for word in words]
        matrix = np.array(rows, np.float32).reshape(len(words), DIM)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def add_method():
    """Let encoders be called ``hashed`` on the command line."""
    sys.modules["lexmax.retrieval.encoders.hashed"] = sys.modules[__name__]
    methods.METHODS["hashed"] = methods.Method("hashed:HashedTokens", "hashed:HashedTokens")
    registry.KINDS = methods.KINDS = tuple(methods.METHODS)
