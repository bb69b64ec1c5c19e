from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lexmax.index.representations import SparseVectors


@pytest.fixture(scope="session")
def models() -> ModuleType:
    """tests/models.py: with import-mode=importlib no folder of tests is on the path."""
    spec = importlib.util.spec_from_file_location("tiny_models", Path(__file__).parents[2] / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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
