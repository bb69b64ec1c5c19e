"""The commands that fill an index: ``build``, ``add``, ``delete``, ``field``, ``import`` and ``export``."""

from __future__ import annotations

import argparse
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..models import DEFAULT_ENCODERS
from ..terminal import compiling, progress_bar, require_models, say, settings_of
from .options import (
    EXPRESSION_HELP,
    SPEC_HELP,
    Command,
    add_corpus_options,
    add_device,
    add_index,
    add_model_options,
    add_reorder,
    bad_records,
    corpus_fields,
    encoder_specs,
    models_of,
    tell_encoders,
    tell_models,
)

if TYPE_CHECKING:
    from ..build import BuildReport
    from ..corpora.reading import BadRecords
    from ..progress import Bar

CORPUS_HELP = (
    "corpora: JSON lines or a JSON array (.jsonl, .json), TSV, CSV (each also .gz), Parquet, a BEIR folder, a folder of .txt "
    "and .md files, - for JSON lines on standard input, or ir_datasets:ID"
)
VECTORS_HELP = (
    'vectors: JSON lines of {"id": ..., "vector": {"term": weight}} (.jsonl, also .gz), Parquet of id, indices, values or of '
    "id and a map vector (.parquet), SciPy's CSR (.npz), or a NumPy array of dense vectors, (n, dim) or (n, m, dim) (.npy); or "
    "an inverted index (.ciff), whose order of documents is kept; or "
    "an index folder of Stanford's ColBERT (PLAID) or of fast-plaid, whose token vectors are decoded and encoded again"
)


def add_indexing_commands(command: Command) -> None:
    """Add the commands to the command line."""
    build = command("build", _build, "build an index from corpora", "lexmax build corpus.jsonl --out IDX")
    build.set_defaults(resumes=True)
    build.hints |= dict.fromkeys(("--set", "--model", "--nbits"), ": write --encoder MODEL,SETTING=VALUE, as in bm25,k1=0.9")
    build.add_argument("corpus", nargs="+", metavar="CORPUS", help=CORPUS_HELP)
    build.add_argument("--out", required=True, metavar="IDX", help="folder of the new index; an unfinished build continues")
    group = build.add_argument_group("vector fields", SPEC_HELP)
    group.add_argument("--encoder", action="append", metavar="SPEC",
                       help=f"a vector field; repeat for several (default: {', '.join(DEFAULT_ENCODERS)})")  # fmt: skip
    build.add_argument_group("default search", EXPRESSION_HELP).add_argument(
        "--search", metavar="EXPR", help="what the index is searched with when nothing else is said (default: by its fields)"
    )
    build.add_argument("--split-long", action="store_true",
                       help="cut documents longer than an encoder reads into passages DOC#1, DOC#2, ...")  # fmt: skip
    add_device(build)
    add_corpus_options(build)
    add_reorder(build)
    shards = build.add_argument_group("shards", "parts of the corpus as indexes of their own, which answer as one: "
                                      "every command and retriever takes the folder as it takes an index")  # fmt: skip
    shards.add_argument("--shards", type=int, metavar="N", help="build a set of so many")
    shards.add_argument("--workers", type=int, metavar="N", help="processes that build shards (default 1)")
    shards.add_argument("--ray", nargs="?", const="", metavar="ADDRESS",
                        help="build shards on Ray: of this address, or else one of this machine")  # fmt: skip
    add = command("add", _add, "add documents to an index, in all its fields", "lexmax add IDX more.jsonl --replace")
    add_index(add)
    add.add_argument("corpus", nargs="+", metavar="CORPUS", help=CORPUS_HELP)
    add.add_argument("--replace", action="store_true", help="replace documents whose doc_id is in the index")
    add_model_options(add)
    add_corpus_options(add)
    delete = command("delete", _delete, "delete documents from an index", "lexmax delete IDX doc1 doc2")
    add_index(delete)
    delete.add_argument("doc_id", nargs="+", metavar="DOC_ID")
    _add_field_command(command)
    _add_import_options(command("import", _import, "build an index from ready-made vectors, a CIFF file or a PLAID index",
                                "lexmax import vectors.jsonl --out IDX --documents corpus.jsonl"))  # fmt: skip
    export = command("export", _export, "write a sparse field as CIFF, or all vectors as a feed of another engine",
                     "lexmax export IDX points.jsonl --format qdrant")  # fmt: skip
    add_index(export)
    export.add_argument("file", metavar="FILE")
    export.add_argument("--format", choices=["ciff", "elasticsearch", "opensearch", "vespa", "qdrant", "jsonl", "plaid"],
                        default="ciff", help="ciff (the default); bulk files, feeds or points of other engines; jsonl: vectors "
                        "that lexmax and Anserini import; plaid: a token field as a folder of fast-plaid")  # fmt: skip
    export.add_argument("--nbits", type=int, choices=[1, 2, 4, 8], help="plaid: bits per coordinate (default 4)")
    export.add_argument("--field", action="append", metavar="NAME", help="which field of several; repeatable for feeds, whose "
                        "default is all that hold vectors")  # fmt: skip
    export.add_argument("--name", default="lexmax", help="of feeds: the other engine's index or schema (default lexmax)")


