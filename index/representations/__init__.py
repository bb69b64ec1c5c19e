"""What encoders write and indexes store: sparse vectors, token vectors, sparse token vectors, dense vectors."""

from .dense import DenseVectors
from .multivectors import MultiVectors
from .sparse import SparseVectors
from .sparse_multivectors import SparseMultiVectors

Vectors = SparseVectors | MultiVectors | SparseMultiVectors | DenseVectors

__all__ = ["DenseVectors", "MultiVectors", "SparseMultiVectors", "SparseVectors", "Vectors"]
