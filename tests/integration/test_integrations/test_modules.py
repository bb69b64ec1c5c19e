"""Adapters stay small, and say what is missing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "retrieval" / "integrations"
PACKAGES = {
    "haystack": "haystack",
    "haystack_retrievers": "haystack",
    "hub": "huggingface_hub",
    "dspy": "dspy",
    "langchain": "langchain_core",
    "mteb": "mteb",
    "pyterrier": "pyterrier",
    "llamaindex": "llama_index.core",
    "sentence_transformers": "sentence_transformers",
}
EXTRAS = {"haystack_retrievers": "haystack", "sentence_transformers": "sentence-transformers"}
SHARED = {"__init__", "embeddings", "filters", "haystack_metadata", "metadata", "store"}


def n_code_lines(path):
    """Lines of code: neither blank, nor comments, docstrings or imports."""
    text = path.read_text()
    lines = {number for number, line in enumerate(text.splitlines(), 1) if line.strip() and not line.strip().startswith("#")}
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def test_every_adapter_is_listed_here():
    assert {path.stem for path in FOLDER.glob("*.py")} - SHARED == set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_an_adapter_is_under_100_lines_of_code(name):
    assert n_code_lines(FOLDER / f"{name}.py") < 100


@pytest.mark.parametrize(("name", "package"), PACKAGES.items())
def test_a_missing_framework_is_named_with_its_extra(name, package):
    code = f"""
import sys
sys.modules[{package!r}] = None
from lexmax import MissingDependencyError
try:
    import lexmax.retrieval.integrations.{name}
except MissingDependencyError as problem:
    print(problem)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'lexmax[{EXTRAS.get(name, name)}]'" in done.stdout
