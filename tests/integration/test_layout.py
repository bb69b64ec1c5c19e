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


def test_a_missing_index_is_told_before_anything_heavy_is_loaded(tmp_path):
    code = f"""
import sys
from lexmax.__main__ import main
assert main(["search", {str(tmp_path / "none")!r}, "words"]) == 2
print([m for m in ("numba", "pyarrow", "scipy", "faiss", "torch") if m in sys.modules])
"""
    assert run(code).strip().endswith("[]")


def test_a_short_search_compiles_nothing_and_answers_as_compiled_kernels_do(tmp_path):
    words = [
        "heart",
        "attack",
        "risk",
        "in",
        "young",
        "adults",
        "with",
        "high",
        "blood",
        "pressure",
        "and",
        "no",
        "other",
        "disease",
    ]
    with (tmp_path / "c.jsonl").open("w") as file:
        for n in range(300):
            text = " ".join(words[(n * step) % len(words)] for step in range(1, 9))
            file.write(f'{{"_id": "{n}", "text": "{text}", "year": {n % 7}}}\n')
    index = str(tmp_path / "idx")
    code = f"""
import sys
from lexmax.__main__ import main
for rest in ([], ["--filter", "year == 3"]):
    assert main(["search", {index!r}, "heart disease of adults", "-k", "20", "--json", *rest, *sys.argv[1:]]) == 0
print([m for m in ("numba", "scipy", "faiss", "torch") if m in sys.modules])
"""
    main = [sys.executable, "-m", "lexmax", "build", str(tmp_path / "c.jsonl"), "--out", index, "--encoder", "bm25"]
    subprocess.run(main, check=True, capture_output=True)
    short, long = (
        subprocess.run([sys.executable, "-c", code, *rest], check=True, capture_output=True, text=True).stdout.splitlines()
        for rest in ([], ["--option", "bm25.algorithm=auto"])
    )
    assert short[-1] == "[]"
    assert "numba" in long[-1]
    assert len(short) == 41
    assert short[:-1] == long[:-1]


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
