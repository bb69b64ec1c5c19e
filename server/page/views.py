"""What the page shows: searches through the same service as the API, rendered by templates."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import QueryParams

from ...retrieval.explanation_html import explanation_html
from ...retrieval.searchers.explanation import Explanation
from ..errors import RefusedError
from ..indexes import Indexes
from ..searching.service import Service
from ..transport.payloads import Share
from .curves import calibration_curve, sizes
from .highlighting import Highlighter

HERE = Path(__file__).parent
_EXPLANATION = TypeAdapter(Explanation)
SHOWN = 10


@dataclass
class Asked:
    """What the form holds."""

    index: str = ""
    q: str = ""
    search: str = ""
    against: str = ""
    filter: str = ""
    page: int = 1

    @classmethod
    def of(cls, query: QueryParams, indexes: Indexes) -> "Asked":
        """Read an address; a missing index is the first."""
        index, q, search, against, filter_ = (
            query.get(name, "").strip() for name in ("index", "q", "search", "against", "filter")
        )
        first = next((name for name, _ in indexes), "")
        page = query.get("page", "1")
        number = int(page) if page.isdecimal() and len(page) <= 3 and int(page) >= 1 else 1
        return cls(index=index or first, q=q, search=search, against=against, filter=filter_, page=number)

    def parts(self, **other: Any) -> dict[str, Any]:
        """What an address of the page says; ``other`` in the place of what is here."""
        own = {"index": self.index, "q": self.q, "search": self.search, "against": self.against, "filter": self.filter}
        return {name: value for name, value in {**own, **other}.items() if value not in ("", None)}


class Views:
    """The pages of a server.

    Parameters
    ----------
    indexes : Indexes
    one : type
        The body of a search, within the limits.
    """

    def __init__(self, indexes: Indexes, one: Any) -> None:
        self._indexes, self._one = indexes, TypeAdapter(one)
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=select_autoescape(["html"]), undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._highlighters: dict[tuple[str, str], Highlighter] = {}

    async def search(self, asked: Asked, held: Share) -> str:
        """Return the form, and what was found: by one expression, or by two side by side."""
        if not asked.q:
            return self._render("search.html", asked, columns=[])
        service = self._service(asked)
        columns = [await self._column(service, asked, asked.search, held)]
        if asked.against:
            columns.append(await self._column(service, asked, asked.against, held))
            _compare(*columns)
        return self._render("search.html", asked, columns=columns)

    async def explain(self, asked: Asked, rank: int, held: Share) -> str:
        """Return the explanation of the result of a rank."""
        service = self._service(asked)
        body = self._body(asked, asked.search, k=1, offset=rank - 1, explain=True)
        found = await _found(service, body, held)
        if not found["results"]:
            raise RefusedError(404, "not_found", f"the search has no result of rank {rank}")
        (hit,) = found["results"]
        content = f"{hit['title']} {hit['text']}" if hit["title"] and hit["text"] else hit["title"] or hit["text"]
        explained = explanation_html(_EXPLANATION.validate_python(hit["explanation"]), content)
        why = Markup(explained)  # noqa: S704  its texts are escaped
        return self._render("explain.html", asked, hit=hit, rank=rank, why=why, took_ms=found["took_ms"])

    async def facts(self, asked: Asked) -> str:
        """Return what is known of an index."""
        facts = (await self._service(asked).info()).root
        curves = {
            name: (each["calibration"], calibration_curve(each["calibration"]))
            for name, each in facts["fields"].items()
            if each.get("calibration") and each["calibration"].get("efforts")
        }
        return self._render("facts.html", asked, facts=facts, sizes=sizes(facts), curves=curves)

    def error(self, asked: Asked, refusal: RefusedError) -> str:
        """Return the form with what is wrong."""
        return self._render("error.html", asked, message=refusal.message, status=refusal.status)

    def _service(self, asked: Asked) -> Service:
        service = self._indexes.service(asked.index or None)
        service.check_ready()
        return service

    def _body(self, asked: Asked, search: str, **more: Any) -> Any:
        given = {"query": asked.q, "search": search or None, "filter": asked.filter or None, **more}
        try:
            return self._one.validate_python(given)
        except ValidationError as error:
            problem = error.errors()[0]
            place = str(problem["loc"][0]) if problem["loc"] else "query"
            raise RefusedError(422, "invalid_request", f"{place}: {problem['msg']}") from None

    async def _column(self, service: Service, asked: Asked, search: str, held: Share) -> dict[str, Any]:
        """What one expression finds."""
        offset = (asked.page - 1) * SHOWN
        found = await _found(service, self._body(asked, search, k=SHOWN, offset=offset), held)
        highlighter = self._highlighter(service)
        hits = [
            {**hit, "rank": offset + number, "snippet": highlighter.snippet(hit["text"], asked.q), "moved": None,
             "heading": highlighter.snippet(hit["title"] or hit["doc_id"], asked.q)}
            for number, hit in enumerate(found["results"], 1)
        ]  # fmt: skip
        return {
            "search": search or service.retriever.default_search,
            "typed": search,
            "hits": hits,
            "took_ms": found["took_ms"],
        }

    def _highlighter(self, service: Service) -> Highlighter:
        """Mark words as the index's BM25 field takes them apart, where it has one."""
        records = service.retriever.snapshot.manifest.fields
        name = next((name for name in service.retriever.fields if records[name].encoder.kind == "bm25"), None)
        key = (service.name, "" if name is None else records[name].encoder.fingerprint)
        if key not in self._highlighters:
            encoder: Any = None if name is None else service.retriever.encoders([name])[name]
            self._highlighters[key] = Highlighter(None if encoder is None else encoder.surface_terms)
        return self._highlighters[key]

    def _render(self, template: str, asked: Asked, **values: Any) -> str:
        names = [name for name, _ in self._indexes]
        chosen = next((service for name, service in self._indexes if name == asked.index and service.ready), None)
        default, fields = ("", ()) if chosen is None else (chosen.retriever.default_search, chosen.retriever.fields)
        return self._templates.get_template(template).render(
            asked=asked, names=names, default_search=default, fields=fields, shown=SHOWN, bytes_of=bytes_of, **values
        )


async def _found(service: Service, body: Any, held: Share) -> dict[str, Any]:
    written = await service.search(body, held)
    found: dict[str, Any] = json.loads(b"".join(written.parts()))
    return found


def _compare(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Note on the right how each document moved: places up, or None where the left does not show it."""
    ranks: Mapping[str, int] = {hit["doc_id"]: hit["rank"] for hit in left["hits"]}
    for hit in right["hits"]:
        before = ranks.get(hit["doc_id"])
        hit["moved"] = "new" if before is None else before - hit["rank"]


def bytes_of(number: float) -> str:
    """Write a size for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError


@cache
def style_sheet() -> bytes:
    """Return the style sheet."""
    return (HERE / "page.css").read_bytes()
