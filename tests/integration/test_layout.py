"""The house keeps its shape: packages, floors, public names, light imports."""

import subprocess
import sys
import tomllib
from pathlib import Path

import lexmax

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed_and_the_root_holds_no_stray_module():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = ["index", "retrieval", "server", "eval"]
    found = {"lexmax"} | {
        "lexmax." + ".".join(path.parent.relative_to(ROOT).parts)
        for room in rooms
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert set(listed) == found
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_public_names_are_there():
    for name in lexmax.__all__:
        assert getattr(lexmax, name) is not None
    assert set(dir(lexmax)) == set(lexmax.__all__)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_imports_stay_light():
    heavy = "[m for m in ('torch', 'transformers', 'numba', 'pyarrow', 'fastapi', 'ranx') if m in sys.modules]"
    assert run(f"import sys, lexmax; print({heavy})").strip() == "[]"
    code = f"import sys, lexmax.__main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: print({heavy})"
    assert run(code).strip().endswith("[]")


def test_bm25_and_info_load_no_model_library(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "some words"}\n')
    code = f"""
import sys
from lexmax.__main__ import main
main(["build", "--encoder", "bm25", {str(tmp_path / "c.jsonl")!r}, "--out", {str(tmp_path / "idx")!r}])
main(["search", {str(tmp_path / "idx")!r}, "words"])
main(["info", {str(tmp_path / "idx")!r}])
print([m for m in ("torch", "transformers", "fastapi", "ranx", "sentence_transformers") if m in sys.modules])
"""
    assert run(code).strip().endswith("[]")
