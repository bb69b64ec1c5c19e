"""Explanations and results as HTML: for notebooks, and for the server's page, whose style sheet knows the classes.

Weights and similarities are ``<meter>`` elements, which browsers draw and screen readers read, so nothing needs a script or a
style of its own. Everything that came from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results import Result
    from .searchers.explanation import Explanation, FieldExplanation, SentenceMatch, TermMatch, TokenMatch

MAX_TERMS = 20
"""Largest terms that are shown; the rest is summed up."""
MAX_TEXT_CHARS = 300


def explanation_html(explanation: Explanation, content: str = "") -> str:
    """Return the stages of an explanation, the last one open.

    Parameters
    ----------
    explanation : Explanation
    content : str
        The document's title and text joined by a space, in which aligned tokens and sentences are marked; empty: unknown.
    """
    parts = []
    for number, stage in enumerate(explanation.stages, 1):
        rank = "not returned" if stage.rank is None else f"rank {stage.rank}"
        opened = " open" if number == len(explanation.stages) else ""
        scored = "" if stage.n_scored is None else f", {stage.n_scored} documents scored"
        head = f"Stage {number}: <code>{escape(stage.stage)}</code>, {rank}, score {stage.score:.4g}{scored}"
        fields = "".join(_field(each, content) for each in stage.fields)
        parts.append(f'<details class="stage"{opened}><summary>{head}</summary>{fields}</details>')
    return f'<div class="explanation">{"".join(parts) or "<p>There is nothing to explain.</p>"}</div>'


def results_html(results: Sequence[Result]) -> str:
    """Return a table of results, each with its explanation where it has one."""
    rows = []
    for rank, each in enumerate(results, 1):
        text = each.text if len(each.text) <= MAX_TEXT_CHARS else each.text[:MAX_TEXT_CHARS] + " ..."
        why = "" if each.explanation is None else explanation_html(each.explanation, _content(each))
        title = f"<strong>{escape(each.title)}</strong><br>" if each.title else ""
        body = f"<td>{title}{escape(text)}{why}</td>"
        rows.append(f"<tr><td>{rank}</td><td>{escape(each.doc_id)}</td><td>{each.score:.4g}</td>{body}</tr>")
    head = "<tr><th>rank</th><th>doc_id</th><th>score</th><th>document</th></tr>"
    return f'<table class="results"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'


def marked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return a text, escaped, with spans in ``<mark>``; those that overlap are joined."""
    parts, at = [], 0
    for first, last in sorted(spans):
        first, last = max(first, at), min(last, len(text))
        if last > first:
            parts += [escape(text[at:first]), "<mark>", escape(text[first:last]), "</mark>"]
            at = last
    return "".join([*parts, escape(text[at:])])


def _content(result: Result) -> str:
    return f"{result.title} {result.text}" if result.title and result.text else result.title or result.text


def _field(each: FieldExplanation, content: str) -> str:
    of = "" if each.contribution == each.score else f", {each.contribution:.4g} of the stage's score"
    measure = f"<p>{escape(each.measure)}</p>" if each.measure else ""
    vector = "" if each.vector is None else f"<p>The document's vector {each.vector} decided.</p>"
    body = _terms(each.terms) + _tokens(each.tokens, content) + _sentences(each.sentences, content)
    head = f"<h3>{escape(each.field)}: score {each.score:.4g}{of}</h3>"
    return f'<section class="field">{head}{measure}{vector}{body}</section>'


def _meter(value: float, largest: float, label: str) -> str:
    """A bar; what is below 0 is drawn empty, and told as a number beside."""
    top = largest if largest > 0 else 1.0
    shown = min(max(value, 0.0), top)
    return f'<meter min="0" max="{top:.6g}" value="{shown:.6g}" title="{escape(label, quote=True)}">{value:.4g}</meter>'


def _table(caption: str, heads: Sequence[str], rows: Iterable[str]) -> str:
    columns = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return f"<table><caption>{caption}</caption><thead><tr>{columns}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _terms(terms: Sequence[TermMatch]) -> str:
    if not terms:
        return ""
    largest = max(each.score for each in terms)
    rows = []
    for each in terms[:MAX_TERMS]:
        expanded = [side for side, is_new in (("query", each.query_expanded), ("document", each.document_expanded)) if is_new]
        added = f'<em class="expanded">added to the {" and the ".join(expanded)}</em>' if expanded else "in both texts"
        product = f"{each.query_weight:.3g} x {each.document_weight:.3g}"
        rows.append(
            f'<tr><th scope="row">{escape(each.term)}</th><td>{_meter(each.score, largest, each.term)}</td>'
            f"<td>{each.score:.4g}</td><td>{product}</td><td>{added}</td></tr>"
        )
    rest = sum(each.score for each in terms[MAX_TERMS:])
    more = f"<p>and {len(terms) - MAX_TERMS} more terms with {rest:.4g} together</p>" if len(terms) > MAX_TERMS else ""
    return _table("Terms that query and document share", ("term", "", "score", "query x document", "where from"), rows) + more


def _tokens(tokens: Sequence[TokenMatch], content: str) -> str:
    if not tokens:
        return ""
    largest = max(1.0, max(each.score for each in tokens))
    rows = [
        f'<tr><th scope="row">{escape(each.query_token) or "?"}</th><td>{_meter(each.score, largest, each.query_token)}</td>'
        f"<td>{each.score:.3f}</td><td>{escape(each.document_token) or '?'}</td>"
        f"<td>{_place(each.document_span, content)}</td></tr>"
        for each in tokens
    ]
    table = _table(
        "MaxSim: each query token and the document's most similar one",
        ("query token", "", "similarity", "document token", "where"), rows,
    )  # fmt: skip
    spans = [each.document_span for each in tokens]
    return table + (f'<p class="aligned">{marked(content, spans)}</p>' if content else "")


def _place(span: tuple[int, int], content: str, around: int = 25) -> str:
    """A piece of the document around a token."""
    first, last = span
    if not content or last <= first:
        return ""
    before, after = max(0, first - around), min(len(content), last + around)
    piece = marked(content[before:after], [(first - before, last - before)])
    return ("..." if before else "") + piece + ("..." if after < len(content) else "")


def _sentences(sentences: Sequence[SentenceMatch], content: str) -> str:
    if not sentences:
        return ""
    largest = max(1.0, max(each.score for each in sentences))
    rows = []
    for each in sentences:
        first, last = each.span
        text = escape(content[first:last]) if content else f"characters {first} to {last}"
        rows.append(f"<tr><td>{_meter(each.score, largest, 'similarity')}</td><td>{each.score:.4g}</td><td>{text}</td></tr>")
    return _table("Sentences, each encoded alone", ("", "similarity", "sentence"), rows)
