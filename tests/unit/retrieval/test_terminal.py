"""What commands share: settings as a user types them, progress, packages that are wanted."""

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from lexmax.index.errors import MissingDependencyError
from lexmax.retrieval.terminal import json_or_text, progress_bar, require, settings_of


@dataclass(frozen=True, kw_only=True)
class Config:
    n: int
    count: int = 1
    rate: float = 0.5
    on: bool = False
    word: str = "mean"
    limit: int | None = None
    mode: Literal["cls", "mean"] | None = None


def test_values_have_the_types_of_the_defaults() -> None:
    texts = ["count=3", "rate=2", "on=true", "word=3", "rate=1e-4"]
    settings = settings_of(Config, texts, "--set")
    assert settings == {"count": 3, "rate": 1e-4, "on": True, "word": "3"}
    assert isinstance(settings_of(Config, ["rate=2"], "--set")["rate"], float)
    assert settings_of(Config, ["word=a=b"], "--set") == {"word": "a=b"}
    assert settings_of(Config, ["limit=3", "mode=cls"], "--set") == {"limit": 3, "mode": "cls"}  # the default is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count", "--set takes NAME=VALUE, not 'count'"),
        ("cuont=1", "does not know 'cuont'; there are count, limit, mode, rate, word"),
        ("on=true", "does not know 'on'"),
        ("n=1", "does not know 'n'"),
        ("count=1.5", "--set count takes a whole number, not '1.5'"),
        ("count=true", "takes a whole number"),
        ("limit=long", "--set limit takes a whole number, not 'long'"),
        ("rate=fast", "takes a number, not 'fast'"),
        ("rate=NaN", "takes a number, not 'NaN'"),
        ("rate=1e999", "takes a number"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(Config, [text], "--set", without={"on"})


def test_true_and_false_are_spelt_as_in_json() -> None:
    with pytest.raises(ValueError, match="takes true or false, not 'yes'"):
        settings_of(Config, ["on=yes"], "--set")


def test_values_of_unknown_type_are_json_or_words() -> None:
    assert [json_or_text(text) for text in ("0.9", "true", "german", "a=b")] == [0.9, True, "german", "a=b"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_shown_on_terminals_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "four.jsonl").write_text("{}\n" * 4)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar("documents", total=4) as bar:
        assert bar is None
    monkeypatch.setattr(sys, "stderr", Terminal())
    for known in ({"total": 4}, {"sources": [str(tmp_path / "four.jsonl")]}):
        with progress_bar("documents", **known) as bar:
            assert " 25%  1 documents" in bar.line(1, 1.0)
    with progress_bar("documents", sources=["-"]) as bar:
        assert bar.line(1, 1.0).startswith("1 documents")
    assert sys.stderr.getvalue().endswith("\r\x1b[K")


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    require("json", "serve", "lexmax serve")
    with pytest.raises(MissingDependencyError, match=r"lexmax serve.*no_such_package_here.*lexmax\[serve\]"):
        require("no_such_package_here", "serve", "lexmax serve")
