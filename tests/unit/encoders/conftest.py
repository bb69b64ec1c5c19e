from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lexmax.index.representations.sparse import SparseVectors


def _module(path: Path, name: str) -> ModuleType:
    """A module beside the tests: with import-mode=importlib their folders are not on the path."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def models() -> ModuleType:
    return _module(Path(__file__).parents[2] / "models.py", "tiny_models")


@pytest.fixture(scope="session")
def colbert_models() -> ModuleType:
    return _module(Path(__file__).with_name("colbert_models.py"), "tiny_colbert_models")


@pytest.fixture(scope="session")
def stanford(colbert_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stanford ColBERT folder; tests that change files copy it."""
    return colbert_models.stanford(tmp_path_factory.mktemp("models") / "stanford")


@pytest.fixture(scope="session")
def raw(models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain BertForMaskedLM folder; tests that change files copy it."""
    return models.raw(tmp_path_factory.mktemp("models") / "raw")


@pytest.fixture(scope="session")
def dense(models: ModuleType) -> Callable[[SparseVectors], np.ndarray]:
    """Rows of sparse vectors as (n, n_terms) float32."""

    def fill(vectors: SparseVectors) -> np.ndarray:
        rows = np.zeros((len(vectors), len(models.VOCABULARY)), np.float32)
        for i, row in enumerate(rows):
            terms, weights = vectors.row(i)
            row[terms] = weights
        return rows

    return fill
