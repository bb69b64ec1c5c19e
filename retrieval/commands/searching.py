"""The commands ``search``, ``get``, ``list`` and ``calibrate``."""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..terminal import audited, compiling, progress_bar, say, split_setting, write
from .options import (
    Command,
    add_index,
    add_model_options,
    add_search_options,
    is_short,
    models_of,
    once,
    open_retriever,
    tell_models,
)

if TYPE_CHECKING:
    from ..hits import ReadCounts
    from ..results import Result, Results
    from ..retriever import Retriever

QUERIES_AT_ONCE = 256
LISTED_AT_ONCE = 1024


def add_searching_commands(command: Command) -> None:
    """Add the commands to the command line."""
    search = command("search", _search, "search an index",
                     "lexmax search IDX 'heart attack' -k 5 --filter 'year >= 2015' --explain")  # fmt: skip
    add_index(search)
    search.add_argument("query", nargs="?", metavar="QUERY")
    search.add_argument("--vector", metavar="JSON", help="""search one field with this vector: '{"term": 1.2}', '[0.1, 2]'""")
    search.add_argument("--queries", metavar="FILE",
                        help="many queries: JSON lines or CSV of id and text, TSV, or one text per line")  # fmt: skip
    search.add_argument("--run-out", metavar="FILE", help="with --queries: write the rankings as a TREC run file")
    search.add_argument("-k", type=int, default=10, help="number of results (default 10)")
    search.add_argument(
        "--filter", metavar="EXPR", help="only documents whose metadata match: lang in ('en', 'de'), or a tree as JSON"
    )
    search.add_argument("--boost", action="append", default=[], metavar="TERM=WEIGHT",
                        help="a term of a sparse field, such as a latent by number or label: WEIGHT times as heavy as the "
                        "heaviest term of the query; 0 leaves it out; repeatable")  # fmt: skip
    search.add_argument("--feedback", metavar="LOG", help="move queries of dense, fde and sparse fields towards documents "
                        "that were clicked for the same query, or for those nearest to it")  # fmt: skip
    search.add_argument("--rocchio", action="append", default=[], metavar="NAME=VALUE",
                        help="with --feedback: how far clicks move a query, such as eta=0.5; repeatable")  # fmt: skip
    search.add_argument("--json", action="store_true", help="one JSON object per line")
    search.add_argument("--explain", action="store_true", help="which stages, fields, terms and tokens gave each score")
    search.add_argument(
        "--timings", action="store_true", help="milliseconds of each stage and what it read from disk, on stderr"
    )
    add_search_options(search)
    add_model_options(search)
    get = command("get", _get, "print documents by id", "lexmax get IDX doc1 doc2")
    add_index(get)
    get.add_argument("doc_id", nargs="+", metavar="ID")
    listing = command("list", _list, "print the ids of all documents, in the order of the index", "lexmax list IDX")
    add_index(listing)
    listing.add_argument("--filter", metavar="EXPR", help="only documents whose metadata match")
    listing.add_argument("--json", action="store_true", help="whole documents, one JSON object per line")
    calibrate = command("calibrate", _calibrate, "measure which effort reaches which recall on a field of token vectors",
                        "lexmax calibrate IDX --queries queries.jsonl")  # fmt: skip
    add_index(calibrate)
    calibrate.add_argument("--field", metavar="NAME", help="which field, when there are several of token vectors")
    calibrate.add_argument("--queries", metavar="FILE", help="real queries, a hundred or more (default: passages of documents)")
    calibrate.add_argument("-k", type=int, default=10, help="number of results that recall is measured of (default 10)")
    calibrate.add_argument("--json", action="store_true", help="JSON instead of a table")
    add_model_options(calibrate)
    audit = command("audit", _audit, "measure how much of the exact answer a field's search finds",
                    "lexmax audit IDX dense --queries queries.jsonl")  # fmt: skip
    add_index(audit)
    audit.add_argument("field", metavar="FIELD", help="which field")
    audit.add_argument("--queries", metavar="FILE", help="real queries, a hundred or more (default: passages of documents)")
    audit.add_argument("-k", type=int, default=10, help="number of results that recall is measured of (default 10)")
    audit.add_argument("--option", action="append", default=[], metavar="NAME=VALUE",
                       help="an option of the search, such as n_probe=32 (default: the defaults); repeatable")  # fmt: skip
    audit.add_argument("--json", action="store_true", help="JSON instead of text")
    add_model_options(audit)


