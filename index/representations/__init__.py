"""What encoders write: sparse vectors, token vectors, sparse token vectors, dense vectors, and queries that are networks."""

from .dense import DenseVectors
from .multivectors import MultiVectors
from .nets import QueryNets
from .sparse import SparseVectors
from .sparse_multivectors import SparseMultiVectors

Vectors = SparseVectors | MultiVectors | SparseMultiVectors | DenseVectors | QueryNets

__all__ = ["DenseVectors", "MultiVectors", "QueryNets", "SparseMultiVectors", "SparseVectors", "Vectors"]
