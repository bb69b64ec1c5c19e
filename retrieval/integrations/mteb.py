"""MTEB: search expressions as models of the benchmark, in its registry's form.

``mteb.evaluate(mteb.get_model("lexmax/bm25"), tasks)`` works once `register` was called.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...index.errors import MissingDependencyError
from ..build import build_index
from ..models import DEFAULT_ENCODERS
from ..retriever import Retriever

try:
    from mteb.models.model_implementations import MODEL_REGISTRY
    from mteb.models.model_meta import ModelMeta
except ImportError as problem:
    raise MissingDependencyError("mteb", "mteb", "lexmax's models for MTEB") from problem

MODELS: dict[str, tuple[str, ...]] = {
    "lexmax/bm25": ("bm25",),
    "lexmax/splade": ("lexmax-splade",),
    "lexmax/colbert": ("lexmax-colbert",),
    "lexmax/default": tuple(DEFAULT_ENCODERS),
}
"""Name -> encoders of its fields."""


class LexmaxSearch:
    """A model of MTEB's ``SearchProtocol``: one index per corpus, in a temporary folder.

    Parameters
    ----------
    encoders : sequence or mapping
        Fields of the index; see `fields.field_encoders`.
    search : str or None
        The search expression; None: the default of the fields.
    name : str
        Organisation and name, as MTEB's results have it.
    """

    def __init__(self, encoders: Any, search: str | None = None, *, name: str = "lexmax/search") -> None:
        self._encoders, self._search = encoders, search
        self.mteb_model_meta = meta(name, encoders, search)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._retriever: Retriever | None = None

    def index(self, corpus: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, encode_kwargs: Mapping[str, Any],
              num_proc: int | None = None, **keywords: Any) -> None:  # fmt: skip
        """Build the index of a corpus with id, title and text, in place of the one before."""
        self.close()
        self._folder = tempfile.TemporaryDirectory(prefix="lexmax-")
        rows = ({"id": row["id"], "title": row.get("title") or "", "text": row.get("text") or ""} for row in corpus)
        build_index(documents=rows, out=Path(self._folder.name) / "index", encoders=self._encoders, search=self._search)
        self._retriever = Retriever.open(Path(self._folder.name) / "index")

    def search(self, queries: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, top_k: int,
               encode_kwargs: Mapping[str, Any], top_ranked: Mapping[str, Sequence[str]] | None = None,
               num_proc: int | None = None, **keywords: Any) -> dict[str, dict[str, float]]:  # fmt: skip
        """Answer queries with id and text: query id -> document id -> score; ``top_ranked`` names the candidates of each."""
        if self._retriever is None:
            raise ValueError("index a corpus before searching it")
        texts = {row["id"]: row["text"] for row in queries}
        if top_ranked is None:
            found = self._retriever.rank(list(texts.values()), top_k)
        else:
            found = [
                self._retriever.rank([text], top_k, filter={"doc_id": {"in": list(top_ranked[name])}})[0]
                for name, text in texts.items()
            ]
        return {name: dict(ranking) for name, ranking in zip(texts, found, strict=True)}

    def close(self) -> None:
        """Remove the index."""
        if self._retriever is not None:
            self._retriever.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._retriever = self._folder = None


def meta(name: str, encoders: Any, search: str | None = None) -> ModelMeta:
    """Return what MTEB's registry keeps of a model: how it is made, and what is known of it."""
    return ModelMeta(
        loader=_load, loader_kwargs={"encoders": encoders, "search": search},
        name=name, revision=version("lexmax"), release_date=None, languages=["eng-Latn"], model_type=["sparse"],
        n_parameters=None, memory_usage_mb=None, max_tokens=None, embed_dim=None, license="apache-2.0", open_weights=True,
        public_training_code=None, public_training_data=None, framework=[], similarity_fn_name=None, use_instructions=False,
        training_datasets=None,
    )  # fmt: skip


def _load(name: str, revision: str | None = None, *, encoders: Any, search: str | None = None) -> LexmaxSearch:
    return LexmaxSearch(encoders, search, name=name)


def register() -> None:
    """Put the models that come with lexmax into MTEB's registry, for ``mteb.get_model``."""
    for name, encoders in MODELS.items():
        MODEL_REGISTRY[name] = meta(name, encoders)