def _add_field_command(command: Command) -> None:
    parser = command("field", _field, "add or drop a vector field or its query bank, or set the default search",
                     "lexmax field add IDX colbert=lexmax-colbert --search '(bm25 + splade) > colbert'")  # fmt: skip
    parser.set_defaults(resumes=True)
    parser.add_argument("action", choices=["add", "drop", "default", "bank", "drop-bank"],
                        help="add: fill a new field from the stored texts, or continue; drop: remove one; default: set the "
                        "default search to --search; bank: keep the encoded --queries with a dense or fde field, for searches "
                        "with bank_beta; drop-bank: forget them")  # fmt: skip
    add_index(parser)
    parser.add_argument("field", nargs="?", metavar="SPEC", help="add: [NAME=]MODEL[,SETTING=VALUE]...; else the field's name")
    parser.add_argument("--queries", metavar="FILE", help="bank: JSON lines or CSV of id and text, TSV, or a text per line; "
                        "none that the index is evaluated with")  # fmt: skip
    parser.add_argument_group("default search", EXPRESSION_HELP).add_argument(
        "--search", metavar="EXPR", help="the index's new default search"
    )
    add_model_options(parser)


def _add_import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="+", metavar="FILE", help=VECTORS_HELP)
    parser.add_argument("--out", required=True, metavar="IDX", help="folder of the new index")
    parser.add_argument(
        "--field", metavar="NAME", help="name of the field (default vectors, of a PLAID folder tokens, of NPY files dense)"
    )
    parser.add_argument("--documents", nargs="+", default=[], metavar="CORPUS", help="corpora with the texts, found by id")
    parser.add_argument("--vocabulary", metavar="FILE", help="the terms, one line per number, or JSON of term -> number")
    parser.add_argument("--ids", metavar="FILE", help="one line with the id of each row of an NPZ or NPY file, or of each "
                        "passage of a folder (default: their numbers, from 0)")  # fmt: skip
    parser.add_argument("--term-numbers", action="store_true", help="keys of JSON vectors are term numbers, not strings")
    parser.add_argument("--tf", choices=["counts", "impacts"], help="what the tf of a CIFF file are, where it does not say: "
                        "term counts for BM25, or impacts of an encoder")  # fmt: skip
    parser.add_argument("--k1", type=float, default=1.2, help="of BM25, for counts (default 1.2)")
    parser.add_argument("--b", type=float, default=0.75, help="of BM25, for counts (default 0.75)")
    parser.add_argument("--bm25", metavar="TEXT", help="instead of --k1 and --b, as Lucene writes them: 'BM25(k1=0.9,b=0.4)', "
                        "or a file with settings of Elasticsearch or OpenSearch")  # fmt: skip
    parser.add_argument("--name", default="vectors", help="what made the vectors, for the fingerprint (default vectors)")
    parser.add_argument("--encoder", metavar="SPEC", help="of a folder or NPY files: the model that made the vectors, which "
                        "lexmax cannot verify, and how they are kept, as in colbert-ir/colbertv2.0,nbits=2; it encodes queries "
                        "(default: none, search with vectors alone)")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of a dense field that has "
                        "no --encoder, such as structure=ivf; repeatable")  # fmt: skip
    add_device(parser)
    add_reorder(parser)


