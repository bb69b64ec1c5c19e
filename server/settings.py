"""How a server is run, beside its limits: one table behind flags and environment variables.

::

    Settings.access_log    --access-log    LEXMAX_ACCESS_LOG
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

SWITCHES = {"1": True, "true": True, "0": False, "false": False}


def _setting(default: Any, metavar: str, about: str) -> Any:
    return field(default=default, metadata={"metavar": metavar, "about": about})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server is run. The text beside each is its description in ``--help``.

    Raises
    ------
    ValueError
        An origin that is none.
    """

    keys: str | None = _setting(None, "FILE", "answer only who brings a key of this file, see `lexmax keys`")
    cors_origins: tuple[str, ...] = _setting(
        (), "ORIGIN[,ORIGIN]...", "pages of these origins may ask from browsers, as https://search.example; * is any"
    )
    writable: bool = field(
        default=False, metadata={"about": "take changes over HTTP: documents, fields, and new indexes in a folder of indexes"}
    )
    traces: bool = field(
        default=False,
        metadata={"about": "send a span of each request to OpenTelemetry, where OTEL_EXPORTER_OTLP_* variables say"},
    )
    access_log: str | None = _setting(None, "FILE", "write a line of JSON for each request to this file, or to stderr as -")

    def __post_init__(self) -> None:
        for origin in self.cors_origins:
            parts = urlsplit(origin)
            if origin != "*" and (parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}"):
                raise ValueError(f"cors_origins: {origin!r} is no origin, as https://search.example, without a path")


def add_setting_options(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting, for `settings_of`."""
    group = parser.add_argument_group("production", "each can also be set by the environment variable in brackets")
    for each in fields(Settings):
        flag, about = "--" + each.name.replace("_", "-"), f"{each.metadata['about']} (default: none) [{_variable(each)}]"
        if each.type is bool:
            group.add_argument(flag, action="store_true", default=None, help=about.replace("(default: none)", "(default: no)"))
        else:
            group.add_argument(flag, metavar=each.metadata["metavar"], help=about)


def settings_of(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings: flags over environment variables over defaults; ValueError as `Settings` raises it."""
    given: dict[str, Any] = {}
    for each in fields(Settings):
        flag = getattr(options, each.name)
        text = environment.get(_variable(each)) if flag is None else flag
        if text:
            given[each.name] = _value(each, text)
    return Settings(**given)


def _value(each: "Field[Any]", text: Any) -> Any:
    if each.type is bool and text is not True:
        if text not in SWITCHES:
            raise ValueError(f"{_variable(each)} must be 1 or 0, not {text!r}")
        return SWITCHES[text]
    return tuple(part.strip() for part in text.split(",")) if each.default == () else text


def _variable(each: "Field[Any]") -> str:
    return f"LEXMAX_{each.name.upper()}"
