"""What one server takes and how long it waits: one table behind flags, environment variables, validation and documentation.

::

    Limits.max_k    --max-k    LEXMAX_MAX_K
"""

import argparse
import math
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

MIB = 1024 * 1024


def _limit(default: Any, about: str) -> Any:
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one server. The text beside each is its description in ``--help`` and in the OpenAPI document.

    Raises
    ------
    ValueError
        A limit that is not above 0, or limits that contradict each other.
    """

    max_k: int = _limit(1000, "results per query")
    max_batch: int = _limit(256, "queries per request")
    max_hits: int = _limit(20_000, "results per request: queries times k")
    max_explained: int = _limit(200, "results per request with `explain`; of a dense field each is 16 runs of the network")
    max_scored: int = _limit(1_000_000, "documents that the stages of a search find or score, over all queries of a request")
    max_text_chars: int = _limit(20_000, "characters per query")
    max_total_chars: int = _limit(200_000, "characters of all queries of a request")
    max_search_chars: int = _limit(1_000, "characters of a search expression")
    max_impressions: int = _limit(1000, "impressions per request of /v1/feedback")
    max_feedback_bytes: int = _limit(64 * MIB, "bytes that the click log may grow to; more are refused with 507")
    max_reranked: int = _limit(1000, "documents per request of /v1/rerank")
    max_documents: int = _limit(10_000, "documents, or ids, per request that changes an index")
    max_jobs: int = _limit(64, "changes that wait for the writer; more are refused with 503")
    max_body_bytes: int = _limit(2 * MIB, "bytes of a request body")
    max_answer_bytes: int = _limit(32 * MIB, "bytes of an answer: results times their texts")
    max_waiting: int = _limit(1024, "queries taken and not answered yet, over all requests; more are refused with 503")
    max_held_bytes: int = _limit(256 * MIB, "bytes of bodies and answers that all requests hold together; more: 503")
    max_connections: int = _limit(512, "open connections; one more takes the place of one without a request, or gets 503")
    deadline_s: float = _limit(8.0, "seconds per request, from its parsed body to its answer; then 503")
    header_timeout_s: float = _limit(10.0, "seconds for the head of a request to arrive")
    body_timeout_s: float = _limit(20.0, "seconds for the body of a request to arrive")
    write_timeout_s: float = _limit(20.0, "seconds that a client may take nothing of an answer that waits for it")
    keep_alive_s: int = _limit(5, "seconds that a connection may idle after an answer")
    grace_s: int = _limit(20, "seconds that requests under way get after SIGTERM; then 503")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not (value >= 1 if each.type is int else 0 < value < math.inf):
                least = "at least 1" if each.type is int else "a number above 0"
                raise ValueError(f"{_named(each)} must be {least}, not {value}")
        if self.max_waiting < self.max_batch:
            raise ValueError(f"max_waiting must be at least max_batch: {self.max_waiting} < {self.max_batch}")
        if self.max_held_bytes < self.max_body_bytes + self.max_answer_bytes:
            raise ValueError(
                f"max_held_bytes must hold a body and an answer: {self.max_held_bytes} < "
                f"{self.max_body_bytes} + {self.max_answer_bytes}"
            )


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each limit, for `limits_of`."""
    group = parser.add_argument_group("limits", "each can also be set by the environment variable in brackets; the flag wins")
    for each in fields(Limits):
        about = f"{each.metadata['about']} (default {each.default:,}) [{_variable(each)}]"
        kind: Any = each.type
        group.add_argument(_flag(each), type=kind, metavar="SECONDS" if each.name.endswith("_s") else "N", help=about)


def limits_of(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Limits:
    """Return the limits: flags over environment variables over defaults.

    Raises
    ------
    ValueError
        A variable that is no number, or limits that `Limits` refuses.
    """
    given: dict[str, Any] = {}
    for each in fields(Limits):
        text, kind = environment.get(_variable(each)), each.type
        if (flag := getattr(options, each.name)) is not None:
            given[each.name] = flag
        elif text is not None:
            try:
                given[each.name] = kind(text)  # type: ignore[operator]
            except ValueError:
                wanted = "a whole number" if kind is int else "a number"
                raise ValueError(f"{_variable(each)} must be {wanted}, not {text!r}") from None
    return Limits(**given)


def limits_table(limits: Limits) -> str:
    """Return a Markdown table of what the limits are."""
    rows = [f"| `{_flag(each)}` | {getattr(limits, each.name):,} | {each.metadata['about']} |" for each in fields(limits)]
    return "\n".join(["| flag of `lexmax serve` | value | what |", "|---|---|---|", *rows])


def _flag(each: "Field[Any]") -> str:
    return "--" + each.name.replace("_", "-")


def _variable(each: "Field[Any]") -> str:
    return f"LEXMAX_{each.name.upper()}"


def _named(each: "Field[Any]") -> str:
    return f"{each.name} ({_flag(each)}, {_variable(each)})"