def _search(options: argparse.Namespace) -> int:
    given = [name for name in ("query", "vector", "queries") if getattr(options, name) is not None]
    if len(given) != 1:
        raise ValueError("search takes a QUERY, --vector or --queries, one of them")
    if options.query is not None and not options.query.strip():
        raise ValueError("the QUERY is empty")
    if options.run_out and not options.queries:
        raise ValueError("--run-out goes with --queries")
    feedback = _feedback(options)
    with _quickest(options), compiling(), open_retriever(options, options.feedback) as retriever:
        if options.queries:
            return _search_many(options, retriever)
        common: dict[str, Any] = {name: getattr(options, name) for name in ("filter", "explain", "timings")}
        common |= {"boost": _boost(options), "feedback": feedback}
        if options.vector is None:
            results = retriever.search(options.query, options.k, **common)
        else:
            results = retriever.search_vectors(_vector(options, retriever), k=options.k, **common)[0]
    _write_results(options, results)
    if not results:
        say("nothing found")
    return 0 if results else 1


def _quickest(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Interpret kernels where that is faster than to import what compiles them, as it is for a short search."""
    if not is_short(options):
        return nullcontext()
    from ...index.kernels import interpreted

    return interpreted()


def _search_many(options: argparse.Namespace, retriever: Retriever) -> int:
    from ..corpora.queries import read_queries
    from ..runs import write_run

    if options.explain or options.timings:
        raise ValueError("--explain and --timings are for single queries, not for --queries")
    queries, boost, feedback = read_queries(options.queries, notice=say), _boost(options), _feedback(options)
    run = {}
    with progress_bar("queries", total=len(queries)) as bar:
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            batch = queries[first : first + QUERIES_AT_ONCE]
            texts = [query.text for query in batch]
            rankings = retriever.rank(texts, options.k, filter=options.filter, boost=boost, feedback=feedback)
            for query, ranking in zip(batch, rankings, strict=True):
                run[query.query_id] = ranking
            if bar:
                bar(len(run))
    if options.run_out:
        write_run(options.run_out, run, tag=retriever.fingerprint)
        say(f"wrote {options.run_out}: {len(run):,} queries, {sum(map(len, run.values())):,} documents")
    else:
        for query_id, ranking in run.items():
            results = [{"doc_id": doc_id, "score": score} for doc_id, score in ranking]
            write(json.dumps({"query_id": query_id, "results": results}, ensure_ascii=False))
    return 0 if any(run.values()) else 1


def _feedback(options: argparse.Namespace) -> dict[str, Any] | None:
    """Read ``--rocchio``; None without a log."""
    if options.rocchio and not options.feedback:
        raise ValueError("--rocchio goes with --feedback LOG")
    pairs = [split_setting(text, "--rocchio") for text in options.rocchio]
    return once(pairs, "--rocchio") if options.feedback else None


def _boost(options: argparse.Namespace) -> dict[str, float]:
    """Read ``--boost``; a term may hold spaces and equals signs."""
    found: dict[str, float] = {}
    for text in options.boost:
        term, equals, weight = text.rpartition("=")
        try:
            number = float(weight)
        except ValueError:
            equals = ""
        if not equals or not term:
            raise ValueError(f"--boost takes TERM=WEIGHT, as in latent-12=2, not {text!r}")
        if term in found:
            raise ValueError(f"--boost gives {term} twice")
        found[term] = number
    return found


def _vector(options: argparse.Namespace, retriever: Retriever) -> Any:
    """Read ``--vector`` for the one field of the search."""
    from ...index.dense.field import DenseField
    from ...index.sparse.field import SparseField
    from ..exchange.vectors import to_sparse_vectors

    names = retriever.search_fields()
    field = retriever.snapshot.field(names[0])
    if len(names) == 1 and isinstance(field, DenseField):
        return _dense_vector(options.vector)
    try:
        pairs = json.loads(options.vector).items()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"--vector takes a JSON object of term -> weight: {error}") from error
    if len(names) != 1 or not isinstance(field, SparseField):
        raise ValueError(
            f"--vector searches one sparse or dense field: name it with --search; this search has {', '.join(names)}"
        )
    if len(field.vocabulary):
        return to_sparse_vectors([dict(pairs)])
    try:  # without a vocabulary the keys are numbers
        return to_sparse_vectors([{int(term): weight for term, weight in pairs}])
    except ValueError as error:
        raise ValueError(f"the field has no vocabulary, --vector takes term numbers: {error}") from error


def _dense_vector(text: str) -> Any:
    """Read the numbers of a dense vector."""
    import numpy as np

    try:
        numbers = json.loads(text)
        if not isinstance(numbers, list) or not all(type(each) in (int, float) for each in numbers):
            raise ValueError("it is something else")
        return np.array(numbers, np.float32)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"--vector takes, for a dense field, a JSON list of numbers: {error}") from error


def _write_results(options: argparse.Namespace, results: Results) -> None:
    for rank, result in enumerate(results, 1):
        if options.json:
            write(json.dumps(_as_json(result), ensure_ascii=False))
        else:
            _write_result(rank, result)
    if options.timings and results.timings_ms:
        say("; ".join(f"{stage} {ms:.2f} ms{_read(results.reads.get(stage))}" for stage, ms in results.timings_ms.items()))


def _read(reads: ReadCounts | None) -> str:
    if reads is None:
        return ""
    guessed = f", {reads.n_guessed:,} of them early, of which {reads.n_hits:,} were wanted" if reads.n_guessed else ""
    return f" ({reads.n_records:,} documents in {reads.n_reads:,} reads, {reads.n_bytes:,} bytes{guessed})"


def _as_json(result: Result) -> dict[str, Any]:
    from dataclasses import asdict

    record = asdict(result)
    if result.explanation is None:
        del record["explanation"]
    if not result.unreadable:
        del record["unreadable"]
    return record


def _write_result(rank: int, result: Result) -> None:
    from ...index.documents import content_of

    title = f"  {result.title}" if result.title else ""
    unread = "  (its tokens cannot be read: the score is of the stage before)" if result.unreadable else ""
    write(f"{rank:3}. {result.score:9.4f}  {result.doc_id}{title}{unread}")
    text = " ".join(result.text.split())
    if text:
        write(f"     {text[:200]}{'...' if len(text) > 200 else ''}")
    for stage in result.explanation.stages if result.explanation else ():
        place = f"rank {stage.rank}" if stage.rank else "not among its best"
        looked = "" if stage.n_scored is None else f", of {stage.n_scored:,} documents scored"
        write(f"     {stage.score:9.4f}  {stage.stage}: {place}{looked}")
        for field in stage.fields:
            measure = f", {field.measure}" if field.measure else ""
            which = "" if field.vector is None else f", of vector {field.vector}"
            write(f"       {field.contribution:9.4f}  {field.field}, score {field.score:.4f}{which}{measure}")
            for token in field.tokens:
                write(f"         {token.score:9.4f}  {token.query_token} ~ {token.document_token}")
            for sentence in field.sentences[:3]:
                first, last = sentence.span
                write(f"         {sentence.score:9.4f}  {content_of(result.title, result.text)[first:last]}")
            for match in field.terms:
                marks = ["query"] * match.query_expanded + ["document"] * match.document_expanded
                expanded = f"  (expanded in {' and '.join(marks)})" if marks else ""
                product = f"{match.query_weight:.4f} x {match.document_weight:.4f}"
                write(f"         {match.score:9.4f}  = {product}  {match.term}{expanded}")


def _get(options: argparse.Namespace) -> int:
    from ..shards.snapshot import open_snapshot

    snapshot = open_snapshot(options.index)
    doc_nums = snapshot.find(options.doc_id).tolist()
    for doc_id, doc_num in zip(options.doc_id, doc_nums, strict=True):
        if doc_num < 0:
            say(f"not in the index: {doc_id}")
        else:
            write(_document_json(snapshot.get_many([doc_num])[0]))
    return 1 if min(doc_nums) < 0 else 0


def _list(options: argparse.Namespace) -> int:
    import numpy as np

    from ..shards.snapshot import open_parts

    n_listed = 0
    parts = [zip(each.segments, each.masks(options.filter), strict=True) for each in open_parts(options.index)]
    for segment, mask in chain.from_iterable(parts):
        positions = range(segment.n_docs) if mask is None else np.flatnonzero(mask).tolist()
        for first in range(0, len(positions), LISTED_AT_ONCE):
            wanted = positions[first : first + LISTED_AT_ONCE]
            if options.json:
                for document in segment.documents.get_many(wanted):
                    write(_document_json(document))
            else:
                for doc_id in segment.documents.doc_ids.take(wanted):
                    write(doc_id)
        n_listed += len(positions)
    if not n_listed:
        say("nothing found")
    return 0 if n_listed else 1


def _document_json(document: Any) -> str:
    facts = {"doc_id": document.doc_id, "title": document.title, "text": document.text, "metadata": dict(document.metadata)}
    return json.dumps(facts, ensure_ascii=False)


def _audit(options: argparse.Namespace) -> int:
    from ...index.snapshot import Snapshot
    from ..corpora.queries import read_queries
    from ..searchers.audit import audit
    from ..searchers.sampling import N_SAMPLED

    field = Snapshot.open(options.index).field(options.field)
    queries = [query.text for query in read_queries(options.queries, notice=say)] if options.queries else None
    models = models_of(options)
    tell_models({field.name: field.record}, models)
    chosen = dict(split_setting(each, "--option") for each in options.option)
    with progress_bar("queries", total=len(queries or range(N_SAMPLED))) as bar, compiling():
        record = audit(
            options.index, field.name, queries, k=options.k, options=chosen, model=models.get(field.name),
            device=options.device, progress=bar, notice=say,
        )  # fmt: skip
    write(json.dumps(record.to_json(), indent=1) if options.json else audited({**record.to_json(), "outdated": False}))
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from ...index.snapshot import Snapshot
    from ..corpora.queries import read_queries
    from ..searchers.calibration import LADDER, calibrate, token_field

    field = token_field(Snapshot.open(options.index), options.field)
    queries = [query.text for query in read_queries(options.queries, notice=say)] if options.queries else None
    models = models_of(options)
    tell_models({field.name: field.record}, models)
    with progress_bar("settings", total=len(LADDER)) as bar, compiling():
        record = calibrate(
            options.index, field.name, queries, k=options.k, model=models.get(field.name), device=options.device,
            progress=bar, notice=say,
        )  # fmt: skip
    if options.json:
        write(json.dumps(record.to_json(), indent=1))
        return 0
    write(f"{f'recall@{record.k}':>10} {'+-':>7} {'cpu ms':>8}  options")
    for row in record.efforts:
        settings = ", ".join(f"{name}={value}" for name, value in row.options.items())
        write(f"{row.recall:10.4f} {row.error:7.4f} {row.cpu_ms:8.2f}  {settings}")
    say(f"{record.n_queries} queries ({record.queries}) against {record.oracle}, over {record.n_docs:,} documents")
    return 0
