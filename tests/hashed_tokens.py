"""Stand-ins for ColBERT and dense models: a fixed unit vector for each word, so that commands run without a model."""

import sys
import zlib

import numpy as np

from lexmax import MultiVectors
from lexmax.index.representations.dense import DenseVectors
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


class HashedTexts(HashedTokens):
    """The sum of a text's token vectors is its vector."""

    kind, representation, fingerprint = "hashed-dense", "dense", "hashed-dense:0123456789abcdef"

    def encode_documents(self, texts):
        sums = [self._vectors(text.split()[: self.document_length]).sum(axis=0) for text in texts]
        return DenseVectors(np.array(sums, np.float32).reshape(len(texts), DIM))

    encode_queries = encode_documents


def add_method():
    """Let encoders be called ``hashed`` and ``hashed-dense`` on the command line."""
    sys.modules["lexmax.retrieval.encoders.hashed"] = sys.modules[__name__]
    methods.METHODS["hashed"] = methods.Method("hashed:HashedTokens", "hashed:HashedTokens")
    methods.METHODS["hashed-dense"] = methods.Method("hashed:HashedTexts", "hashed:HashedTexts")
    registry.KINDS = methods.KINDS = tuple(methods.METHODS)
