"""The commands ``search`` and ``calibrate``."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from ..terminal import compiling, progress_bar, say, write
from .options import Command, add_effort_options, add_index, add_model_options, index_encoder, open_retriever

if TYPE_CHECKING:
    from ..encoders.base import Vectors
    from ..retriever import Result, Retriever


def add_searching_commands(command: Command) -> None:
    """Add the two commands to the command line."""
    search = command("search", _search, "search an index",
                     "lexmax search IDX 'heart attack' -k 5 --filter 'year >= 2015' --explain")  # fmt: skip
    add_index(search)
    search.add_argument("query", nargs="?", metavar="QUERY")
    search.add_argument("--vector", metavar="JSON", help="""search with this vector, as in '{"term": 1.2}', not with QUERY""")
    search.add_argument("-k", type=int, default=10, help="number of results (default 10)")
    search.add_argument("--filter", metavar="EXPR", help="only documents whose metadata match, as in: lang in ('en', 'de')")
    search.add_argument("--json", action="store_true", help="one JSON object a line")
    search.add_argument("--explain", action="store_true", help="which terms or tokens gave which part of each score")
    search.add_argument("--alpha", type=float, default=1.0, help="below 1: approximate, bounds count at this share")
    search.add_argument("--beta", type=float, default=1.0, help="below 1: approximate, with this share of the query's terms")
    search.add_argument("--mu", type=float, default=1.0, help="below alpha: approximate, skips superblocks of 128 documents")
    add_effort_options(search)
    add_model_options(search)
    calibrate = command("calibrate", _calibrate, "measure which effort reaches which recall on an index of token vectors",
                        "lexmax calibrate IDX --queries queries.jsonl")  # fmt: skip
    add_index(calibrate)
    calibrate.add_argument("--queries", metavar="FILE", help="real queries, JSON lines with text (default: documents' tokens)")
    calibrate.add_argument("--json", action="store_true", help="JSON instead of a table")
    add_model_options(calibrate)


def _search(options: argparse.Namespace) -> int:
    with compiling(), open_retriever(options) as retriever:
        queries = _query_vectors(options, retriever)
        results = retriever.search_vectors(
            queries, [options.query or ""], options.k, filter=options.filter, explain=options.explain, alpha=options.alpha,
            beta=options.beta, mu=options.mu,
        )[0]  # fmt: skip
    for rank, result in enumerate(results, 1):
        if options.json:
            write(json.dumps(_as_json(result), ensure_ascii=False))
        else:
            _write_result(rank, result)
    if not results:
        say("nothing found")
    return 0 if results else 1


def _query_vectors(options: argparse.Namespace, retriever: Retriever) -> Vectors:
    from ..exchange.vectors import to_sparse_vectors

    if options.vector is None:
        if options.query is None:
            raise ValueError("search takes a QUERY, or --vector")
        return retriever.encode([options.query])
    n_terms = retriever.info().get("n_terms")
    if n_terms is None:
        raise ValueError(f"{options.index} holds token vectors: search it with a QUERY")
    try:
        pairs = json.loads(options.vector).items()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"--vector takes a JSON object of term -> weight: {error}") from error
    if n_terms:
        return to_sparse_vectors([dict(pairs)])
    try:  # without a vocabulary the keys are numbers
        return to_sparse_vectors([{int(term): weight for term, weight in pairs}])
    except ValueError as error:
        raise ValueError(f"the index has no vocabulary, --vector takes term numbers: {error}") from error


def _as_json(result: Result) -> dict[str, Any]:
    from dataclasses import asdict

    record = asdict(result)
    if result.explanation is None:
        del record["explanation"]
    return record


def _write_result(rank: int, result: Result) -> None:
    title = f"  {result.title}" if result.title else ""
    write(f"{rank:3}. {result.score:9.4f}  {result.doc_id}{title}")
    text = " ".join(result.text.split())
    if text:
        write(f"     {text[:200]}{'...' if len(text) > 200 else ''}")
    if result.explanation:
        for token in result.explanation.tokens:
            write(f"     {token.score:9.4f}  {token.query_token} ~ {token.document_token}")
        for match in result.explanation.terms:
            marks = ["query"] * match.query_expanded + ["document"] * match.document_expanded
            expanded = f"  (expanded in {' and '.join(marks)})" if marks else ""
            write(f"     {match.score:9.4f}  = {match.query_weight:.4f} x {match.document_weight:.4f}  {match.term}{expanded}")


def _calibrate(options: argparse.Namespace) -> int:
    from ..corpora.reading import read_corpus
    from ..encoders.base import makes_tokens
    from ..searchers.calibration import LADDER, calibrate

    queries = None
    if options.queries:
        encoder = index_encoder(options)
        if not makes_tokens(encoder):
            raise ValueError(f"{options.index}: holds sparse vectors, whose search is exact: nothing to calibrate")
        queries = encoder.encode_queries([query.text for query in read_corpus([options.queries])])
    with progress_bar("settings", total=len(LADDER)) as bar, compiling():
        table = calibrate(options.index, queries, progress=bar)
    if options.json:
        write(json.dumps(table, indent=1))
        return 0
    write(f"{'recall@10':>9} {'cpu ms':>8}  options")
    for row in table:
        write(f"{row['recall@10']:9.4f} {row['cpu_ms']:8.2f}  {', '.join(f'{n}={v}' for n, v in row['options'].items())}")
    return 0
