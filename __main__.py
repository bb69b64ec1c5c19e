"""The command line: one door to the engine.

Data goes to stdout and talk to stderr. Exit status: 0; 1 nothing found or check failed; 2 wrong usage or an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import __version__
from .index.errors import LexmaxError

if TYPE_CHECKING:
    from .index.representations import SparseVectors
    from .retrieval.build import BuildReport
    from .retrieval.corpus import BadRecords, Fields
    from .retrieval.encoders.base import Encoder
    from .retrieval.progress import Bar
    from .retrieval.retriever import Result, Retriever

CORPUS_HELP = (
    "corpora: JSON lines in BEIR's layout (.jsonl), TSV (.tsv), Parquet (.parquet), each of the first two also .gz, a BEIR "
    "folder, - for JSON lines on standard input, or ir_datasets:ID"
)


VECTORS_HELP = (
    'vectors: JSON lines of {"id": ..., "vector": {"term": weight}} (.jsonl, also .gz), Parquet of id, indices, values or of '
    "id and a map vector (.parquet), SciPy's CSR (.npz); or an inverted index (.ciff), whose order of documents is kept"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (LexmaxError, ValueError, TypeError, FileExistsError) as failure:
        _say(f"lexmax: {failure}")
        return 2
    except KeyboardInterrupt:
        _say("lexmax: interrupted" + ("; run the same command again to go on" if options.run is _build else ""))
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _build(options: argparse.Namespace) -> int:
    from .retrieval.build import build_index

    bad = _bad_records(options)
    with _bar("documents", options.corpus) as bar, _compiling():
        report = build_index(
            options.corpus,
            options.out,
            encoder=_encoder(options),
            fields=_fields(options),
            bad=bad,
            progress=bar,
            reorder=options.reorder,
        )
    _tell_report(report, bad, f"built {options.out}")
    return 0


def _add(options: argparse.Namespace) -> int:
    from .retrieval.build import add_to_index

    bad = _bad_records(options)
    encoder = _index_encoder(options)
    with _bar("documents", options.corpus) as bar, _compiling():
        report = add_to_index(
            options.corpus, options.index, encoder, replace=options.replace, fields=_fields(options), bad=bad, progress=bar
        )  # fmt: skip
    _tell_report(report, bad, f"added to {options.index}")
    return 0


def _import(options: argparse.Namespace) -> int:
    from .retrieval.ciff import import_ciff
    from .retrieval.importing import import_vectors

    common = {"documents": options.documents, "name": options.name}
    with _bar("documents", None) as bar, _compiling():
        if any(file.endswith(".ciff") for file in options.file):
            if len(options.file) > 1 or options.vocabulary or options.ids or options.term_numbers:
                raise ValueError("a CIFF file is imported alone, and has its own terms and ids")
            report = import_ciff(options.file[0], options.out, progress=bar, reorder=options.reorder or False, **common)
        else:
            report = import_vectors(
                options.file, options.out, vocabulary=options.vocabulary, ids=options.ids,
                term_numbers=options.term_numbers, progress=bar, reorder=options.reorder, **common,
            )  # fmt: skip
    _tell_report(report, None, f"imported into {options.out}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from .retrieval.ciff import export_ciff

    with _compiling():
        n_docs = export_ciff(options.index, options.file)
    _say(f"exported {n_docs:,} documents to {options.file}")
    return 0


def _delete(options: argparse.Namespace) -> int:
    from .index.collection import Collection

    with _compiling(), Collection.open(options.index) as collection:
        missing = collection.delete(options.doc_id)
        collection.commit()
    _say(f"deleted {len(set(options.doc_id)) - len(missing)} documents from {options.index}")
    for doc_id in missing:
        _say(f"not in the index: {doc_id}")
    return 1 if missing else 0


def _search(options: argparse.Namespace) -> int:
    from .retrieval.retriever import Retriever

    with _compiling(), Retriever.open(options.index, model=options.model, device=options.device) as retriever:
        queries = _query_vectors(options, retriever)
        results = retriever.search_vectors(
            queries, [options.query or ""], options.k, filter=options.filter, explain=options.explain, alpha=options.alpha,
            beta=options.beta,
        )[0]  # fmt: skip
    for rank, result in enumerate(results, 1):
        if options.json:
            print(json.dumps(_as_json(result), ensure_ascii=False))
        else:
            _print_result(rank, result)
    if not results:
        _say("nothing found")
    return 0 if results else 1


def _info(options: argparse.Namespace) -> int:
    from .index.snapshot import Snapshot

    with _compiling():
        facts = Snapshot.open(options.index).info()
    if options.json:
        print(json.dumps(facts, ensure_ascii=False, indent=1))
        return 0
    for name, value in facts.items():
        if name != "segments":
            print(f"{name:28}{json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}")
    for segment in facts["segments"]:
        error = segment["quantisation_error"]
        print(
            f"{segment['name']:28}{segment['n_docs']:,} documents, {segment['n_deleted']:,} deleted, "
            f"{segment['n_postings']:,} postings, quantisation error {error.get('relative', 0):.3%}"
        )
    return 0


def _check(options: argparse.Namespace) -> int:
    from .index.check import check_index

    with _compiling():
        problems = check_index(options.index)
    for problem in problems:
        print(problem)
    _say(f"{options.index}: " + (f"{len(problems)} problems" if problems else "sound"))
    return 1 if problems else 0


def _compact(options: argparse.Namespace) -> int:
    from .index.collection import Collection

    with _compiling(), Collection.open(options.index) as collection:
        before = len(collection.manifest.segments)
        collection.compact(reorder=options.reorder)
        after = collection.commit()
    _say(f"compacted {options.index}: {before} -> {len(after.segments)} segments, {after.n_docs:,} documents")
    return 0


def _serve(options: argparse.Namespace) -> int:
    import logging

    _require("fastapi", "serve", "lexmax serve")
    from .server.app import serve

    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    _say(f"serving {options.index} on http://{options.host}:{options.port} (OpenAPI at /openapi.json); stop with Ctrl-C")
    with _compiling():
        serve(options.index, options.host, options.port, model=options.model, device=options.device)
    return 0


def _eval(options: argparse.Namespace) -> int:
    _require("ranx", "eval", "lexmax eval")
    from .eval.beir import evaluate_index
    from .eval.datasets import load_dataset
    from .eval.measures import DEFAULT_MEASURES
    from .eval.runs import write_run
    from .retrieval.retriever import Retriever

    dataset = load_dataset(options.dataset, split=options.split)
    with _compiling(), Retriever.open(options.index, model=options.model, device=options.device) as retriever:
        with _bar("queries", None, total=len(dataset.queries)) as bar:
            report = evaluate_index(
                retriever, dataset, k=options.k, measures=options.measures or DEFAULT_MEASURES, progress=bar
            )
        if options.run_out:
            write_run(options.run_out, report.run, tag=retriever.fingerprint)
    print(json.dumps(report.to_json(), ensure_ascii=False, indent=1) if options.json else report.to_markdown())
    return 0


def _bench_sparse(options: argparse.Namespace) -> int:
    from .eval.bench import use_one_thread

    use_one_thread()  # before numpy and numba are imported
    from .eval.bench.bm25 import run_bm25_bench
    from .eval.bench.plot import plot_report
    from .eval.bench.sparse import SparseBench, run_sparse_bench

    if options.plot:
        _require("matplotlib", "bench", "--plot")
    if options.bm25:
        report = run_bm25_bench(options.bm25, n_queries=options.queries, ks=options.k, n_passes=options.passes, say=_say)
    else:
        bench = SparseBench(
            n_docs=options.docs, n_queries=options.queries, seed=options.seed, ks=options.k, index=options.index,
            vectors=options.vectors, query_vectors=options.query_vectors, n_passes=options.passes, engines=options.engines,
            reorder=options.reorder,
        )  # fmt: skip
        report = run_sparse_bench(bench, _say)
    if options.plot:
        plot_report(report, options.plot)
    print(json.dumps(report.to_json(), ensure_ascii=False, indent=1) if options.json else report.to_markdown())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lexmax",
        description="Learned-sparse and multi-vector retrieval: build an index, search it, serve it, evaluate it.",
    )
    parser.add_argument("--version", action="version", version=f"lexmax {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    build = command("build", _build, "build an index from corpora", "lexmax build corpus.jsonl --out IDX")
    build.add_argument("corpus", nargs="+", metavar="CORPUS", help=CORPUS_HELP)
    build.add_argument("--out", required=True, metavar="IDX", help="folder of the new index; an unfinished build goes on")
    _add_encoder_options(build)
    _add_corpus_options(build)
    _add_reorder(build)
    imported = command("import", _import, "build an index from ready-made vectors or a CIFF file",
                       "lexmax import vectors.jsonl --out IDX --documents corpus.jsonl")  # fmt: skip
    _add_import_options(imported)
    _add_reorder(imported)
    export = command("export", _export, "write an index as a CIFF file, for other engines", "lexmax export IDX index.ciff")
    _add_index(export)
    export.add_argument("file", metavar="FILE")
    add = command("add", _add, "add documents to an index", "lexmax add IDX more.jsonl --replace")
    _add_index(add)
    add.add_argument("corpus", nargs="+", metavar="CORPUS", help=CORPUS_HELP)
    add.add_argument("--replace", action="store_true", help="replace documents whose doc_id is in the index")
    _add_model_options(add)
    _add_corpus_options(add)
    delete = command("delete", _delete, "delete documents from an index", "lexmax delete IDX doc1 doc2")
    _add_index(delete)
    delete.add_argument("doc_id", nargs="+", metavar="DOC_ID")
    search = command("search", _search, "search an index",
                     "lexmax search IDX 'heart attack' -k 5 --filter 'year >= 2015' --explain")  # fmt: skip
    _add_index(search)
    search.add_argument("query", nargs="?", metavar="QUERY")
    search.add_argument("--vector", metavar="JSON", help="""search with this vector, as in '{"term": 1.2}', not with QUERY""")
    search.add_argument("-k", type=int, default=10, help="number of results (default 10)")
    search.add_argument("--filter", metavar="EXPR", help="only documents whose metadata match, as in: lang in ('en', 'de')")
    search.add_argument("--json", action="store_true", help="one JSON object a line")
    search.add_argument("--explain", action="store_true", help="which terms gave which part of each score")
    search.add_argument("--alpha", type=float, default=1.0, help="below 1: approximate, with looser block bounds")
    search.add_argument("--beta", type=float, default=1.0, help="below 1: approximate, with this share of the query's terms")
    _add_model_options(search)
    info = command("info", _info, "show what an index is made of", "lexmax info IDX --json")
    _add_index(info)
    info.add_argument("--json", action="store_true", help="everything, as JSON")
    _add_index(command("check", _check, "verify every checksum and invariant; exit 1 when damaged", "lexmax check IDX"))
    compact = command("compact", _compact, "merge segments and drop deleted documents", "lexmax compact IDX --reorder")
    _add_index(compact)
    _add_reorder(compact)
    serve = command("serve", _serve, "serve an index over HTTP", "lexmax serve IDX --port 8000")
    _add_index(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port (default 8000)")
    serve.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    _add_model_options(serve)
    evaluate = command(
        "eval",
        _eval,
        "evaluate an index on a dataset with judgments",
        "lexmax eval scifact/ --index IDX --json",
    )
    evaluate.add_argument("dataset", metavar="DATASET", help="a BEIR folder or an ir_datasets id")
    evaluate.add_argument("--index", required=True, metavar="IDX")
    evaluate.add_argument("--split", default="test", help="which judgments of a BEIR folder (default test)")
    evaluate.add_argument("--measures", nargs="+", metavar="MEASURE", help="such as nDCG@10 MRR@10 Recall@100 Recall@1000 MAP")
    evaluate.add_argument("-k", type=int, default=1000, help="documents retrieved for each query (default 1000)")
    evaluate.add_argument("--run-out", metavar="FILE", help="write the ranking as a TREC run file")
    evaluate.add_argument("--json", action="store_true", help="JSON instead of a Markdown table")
    _add_model_options(evaluate)
    about = "compare speed with other engines"
    bench = commands.add_parser("bench", help=about, description=f"{about.capitalize()}.")
    _add_bench_sparse(bench.add_subparsers(title="comparisons", required=True, metavar="COMPARISON"))
    return parser


def _add_bench_sparse(comparisons: Any) -> None:
    sparse = comparisons.add_parser(
        "sparse",
        help="engines for learned-sparse vectors, or BM25",
        description="Time lexmax and every other installed engine on the same impacts and queries, in one thread.",
        epilog="example:\n  lexmax bench sparse --docs 100000 --plot speed.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sparse.set_defaults(run=_bench_sparse)
    source = sparse.add_mutually_exclusive_group()
    source.add_argument("--docs", type=int, default=100_000, help="documents to generate (default 100000)")
    source.add_argument("--index", metavar="IDX", help="take the documents of an index")
    source.add_argument("--vectors", metavar="FILE.npz", help="take document vectors in SciPy's CSR layout")
    source.add_argument("--bm25", metavar="CORPUS", help="compare BM25 on the texts of a corpus with bm25s")
    sparse.add_argument("--queries", type=int, default=100, help="queries of each kind (default 100)")
    sparse.add_argument("--query-vectors", metavar="FILE.jsonl", help="a JSON object a line, vector: {term: weight}; also .gz")
    sparse.add_argument("--k", type=int, nargs="+", default=[10, 100, 1000], help="depths (default 10 100 1000)")
    sparse.add_argument("--passes", type=int, default=3, help="the best of these counts for each query (default 3)")
    sparse.add_argument("--engines", nargs="+", metavar="NAME", help="default: lexmax and all that are installed")
    sparse.add_argument("--reorder", action="store_true", help="order documents by graph bisection first, for all engines")
    sparse.add_argument("--seed", type=int, default=0, help="of what is generated (default 0)")
    sparse.add_argument("--plot", metavar="FILE.png", help="write a picture")
    sparse.add_argument("--json", action="store_true", help="JSON instead of Markdown tables")


def _add_import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="+", metavar="FILE", help=VECTORS_HELP)
    parser.add_argument("--out", required=True, metavar="IDX", help="folder of the new index")
    parser.add_argument("--documents", nargs="+", default=[], metavar="CORPUS", help="corpora with the texts, found by id")
    parser.add_argument("--vocabulary", metavar="FILE", help="the terms, a line for each number, or JSON of term -> number")
    parser.add_argument("--ids", metavar="FILE", help="a line with the id of each row of NPZ files (default: row numbers)")
    parser.add_argument("--term-numbers", action="store_true", help="keys of JSON vectors are term numbers, not strings")
    parser.add_argument("--name", default="vectors", help="what made the vectors, for the fingerprint (default vectors)")


def _add_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", metavar="IDX", help="folder of the index")


def _add_reorder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reorder", action=argparse.BooleanOptionalAction, default=None,
                        help="put similar documents side by side, for faster exact search (default: learned weights of "
                        "50,000 documents or more)")  # fmt: skip


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="DIR_OR_ID", help="where the encoder's model is (default: where it was)")
    parser.add_argument("--device", default="cpu", help="where a model runs: cpu, cuda, ... (default cpu)")


def _add_encoder_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("encoder")
    group.add_argument("--encoder", choices=["bm25", "splade", "inference-free"],
                       help="default: bm25, or what the model's files say")  # fmt: skip
    group.add_argument("--model", metavar="DIR_OR_ID", help="a model folder, or an id in the cache or on the hub")
    group.add_argument("--device", default="cpu", help="where a model runs: cpu, cuda, ... (default cpu)")
    group.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                       help="an encoder's setting: k1=0.9, stemmer=german, document_top_k=150, ...")  # fmt: skip


def _add_corpus_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("corpus")
    group.add_argument("--id-field", metavar="NAME", default="_id", help="key of the document id (default _id)")
    group.add_argument(
        "--title-field",
        metavar="NAME",
        action="append",
        help="key of the title; repeat to join (default title)",
    )
    group.add_argument("--text-field", metavar="NAME", action="append", help="key of the text; repeat to join (default text)")
    group.add_argument(
        "--metadata-field",
        metavar="NAME",
        action="append",
        help="key to keep as metadata (default: all scalars)",
    )
    group.add_argument("--skip-bad", action="store_true", help="leave out malformed and duplicate records, and list them")


def _encoder(options: argparse.Namespace) -> Encoder:
    from .retrieval.encoders.registry import load_encoder

    settings = dict(_setting(text) for text in options.set)
    if options.model or options.encoder not in (None, "bm25"):
        _require("torch", "encode", "an encoder with a model")
    return load_encoder(options.encoder, model=options.model, device=options.device, **settings)


def _query_vectors(options: argparse.Namespace, retriever: Retriever) -> SparseVectors:
    from .retrieval.vectors import to_sparse_vectors

    if options.vector is None:
        if options.query is None:
            raise ValueError("search takes a QUERY, or --vector")
        return retriever.encode([options.query])
    try:
        pairs = json.loads(options.vector).items()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"--vector takes a JSON object of term -> weight: {error}") from error
    if retriever.info()["n_terms"]:
        return to_sparse_vectors([dict(pairs)])
    try:  # without a vocabulary the keys are numbers
        return to_sparse_vectors([{int(term): weight for term, weight in pairs}])
    except ValueError as error:
        raise ValueError(f"the index has no vocabulary, --vector takes term numbers: {error}") from error


def _index_encoder(options: argparse.Namespace) -> Encoder:
    from .index import manifest
    from .retrieval.encoders.registry import encoder_of

    record = manifest.read(_path(options.index)).encoder
    overrides = {} if record.kind == "bm25" else {"device": options.device}
    return encoder_of(record, model=options.model, **overrides)


def _setting(text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found:
        raise ValueError(f"--set takes NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _fields(options: argparse.Namespace) -> Fields:
    from .retrieval.corpus import Fields

    return Fields(
        id=options.id_field,
        title=tuple(options.title_field or ["title"]),
        text=tuple(options.text_field or ["text"]),
        metadata=tuple(options.metadata_field) if options.metadata_field else None,
    )


def _bad_records(options: argparse.Namespace) -> BadRecords | None:
    from .retrieval.corpus import BadRecords

    return BadRecords() if options.skip_bad else None


def _tell_report(report: BuildReport, bad: BadRecords | None, done: str) -> None:
    rate = report.n_added / max(report.elapsed_s, 1e-9)
    resumed = f", {report.n_resumed:,} from an earlier run" if report.n_resumed else ""
    replaced = f", {report.n_replaced:,} replaced" if report.n_replaced else ""
    merged = f", and {report.compact_s:.1f} s to finish the index" if report.compact_s >= 1 else ""
    _say(f"{done}: {report.n_added:,} documents{replaced}{resumed} in {report.elapsed_s:.1f} s ({rate:,.0f}/s){merged}")
    if bad and bad.n_records:
        _say(f"skipped {bad.n_records:,} bad records" + (", the first:" if bad.n_records > len(bad.examples) else ":"))
        for record in bad.examples:
            _say(f"  {record.path}, line {record.line}: {record.reason}")


def _print_result(rank: int, result: Result) -> None:
    title = f"  {result.title}" if result.title else ""
    print(f"{rank:3}. {result.score:9.4f}  {result.doc_id}{title}")
    text = " ".join(result.text.split())
    if text:
        print(f"     {text[:200]}{'...' if len(text) > 200 else ''}")
    if result.explanation:
        for match in result.explanation.terms:
            marks = ["query"] * match.query_expanded + ["document"] * match.document_expanded
            expanded = f"  (expanded in {' and '.join(marks)})" if marks else ""
            print(f"     {match.score:9.4f}  = {match.query_weight:.4f} x {match.document_weight:.4f}  {match.term}{expanded}")


def _as_json(result: Result) -> dict[str, Any]:
    from dataclasses import asdict

    record = asdict(result)
    if result.explanation is None:
        del record["explanation"]
    return record


@contextmanager
def _bar(unit: str, sources: Sequence[str] | None, *, total: int | None = None) -> Iterator[Bar | None]:
    """A progress bar when stderr is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from .retrieval.progress import Bar, count_records

    bar = Bar(sys.stderr, unit, total if sources is None else count_records(sources))
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def _compiling() -> Iterator[None]:
    """Tell the user when kernels are compiled, which happens once on a machine and takes some seconds."""
    from numba.core import event

    class Teller(event.Listener):
        told = False

        def on_start(self, _: object) -> None:
            if not self.told:
                self.told = True
                _say("lexmax: compiling kernels for this machine, once; this takes some seconds")

        def on_end(self, _: object) -> None:
            pass

    teller = Teller()
    event.register("numba:compile", teller)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        event.unregister("numba:compile", teller)  # type: ignore[no-untyped-call]


def _require(package: str, extra: str, what: str) -> None:
    from importlib.util import find_spec

    from .index.errors import MissingDependencyError

    if find_spec(package) is None:
        raise MissingDependencyError(package, extra, what)


def _path(text: str) -> Any:
    from pathlib import Path

    return Path(text)


def _say(message: str) -> None:
    print(message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