def _build(options: argparse.Namespace) -> int:
    specs = encoder_specs(options.encoder or list(DEFAULT_ENCODERS))
    from ..build import build_index

    if options.shards is None and (options.workers is not None or options.ray is not None):
        raise ValueError("--workers and --ray are for --shards N")
    tell_encoders(specs, options.device)
    bad = bad_records(options)
    settings: dict[str, Any] = {
        "encoders": specs, "search": options.search, "fields": corpus_fields(options), "bad": bad, "notice": say,
        "reorder": options.reorder, "split_long": options.split_long, "device": options.device,
    }  # fmt: skip
    with progress_bar("documents", sources=options.corpus) as bar, compiling():
        if options.shards is None:
            report = build_index(options.corpus, options.out, progress=bar, **settings)
        else:
            report = _build_shards(options, bar, settings)
    if report.finished:
        say(f"{options.out} is finished already: {report.n_resumed:,} documents (`lexmax add` adds to it)")
        return 0
    _tell_report(report, bad, f"built {options.out}")
    return 0


def _build_shards(options: argparse.Namespace, bar: Bar | None, settings: dict[str, Any]) -> BuildReport:
    from ..shards.building import build_shards
    from ..shards.running import in_processes, on_ray

    n_workers = 1 if options.workers is None else options.workers
    runner = in_processes(n_workers) if options.ray is None else on_ray(options.ray or None, n_workers)
    return build_shards(options.corpus, options.out, n_shards=options.shards, progress=bar, runner=runner, **settings)


def _add(options: argparse.Namespace) -> int:
    from ..build import add_to_index
    from ..shards.changing import add_to_shards
    from ..shards.manifest import fields_of, is_set

    bad, models = bad_records(options), models_of(options)
    tell_models(fields_of(Path(options.index))[0], models)
    with progress_bar("documents", sources=options.corpus) as bar, compiling():
        report = (add_to_shards if is_set(Path(options.index)) else add_to_index)(
            options.corpus, options.index, models=models, device=options.device, replace=options.replace,
            fields=corpus_fields(options), bad=bad, progress=bar, notice=say,
        )  # fmt: skip
    _tell_report(report, bad, f"added to {options.index}")
    _tell_warnings(options.index)
    return 0


def _delete(options: argparse.Namespace) -> int:
    from ...index.collection import Collection
    from ..shards.changing import delete_from_shards
    from ..shards.manifest import is_set

    with compiling():
        if is_set(Path(options.index)):
            missing = delete_from_shards(options.index, options.doc_id)
        else:
            with Collection.open(options.index) as collection:
                missing = collection.delete(options.doc_id)
                collection.commit()
    say(f"deleted {len(set(options.doc_id)) - len(missing)} documents from {options.index}")
    for doc_id in missing:
        say(f"not in the index: {doc_id}")
    return 1 if missing else 0


def _field(options: argparse.Namespace) -> int:
    from ..fields import add_field, drop_field, set_default_search

    if options.action in ("bank", "drop-bank"):
        return _bank(options)
    if options.queries or options.model:
        raise ValueError(f"--queries and --model are for `lexmax field bank`, not for {options.action}")
    if options.action == "default":
        if not options.search or options.field:
            raise ValueError("write `lexmax field default IDX --search EXPR`")
        set_default_search(options.index, options.search)
        say(f"{options.index} is searched with {options.search} by default")
        return 0
    if not options.field:
        raise ValueError(f"write `lexmax field {options.action} IDX {'NAME=MODEL' if options.action == 'add' else 'NAME'}`")
    if options.action == "drop":
        drop_field(options.index, options.field, search=options.search)
        say(f"dropped {options.field} from {options.index}")
        return 0
    specs = encoder_specs([options.field])
    tell_encoders(specs, options.device)
    with progress_bar("documents") as bar, compiling():
        n_encoded = add_field(options.index, specs[0], search=options.search, device=options.device, progress=bar)
    encoded = f"{n_encoded:,} documents were encoded" if n_encoded else "nothing was left to encode"
    say(f"{options.index} has the field {specs[0].name}: {encoded}")
    return 0


