"""The commands that fill an index: ``build``, ``import``, ``export``, ``add`` and ``delete``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..terminal import compiling, progress_bar, require_models, say
from .options import (
    Command,
    add_corpus_options,
    add_encoder_options,
    add_index,
    add_model_options,
    add_reorder,
    add_token_options,
    bad_records,
    corpus_fields,
    index_encoder,
    new_encoder,
    token_storage,
)

if TYPE_CHECKING:
    from ..build import BuildReport
    from ..corpora.reading import BadRecords
    from ..encoders.base import MultiVectorEncoder
    from ..progress import Bar

CORPUS_HELP = (
    "corpora: JSON lines in BEIR's layout (.jsonl), TSV (.tsv), Parquet (.parquet), each of the first two also .gz, a BEIR "
    "folder, - for JSON lines on standard input, or ir_datasets:ID"
)
VECTORS_HELP = (
    'vectors: JSON lines of {"id": ..., "vector": {"term": weight}} (.jsonl, also .gz), Parquet of id, indices, values or of '
    "id and a map vector (.parquet), SciPy's CSR (.npz); or an inverted index (.ciff), whose order of documents is kept; or "
    "an index folder of Stanford's ColBERT (PLAID) or of fast-plaid, whose token vectors are decoded and encoded anew"
)


def add_indexing_commands(command: Command) -> None:
    """Add the five commands to the command line."""
    build = command("build", _build, "build an index from corpora", "lexmax build corpus.jsonl --out IDX")
    build.set_defaults(resumes=True)
    build.add_argument("corpus", nargs="+", metavar="CORPUS", help=CORPUS_HELP)
    build.add_argument("--out", required=True, metavar="IDX", help="folder of the new index; an unfinished build goes on")
    add_encoder_options(build)
    add_token_options(build)
    add_corpus_options(build)
    add_reorder(build)
    _add_import_options(command("import", _import, "build an index from ready-made vectors, a CIFF file or a PLAID index",
                                "lexmax import vectors.jsonl --out IDX --documents corpus.jsonl"))  # fmt: skip
    export = command("export", _export, "write an index as a CIFF file, for other engines", "lexmax export IDX index.ciff")
    add_index(export)
    export.add_argument("file", metavar="FILE")
    add = command("add", _add, "add documents to an index", "lexmax add IDX more.jsonl --replace")
    add_index(add)
    add.add_argument("corpus", nargs="+", metavar="CORPUS", help=CORPUS_HELP)
    add.add_argument("--replace", action="store_true", help="replace documents whose doc_id is in the index")
    add_model_options(add)
    add_corpus_options(add)
    delete = command("delete", _delete, "delete documents from an index", "lexmax delete IDX doc1 doc2")
    add_index(delete)
    delete.add_argument("doc_id", nargs="+", metavar="DOC_ID")


def _add_import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="+", metavar="FILE", help=VECTORS_HELP)
    parser.add_argument("--out", required=True, metavar="IDX", help="folder of the new index")
    parser.add_argument("--documents", nargs="+", default=[], metavar="CORPUS", help="corpora with the texts, found by id")
    parser.add_argument("--vocabulary", metavar="FILE", help="the terms, a line for each number, or JSON of term -> number")
    parser.add_argument("--ids", metavar="FILE", help="a line with the id of each row of an NPZ file, or of each passage "
                        "of a folder (default: their numbers, from 0)")  # fmt: skip
    parser.add_argument("--term-numbers", action="store_true", help="keys of JSON vectors are term numbers, not strings")
    parser.add_argument("--name", default="vectors", help="what made the vectors, for the fingerprint (default vectors)")
    parser.add_argument("--model", metavar="DIR_OR_ID", help="of a folder: the ColBERT model that made its vectors, which "
                        "lexmax cannot verify; it encodes queries (default: none, search with vectors alone)")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu, cuda, ... (default cpu)")
    add_token_options(parser)
    add_reorder(parser)


def _build(options: argparse.Namespace) -> int:
    from ..build import build_index

    bad = bad_records(options)
    with progress_bar("documents", sources=options.corpus) as bar, compiling():
        report = build_index(
            options.corpus,
            options.out,
            encoder=new_encoder(options),
            fields=corpus_fields(options),
            bad=bad,
            progress=bar,
            reorder=options.reorder,
            tokens=token_storage(options),
            split_long=options.split_long,
        )
    _tell_report(report, bad, f"built {options.out}")
    return 0


def _add(options: argparse.Namespace) -> int:
    from ..build import add_to_index

    bad, fields = bad_records(options), corpus_fields(options)
    encoder = index_encoder(options)
    with progress_bar("documents", sources=options.corpus) as bar, compiling():
        report = add_to_index(
            options.corpus, options.index, encoder, replace=options.replace, fields=fields, bad=bad, progress=bar
        )
    _tell_report(report, bad, f"added to {options.index}")
    return 0


def _import(options: argparse.Namespace) -> int:
    from ..exchange.ciff import import_ciff
    from ..exchange.importing import import_vectors

    common = {"documents": options.documents, "name": options.name}
    with progress_bar("documents") as bar, compiling():
        if any(Path(file).is_dir() for file in options.file):
            report = _import_plaid(options, bar, common)
        elif options.model or token_storage(options):
            raise ValueError("--model and the options of token vectors are for a folder of ColBERT or fast-plaid")
        elif any(file.endswith(".ciff") for file in options.file):
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


def _import_plaid(options: argparse.Namespace, bar: Bar | None, common: dict[str, Any]) -> BuildReport:
    from ..exchange.plaid import import_plaid

    if len(options.file) > 1 or options.vocabulary or options.term_numbers or options.reorder is not None:
        raise ValueError("a folder of ColBERT or fast-plaid is imported alone, has no terms and is not reordered")
    encoder = _plaid_encoder(options) if options.model else None
    return import_plaid(
        options.file[0], options.out, encoder=encoder, ids=options.ids, tokens=token_storage(options), progress=bar, **common
    )


def _plaid_encoder(options: argparse.Namespace) -> MultiVectorEncoder:
    from ..encoders.base import makes_tokens
    from ..encoders.registry import load_encoder

    require_models("an encoder with a model")
    encoder = load_encoder(model=options.model, device=options.device)
    if not makes_tokens(encoder):
        raise ValueError(f"{options.model}: {encoder.kind} makes no token vectors as {options.file[0]} holds them")
    say(f"queries will be encoded by {options.model}: that it made these vectors cannot be verified")
    return encoder


def _export(options: argparse.Namespace) -> int:
    from ..exchange.ciff import export_ciff

    with compiling():
        n_docs = export_ciff(options.index, options.file)
    say(f"exported {n_docs:,} documents to {options.file}")
    return 0


def _delete(options: argparse.Namespace) -> int:
    from ...index.collection import Collection

    with compiling(), Collection.open(options.index) as collection:
        missing = collection.delete(options.doc_id)
        collection.commit()
    say(f"deleted {len(set(options.doc_id)) - len(missing)} documents from {options.index}")
    for doc_id in missing:
        say(f"not in the index: {doc_id}")
    return 1 if missing else 0


def _tell_report(report: BuildReport, bad: BadRecords | None, done: str) -> None:
    rate = report.n_added / max(report.elapsed_s, 1e-9)
    resumed = f", {report.n_resumed:,} from an earlier run" if report.n_resumed else ""
    replaced = f", {report.n_replaced:,} replaced" if report.n_replaced else ""
    merged = f", and {report.compact_s:.1f} s to finish the index" if report.compact_s >= 1 else ""
    say(f"{done}: {report.n_added:,} documents{replaced}{resumed} in {report.elapsed_s:.1f} s ({rate:,.0f}/s){merged}")
    if report.n_truncated:
        say(f"{report.n_truncated:,} documents are longer than the encoder reads: only their beginnings are searched "
            "(--split-long cuts them into passages, --set document_length=N reads more)")  # fmt: skip
    if report.n_split:
        say(f"{report.n_split:,} documents longer than the encoder reads were cut into passages, counted as documents here")
    if bad and bad.n_records:
        say(f"skipped {bad.n_records:,} bad records" + (", the first:" if bad.n_records > len(bad.examples) else ":"))
        for record in bad.examples:
            say(f"  {record.path}, line {record.line}: {record.reason}")
