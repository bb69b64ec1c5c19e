"""lexmax: learned-sparse and multi-vector retrieval.

The public names are loaded on first use, so that ``import lexmax`` stays fast and pulls no model library.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .index.collection import Collection
    from .index.errors import (
        DatasetError,
        DuplicateDocumentError,
        EncoderMismatchError,
        IndexFormatError,
        IndexLockedError,
        IndexNotFoundError,
        LexmaxError,
        RepresentationError,
        StorageError,
    )
    from .index.multivector.config import MultiVectorConfig
    from .index.representations.multivectors import MultiVectors
    from .index.representations.sparse import SparseVectors
    from .retrieval.build import TokenStorage, build_index
    from .retrieval.encoders.registry import load_encoder
    from .retrieval.exchange.ciff import export_ciff, import_ciff
    from .retrieval.exchange.importing import import_vectors
    from .retrieval.exchange.vectors import semantic_search_lexmax, to_sparse_vectors
    from .retrieval.hits import Hits
    from .retrieval.retriever import Result, Retriever
    from .retrieval.searchers.calibration import calibrate
    from .retrieval.searchers.centroid import CentroidOptions

_HOMES = {
    "Collection": "index.collection",
    "DatasetError": "index.errors",
    "DuplicateDocumentError": "index.errors",
    "EncoderMismatchError": "index.errors",
    "IndexFormatError": "index.errors",
    "IndexLockedError": "index.errors",
    "IndexNotFoundError": "index.errors",
    "LexmaxError": "index.errors",
    "RepresentationError": "index.errors",
    "StorageError": "index.errors",
    "MultiVectors": "index.representations.multivectors",
    "SparseVectors": "index.representations.sparse",
    "MultiVectorConfig": "index.multivector.config",
    "Hits": "retrieval.hits",
    "Result": "retrieval.retriever",
    "Retriever": "retrieval.retriever",
    "CentroidOptions": "retrieval.searchers.centroid",
    "TokenStorage": "retrieval.build",
    "build_index": "retrieval.build",
    "calibrate": "retrieval.searchers.calibration",
    "export_ciff": "retrieval.exchange.ciff",
    "import_ciff": "retrieval.exchange.ciff",
    "import_vectors": "retrieval.exchange.importing",
    "load_encoder": "retrieval.encoders.registry",
    "semantic_search_lexmax": "retrieval.exchange.vectors",
    "to_sparse_vectors": "retrieval.exchange.vectors",
}

__all__ = [
    "CentroidOptions",
    "Collection",
    "DatasetError",
    "DuplicateDocumentError",
    "EncoderMismatchError",
    "Hits",
    "IndexFormatError",
    "IndexLockedError",
    "IndexNotFoundError",
    "LexmaxError",
    "MultiVectorConfig",
    "MultiVectors",
    "RepresentationError",
    "Result",
    "Retriever",
    "SparseVectors",
    "StorageError",
    "TokenStorage",
    "__version__",
    "build_index",
    "calibrate",
    "export_ciff",
    "import_ciff",
    "import_vectors",
    "load_encoder",
    "semantic_search_lexmax",
    "to_sparse_vectors",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
