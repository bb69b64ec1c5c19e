"""What commands share: settings as a user types them."""

from dataclasses import dataclass

import pytest

from lexmax.retrieval.terminal import settings_of


@dataclass(frozen=True, kw_only=True)
class Config:
    n: int
    count: int = 1
    rate: float = 0.5
    on: bool = False
    word: str = "mean"


def test_values_have_the_types_of_the_defaults() -> None:
    texts = ["count=3", "rate=2", "on=true", "word=3", "rate=1e-4"]
    settings = settings_of(Config, texts, "--set")
    assert settings == {"count": 3, "rate": 1e-4, "on": True, "word": "3"}
    assert isinstance(settings_of(Config, ["rate=2"], "--set")["rate"], float)
    assert settings_of(Config, ["word=a=b"], "--set") == {"word": "a=b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count", "--set takes NAME=VALUE, not 'count'"),
        ("cuont=1", "does not know 'cuont'; there are count, rate, word"),
        ("on=true", "does not know 'on'"),
        ("n=1", "does not know 'n'"),
        ("count=1.5", "--set count takes a whole number, not '1.5'"),
        ("count=true", "takes a whole number"),
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