def _bank(options: argparse.Namespace) -> int:
    from ...index.manifest import read
    from ..corpora.queries import read_queries
    from ..fields import set_query_bank

    if not options.field or options.search or bool(options.queries) != (options.action == "bank"):
        raise ValueError("write `lexmax field bank IDX NAME --queries FILE`, or `lexmax field drop-bank IDX NAME`")
    if options.action == "drop-bank":
        set_query_bank(options.index, options.field, None)
        say(f"{options.index}: the field {options.field} has no query bank")
        return 0
    texts, models = [query.text for query in read_queries(options.queries, notice=say)], models_of(options)
    tell_models({name: each for name, each in read(Path(options.index)).fields.items() if name == options.field}, models)
    with progress_bar("queries", total=len(texts)) as bar, compiling():
        n_queries = set_query_bank(
            options.index, options.field, texts, model=models.get(options.field), device=options.device, progress=bar
        )
    say(f"{options.index}: the field {options.field} has a query bank of {n_queries:,} queries")
    return 0


def _import(options: argparse.Namespace) -> int:
    from ..exchange.ciff import import_ciff
    from ..exchange.importing import import_vectors
    from ..exchange.lucene import lucene_bm25
    from ..exchange.vector_files import in_folders

    options.file = in_folders(options.file)
    if options.bm25 is not None and not options.file[0].endswith(".ciff"):
        raise ValueError("--bm25 is for the counts of a CIFF file")
    common = {"documents": options.documents, "name": options.name}
    with progress_bar("documents") as bar, compiling():
        if any(Path(file).is_dir() for file in options.file):
            report = _import_plaid(options, bar, common)
        elif all(file.endswith(".npy") for file in options.file):
            report = _import_dense(options, bar, common)
        elif options.encoder or options.set:
            raise ValueError("--encoder is for a folder of ColBERT or fast-plaid and for NPY files, --set for NPY files")
        elif any(file.endswith(".ciff") for file in options.file):
            if len(options.file) > 1 or options.vocabulary or options.ids or options.term_numbers:
                raise ValueError("a CIFF file is imported alone, and has its own terms and ids")
            k1, b = (options.k1, options.b) if options.bm25 is None else astuple(lucene_bm25(options.bm25))
            report = import_ciff(options.file[0], options.out, field=options.field or "vectors", progress=bar,
                                 reorder=options.reorder or False, tf=options.tf, k1=k1, b=b, **common)  # fmt: skip
        else:
            report = import_vectors(
                options.file, options.out, vocabulary=options.vocabulary, ids=options.ids, field=options.field or "vectors",
                term_numbers=options.term_numbers, progress=bar, reorder=options.reorder, **common,
            )  # fmt: skip
    _tell_report(report, None, f"imported into {options.out}")
    _tell_warnings(options.out)
    return 0


def _import_plaid(options: argparse.Namespace, bar: Bar | None, common: dict[str, Any]) -> BuildReport:
    from ..encoders.specs import load_spec, parse_encoder_spec
    from ..exchange.plaid import import_plaid

    if len(options.file) > 1 or options.vocabulary or options.term_numbers or options.reorder is not None:
        raise ValueError("a folder of ColBERT or fast-plaid is imported alone, has no terms and is not reordered")
    encoder, storage = None, {}
    if options.encoder:
        require_models("an encoder with a model")
        spec = parse_encoder_spec(options.encoder)
        encoder, storage = load_spec(spec, device=options.device), dict(spec.storage)
        if encoder.representation != "tokens":
            raise ValueError(
                f"{options.encoder}: makes {encoder.representation} vectors, {options.file[0]} holds token vectors"
            )
        say(f"queries will be encoded by {spec.model}: that it made these vectors cannot be verified")
    return import_plaid(options.file[0], options.out, encoder=encoder, ids=options.ids, storage=storage,
                        field=options.field or "tokens", progress=bar, **common)  # fmt: skip


