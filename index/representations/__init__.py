"""What encoders write and indexes store: sparse vectors, token vectors, sparse token vectors."""

from .multivectors import MultiVectors
from .sparse import SparseVectors
from .sparse_multivectors import SparseMultiVectors

Vectors = SparseVectors | MultiVectors | SparseMultiVectors

__all__ = ["MultiVectors", "SparseMultiVectors", "SparseVectors", "Vectors"]
