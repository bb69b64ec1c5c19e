"""What a search body must meet beyond its schema: limits on products, and what the index must know.

A body that fails here is refused with 422 and a reason before anything is encoded.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...index.errors import FilterError, LexmaxError
from ...retrieval.feedback.clicks import Impression
from ...retrieval.pipelines.expression import ExpressionError, Search, parse
from ...retrieval.pipelines.pipeline import depth_of
from ..errors import RefusedError, unknown
from ..limits import Limits
from ..schemas.feedback import FeedbackBody
from ..schemas.searches import Search as Body

if TYPE_CHECKING:
    from ...retrieval.retriever import Retriever


def check_size(body: Body, texts: Sequence[str], limits: Limits) -> None:
    """Refuse too many results or characters for one request."""
    each = body.k + body.offset
    if each > limits.max_k:
        raise RefusedError(422, "invalid_request", f"k + offset is {each}: at most {limits.max_k}")
    asked = f"{len(texts)} queries with k = {body.k}" + (f" and offset = {body.offset}" if body.offset else "")
    if len(texts) * each > limits.max_hits:
        message = f"{asked} ask for {len(texts) * each} results: at most {limits.max_hits} results per request"
        raise RefusedError(422, "invalid_request", message)
    if body.explain and len(texts) * each > limits.max_explained:
        message = f"{asked} ask for {len(texts) * each} explanations: at most {limits.max_explained} per request; lower k"
        raise RefusedError(422, "invalid_request", message)
    n_chars = sum(map(len, texts))
    if n_chars > limits.max_total_chars:
        message = f"queries of {n_chars} characters: at most {limits.max_total_chars} characters per request"
        raise RefusedError(422, "invalid_request", message)


def check_search(retriever: "Retriever", search: str, body: Body, n_queries: int, limits: Limits) -> tuple[str, ...]:
    """Return the fields that a search names; refuse a malformed or too costly one, unknown fields and unknown options."""
    try:
        parsed = parse(search)
    except ExpressionError as error:
        raise RefusedError(422, "invalid_search", str(error)) from None
    known = retriever.fields
    for name in parsed.fields:
        if name not in known:
            raise RefusedError(422, "invalid_search", unknown("field", name, known))
    n_scored = n_queries * _work(parsed, body.k + body.offset)[1]
    if n_scored > limits.max_scored:
        message = f"the stages of the search score {n_scored} documents: at most {limits.max_scored} per request"
        raise RefusedError(422, "invalid_search", f"{message}; lower its depths or k, or send fewer queries")
    try:
        retriever.search_fields(search, None, body.boost, body.feedback)
    except (ValueError, TypeError) as error:
        raise RefusedError(422, "invalid_options", str(error)) from None
    try:
        return retriever.search_fields(search, body.options)
    except (ValueError, TypeError, OverflowError) as error:
        raise RefusedError(422, "invalid_options", f"options: {error}") from None


def impressions_of(body: FeedbackBody) -> list[Impression]:
    """Return the impressions of a body; refuse one that cannot be."""
    found = []
    for number, each in enumerate(body.impressions):
        try:
            found.append(Impression(**each.model_dump()))
        except ValueError as error:
            raise RefusedError(422, "invalid_request", f"impressions.{number}: {error}") from None
    return found


def check_filter(retriever: "Retriever", filter: str | Mapping[str, Any] | None) -> None:
    """Refuse a filter that the index cannot answer. The snapshot keeps the masks for the search that follows."""
    try:
        retriever.snapshot.masks(filter)
    except FilterError as error:
        raise RefusedError(422, "invalid_filter", str(error)) from None
    except (LexmaxError, OSError, MemoryError):
        raise  # a damaged index, not a bad filter
    except Exception as error:
        # Other errors (UnicodeError, Arrow's) have messages that were not written for a client.
        raise RefusedError(422, "invalid_filter", "the index cannot answer this filter", fault=error) from None


def _work(search: Search, k: int) -> tuple[int, int]:
    """Documents per query that a search finds at most, and those that its fields find or score over all stages."""
    n_found = n_scored = 0
    for term in search.first.terms:
        depth = depth_of(term, k)
        inner, scored = _work(term.source, k) if isinstance(term.source, Search) else (depth, depth)
        n_found += min(inner, depth)
        n_scored += scored
    for reranker in search.rerankers:
        n_found = min(n_found, reranker.depth or n_found)
        n_scored += n_found * len(reranker.fused.terms)
    return n_found, n_scored