def _import_dense(options: argparse.Namespace, bar: Bar | None, common: dict[str, Any]) -> BuildReport:
    from ...index.dense.config import DenseFieldConfig
    from ..encoders.specs import load_spec, parse_encoder_spec
    from ..exchange.dense_files import import_dense

    if options.vocabulary or options.term_numbers or options.reorder is not None:
        raise ValueError("dense vectors have no terms and are not reordered")
    encoder, storage = None, settings_of(DenseFieldConfig, options.set, "--set", without=("dim", "vectors_per_doc"))
    if options.encoder:
        require_models("an encoder with a model")
        spec = parse_encoder_spec(options.encoder)
        encoder, storage = load_spec(spec, device=options.device), {**spec.storage, **storage}
        if encoder.representation != "dense":
            raise ValueError(f"{options.encoder}: makes {encoder.representation} vectors, {options.file[0]} holds dense ones")
        say(f"queries will be encoded by {spec.model}: that it made these vectors cannot be verified")
    return import_dense(options.file, options.out, encoder=cast(Any, encoder), ids=options.ids, storage=storage,
                        field=options.field or "dense", progress=bar, **common)  # fmt: skip


def _export(options: argparse.Namespace) -> int:
    from ..exchange.ciff import export_ciff
    from ..exchange.feeds import export_feed
    from ..exchange.plaid_export import export_plaid

    if options.nbits is not None and options.format != "plaid":
        raise ValueError("--nbits is for --format plaid")
    if options.format in ("ciff", "plaid") and options.field is not None and len(options.field) > 1:
        raise ValueError(f"--format {options.format} writes one field: give one --field")
    field = options.field[0] if options.field else None
    with compiling():
        if options.format == "plaid":
            n_docs = export_plaid(options.index, options.file, field=field, nbits=options.nbits or 4)
        elif options.format != "ciff":
            n_docs = export_feed(options.index, options.file, options.format, fields=options.field, name=options.name)
        else:
            n_docs = export_ciff(options.index, options.file, field=field)
    say(f"exported {n_docs:,} documents to {options.file}")
    return 0


def _tell_warnings(index: str) -> None:
    """Say what makes the scores of a field worse than they could be."""
    from ..shards.snapshot import open_snapshot

    for name, field in open_snapshot(index).info()["fields"].items():
        for warning in field.get("warnings", ()):
            say(f"field {name}: {warning}")


def _tell_report(report: BuildReport, bad: BadRecords | None, done: str) -> None:
    from ..progress import shown_rate

    rate = report.n_added / max(report.elapsed_s, 1e-9)
    resumed = f", {report.n_resumed:,} from an earlier run" if report.n_resumed else ""
    replaced = f", {report.n_replaced:,} replaced" if report.n_replaced else ""
    merged = f", and {report.compact_s:.1f} s to finish the index" if report.compact_s >= 1 else ""
    say(f"{done}: {report.n_added:,} documents{replaced}{resumed} in {report.elapsed_s:.1f} s ({shown_rate(rate)}){merged}")
    for field in report.foreign:
        say(
            f"field {field}: its model was trained on English, and most documents are in another script; bm25 finds their words"
        )
    for field, n_truncated in report.n_truncated.items():
        say(f"{n_truncated:,} documents are longer than the encoder of {field} reads: only their beginnings are searched there "
            "(--split-long cuts them into passages)")  # fmt: skip
    if report.n_split:
        say(f"{report.n_split:,} documents longer than an encoder reads were cut into passages, counted as documents here")
    if bad and bad.n_records:
        say(f"skipped {bad.n_records:,} bad records" + (", the first:" if bad.n_records > len(bad.examples) else ":"))
        for record in bad.examples:
            say(f"  {record.path}, line {record.line}: {record.reason}")
