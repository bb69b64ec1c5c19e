"""The documentation's code: Python blocks and marked shell blocks run, other commands at least parse, links lead somewhere.

A shell block runs when the line before it is ``<!-- run -->``; what it prints must then contain the lines of the ``text`` block
that follows it, numbers aside.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lexmax.__main__ import _parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?P<run><!-- run -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


def blocks(language, *, run=None):
    """(page and number, code, what follows) of the blocks of a language."""
    found = []
    for page in PAGES:
        matches = list(BLOCK.finditer(page.read_text()))
        for number, match in enumerate(matches):
            if match["language"] == language and run in (None, bool(match["run"])):
                following = matches[number + 1] if number + 1 < len(matches) else None
                shown = following["code"] if following and following["language"] == "text" else ""
                found.append(pytest.param(match["code"], shown, id=f"{page.name}-{number}"))
    return found


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder as a reader would stand in: the repository's collections are there."""
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "collections").symlink_to(ROOT / "eval" / "collections")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("code", "shown"), blocks("python"))
def test_python_blocks_run(place, code, shown):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_shown(shown, done.stdout)


@pytest.mark.parametrize(("code", "shown"), blocks("sh", run=True))
def test_marked_shell_blocks_run(place, code, shown):
    code = re.sub(r"^lexmax ", f"{shlex.quote(sys.executable)} -m lexmax ", code, flags=re.MULTILINE)
    done = subprocess.run(["bash", "-euc", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_shown(shown, done.stdout)


@pytest.mark.parametrize(("code", "shown"), blocks("sh", run=False))
def test_commands_of_other_shell_blocks_parse(code, shown):
    joined = re.sub(r"\\\n\s*", " ", code)
    for line in joined.splitlines():
        for command in re.split(r"&&|\|\|", line):
            words = shlex.split(command, comments=True)
            if words[-1:] == ["&"]:
                words.pop()
            if words[:1] == ["lexmax"] and "..." not in words:
                _parser().parse_args(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_is_short():
    prose = BLOCK.sub("", (ROOT / "README.md").read_text())
    assert len(re.findall(r"[\w'-]+", prose)) <= 700


def assert_shown(shown, printed):
    """Every line that the page shows was printed, numbers and spaces aside."""
    lines = {plain(line) for line in printed.splitlines()}
    for line in shown.splitlines():
        assert plain(line) in lines, f"the page shows {line!r}, printed was:\n{printed}"


def plain(line):
    return " ".join(re.sub(r"\d+(\.\d+)?", "N", line).split())


@pytest.mark.parametrize(("code", "shown"), blocks("yaml"))
def test_yaml_blocks_are_yaml(code, shown):
    yaml = pytest.importorskip("yaml")
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(code))
