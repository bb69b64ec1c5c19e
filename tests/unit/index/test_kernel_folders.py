"""Compiled kernels are kept by the sources that they were compiled from."""

from __future__ import annotations

import ast
import sys
from importlib import import_module, invalidate_caches
from pathlib import Path

import pytest

from lexmax.index import kernels


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of three kernel modules, of which the second imports the first."""
    folder = tmp_path / "some_package" / "kernels"
    folder.mkdir(parents=True)
    for path in (folder.parent / "__init__.py", folder / "__init__.py"):
        path.write_text("")
    (folder / "first.py").write_text("STEP = 1\n")
    (folder / "second.py").write_text("from .first import STEP\n")
    (folder / "third.py").write_text("STEP = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    return folder


def folders(*names: str) -> list[Path]:
    kernels._digest.cache_clear()
    for name in names:
        import_module(f"some_package.kernels.{name}")
    return [kernels.kernel_folder(f"some_package.kernels.{name}") for name in names]


def test_a_change_reaches_the_modules_that_import_it_and_no_others(modules: Path) -> None:
    names = "first", "second", "third"
    before = folders(*names)
    assert len(set(before)) == 3
    assert folders(*names) == before
    (modules / "first.py").write_text("STEP = 2\n")
    after = folders(*names)
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True]
    for name in (*(f"some_package.kernels.{name}" for name in names), "some_package.kernels", "some_package"):
        del sys.modules[name]


def test_every_import_of_a_kernel_module_is_seen() -> None:
    root = Path(kernels.__file__).parents[2]
    for path in (path for room in ("index", "retrieval") for path in (root / room / "kernels").glob("*.py")):
        siblings = {each.stem for each in path.parent.glob("*.py")}
        seen = {each.decode() for each in kernels._IMPORT.findall(path.read_bytes())}
        for node in ast.walk(ast.parse(path.read_text())):
            names = {each.name for each in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()
            assert not (isinstance(node, ast.Import) and any("lexmax" in name for name in names)), path
            if isinstance(node, ast.ImportFrom) and node.level:
                assert "." * node.level + (node.module or "") in seen, path
                assert not (node.module or "").endswith("kernels") or not names & siblings, f"{path}: import names, not modules"
