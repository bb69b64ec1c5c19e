"""lexmax: learned-sparse and multi-vector retrieval.

The public names are loaded on first use, so that ``import lexmax`` stays fast and pulls no model library.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .index.collection import BufferLimits, Collection, NewField
    from .index.documents import Document
    from .index.errors import (
        DatasetError,
        DuplicateDocumentError,
        EncoderMismatchError,
        FilterError,
        IndexFormatError,
        IndexLockedError,
        IndexNotFoundError,
        LexmaxError,
        MissingDependencyError,
        RepresentationError,
        ShardError,
        StorageError,
    )
    from .index.manifest import EncoderRecord
    from .index.multivector.config import MultiVectorConfig
    from .index.multivector.placement import TokenStorage
    from .index.representations.dense import DenseVectors
    from .index.representations.multivectors import MultiVectors
    from .index.representations.nets import QueryNets
    from .index.representations.sparse import SparseVectors
    from .index.representations.sparse_multivectors import SparseMultiVectors
    from .index.snapshot import Snapshot
    from .retrieval.build import BuildReport, add_to_index, build_index
    from .retrieval.corpora.objects import as_documents
    from .retrieval.corpora.reading import BadRecords, Fields, read_corpus
    from .retrieval.encoders.base import (
        DenseVectorEncoder,
        Encoder,
        MultiVectorEncoder,
        NetEncoder,
        SparseEncoder,
        SparseTokenEncoder,
    )
    from .retrieval.encoders.registry import load_encoder
    from .retrieval.encoders.specs import EncoderSpec
    from .retrieval.exchange.arrow import documents_table, results_table
    from .retrieval.exchange.ciff import export_ciff, import_ciff
    from .retrieval.exchange.dense_files import import_dense
    from .retrieval.exchange.feeds import export_feed
    from .retrieval.exchange.importing import import_vectors
    from .retrieval.exchange.plaid import import_plaid
    from .retrieval.exchange.plaid_export import export_plaid
    from .retrieval.exchange.semantic_search import SemanticIndex, semantic_search_lexmax
    from .retrieval.exchange.token_lists import import_tokens
    from .retrieval.exchange.vectors import to_sparse_vectors
    from .retrieval.feedback.clicks import Impression
    from .retrieval.feedback.log import ClickLog
    from .retrieval.feedback.rocchio import Rocchio
    from .retrieval.fields import FieldEncoder, add_field, drop_field, set_default_search, set_query_bank
    from .retrieval.hits import Hits
    from .retrieval.pipelines.expression import ExpressionError, Search
    from .retrieval.pipelines.expression import parse as parse_search
    from .retrieval.results import Result, Results
    from .retrieval.retriever import Retriever
    from .retrieval.searchers.audit import Audit, audit
    from .retrieval.searchers.blockmax import SparseOptions
    from .retrieval.searchers.calibration import calibrate
    from .retrieval.searchers.calibration_record import Calibration, CalibrationWarning
    from .retrieval.searchers.centroid import CentroidOptions
    from .retrieval.searchers.dense import DenseOptions
    from .retrieval.searchers.explanation import (
        Explanation,
        FieldExplanation,
        SentenceMatch,
        StageExplanation,
        TermMatch,
        TokenMatch,
    )
    from .retrieval.searchers.nets import NetOptions
    from .retrieval.searchers.slim import SlimOptions

_HOMES = {
    "Audit": "retrieval.searchers.audit",
    "BadRecords": "retrieval.corpora.reading",
    "BufferLimits": "index.collection",
    "BuildReport": "retrieval.build",
    "Calibration": "retrieval.searchers.calibration_record",
    "CalibrationWarning": "retrieval.searchers.calibration_record",
    "CentroidOptions": "retrieval.searchers.centroid",
    "ClickLog": "retrieval.feedback.log",
    "Collection": "index.collection",
    "DatasetError": "index.errors",
    "Document": "index.documents",
    "DuplicateDocumentError": "index.errors",
    "Encoder": "retrieval.encoders.base",
    "EncoderMismatchError": "index.errors",
    "EncoderRecord": "index.manifest",
    "EncoderSpec": "retrieval.encoders.specs",
    "Explanation": "retrieval.searchers.explanation",
    "ExpressionError": "retrieval.pipelines.expression",
    "FieldEncoder": "retrieval.fields",
    "FieldExplanation": "retrieval.searchers.explanation",
    "Fields": "retrieval.corpora.reading",
    "FilterError": "index.errors",
    "Hits": "retrieval.hits",
    "Impression": "retrieval.feedback.clicks",
    "IndexFormatError": "index.errors",
    "IndexLockedError": "index.errors",
    "IndexNotFoundError": "index.errors",
    "LexmaxError": "index.errors",
    "MissingDependencyError": "index.errors",
    "MultiVectorConfig": "index.multivector.config",
    "MultiVectorEncoder": "retrieval.encoders.base",
    "NetEncoder": "retrieval.encoders.base",
    "DenseOptions": "retrieval.searchers.dense",
    "DenseVectorEncoder": "retrieval.encoders.base",
    "DenseVectors": "index.representations.dense",
    "NetOptions": "retrieval.searchers.nets",
    "QueryNets": "index.representations.nets",
    "MultiVectors": "index.representations.multivectors",
    "NewField": "index.collection",
    "RepresentationError": "index.errors",
    "Result": "retrieval.results",
    "Results": "retrieval.results",
    "Retriever": "retrieval.retriever",
    "Rocchio": "retrieval.feedback.rocchio",
    "Search": "retrieval.pipelines.expression",
    "SemanticIndex": "retrieval.exchange.semantic_search",
    "ShardError": "index.errors",
    "SlimOptions": "retrieval.searchers.slim",
    "Snapshot": "index.snapshot",
    "SparseEncoder": "retrieval.encoders.base",
    "SparseMultiVectors": "index.representations.sparse_multivectors",
    "SparseOptions": "retrieval.searchers.blockmax",
    "SparseTokenEncoder": "retrieval.encoders.base",
    "SparseVectors": "index.representations.sparse",
    "SentenceMatch": "retrieval.searchers.explanation",
    "StageExplanation": "retrieval.searchers.explanation",
    "StorageError": "index.errors",
    "TermMatch": "retrieval.searchers.explanation",
    "TokenMatch": "retrieval.searchers.explanation",
    "TokenStorage": "index.multivector.placement",
    "add_field": "retrieval.fields",
    "add_to_index": "retrieval.build",
    "as_documents": "retrieval.corpora.objects",
    "audit": "retrieval.searchers.audit",
    "build_index": "retrieval.build",
    "calibrate": "retrieval.searchers.calibration",
    "documents_table": "retrieval.exchange.arrow",
    "drop_field": "retrieval.fields",
    "export_ciff": "retrieval.exchange.ciff",
    "export_feed": "retrieval.exchange.feeds",
    "export_plaid": "retrieval.exchange.plaid_export",
    "import_ciff": "retrieval.exchange.ciff",
    "import_dense": "retrieval.exchange.dense_files",
    "import_plaid": "retrieval.exchange.plaid",
    "import_tokens": "retrieval.exchange.token_lists",
    "import_vectors": "retrieval.exchange.importing",
    "load_encoder": "retrieval.encoders.registry",
    "parse_search": "retrieval.pipelines.expression",
    "read_corpus": "retrieval.corpora.reading",
    "results_table": "retrieval.exchange.arrow",
    "semantic_search_lexmax": "retrieval.exchange.semantic_search",
    "set_default_search": "retrieval.fields",
    "set_query_bank": "retrieval.fields",
    "to_sparse_vectors": "retrieval.exchange.vectors",
}
_RENAMED = {"parse_search": "parse"}

__all__ = [
    "Audit",
    "BadRecords",
    "BufferLimits",
    "BuildReport",
    "Calibration",
    "CalibrationWarning",
    "CentroidOptions",
    "ClickLog",
    "Collection",
    "DatasetError",
    "DenseOptions",
    "DenseVectorEncoder",
    "DenseVectors",
    "Document",
    "DuplicateDocumentError",
    "Encoder",
    "EncoderMismatchError",
    "EncoderRecord",
    "EncoderSpec",
    "Explanation",
    "ExpressionError",
    "FieldEncoder",
    "FieldExplanation",
    "Fields",
    "FilterError",
    "Hits",
    "Impression",
    "IndexFormatError",
    "IndexLockedError",
    "IndexNotFoundError",
    "LexmaxError",
    "MissingDependencyError",
    "MultiVectorConfig",
    "MultiVectorEncoder",
    "MultiVectors",
    "NetEncoder",
    "NetOptions",
    "NewField",
    "QueryNets",
    "RepresentationError",
    "Result",
    "Results",
    "Retriever",
    "Rocchio",
    "Search",
    "SemanticIndex",
    "SentenceMatch",
    "ShardError",
    "SlimOptions",
    "Snapshot",
    "SparseEncoder",
    "SparseMultiVectors",
    "SparseOptions",
    "SparseTokenEncoder",
    "SparseVectors",
    "StageExplanation",
    "StorageError",
    "TermMatch",
    "TokenMatch",
    "TokenStorage",
    "__version__",
    "add_field",
    "add_to_index",
    "as_documents",
    "audit",
    "build_index",
    "calibrate",
    "documents_table",
    "drop_field",
    "export_ciff",
    "export_feed",
    "export_plaid",
    "import_ciff",
    "import_dense",
    "import_plaid",
    "import_tokens",
    "import_vectors",
    "load_encoder",
    "parse_search",
    "read_corpus",
    "results_table",
    "semantic_search_lexmax",
    "set_default_search",
    "set_query_bank",
    "to_sparse_vectors",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("lexmax")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), _RENAMED.get(name, name))
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
