"""Options that several commands take, and what is read from them.

This module is read at every start of the command line, so whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models import DEFAULT_MODEL
from ..terminal import json_or_text, require_models, say, split_setting

if TYPE_CHECKING:
    from ..build import TokenStorage
    from ..corpora.reading import BadRecords, Fields
    from ..encoders.base import Encoder
    from ..retriever import Retriever

Command = Callable[[str, Callable[[argparse.Namespace], int], str, str], argparse.ArgumentParser]
"""Makes a sub-command of a name, what it runs, a summary and an example."""


def add_index(parser: argparse.ArgumentParser) -> None:
    """Add the index folder."""
    parser.add_argument("index", metavar="IDX", help="folder of the index")


def add_reorder(parser: argparse.ArgumentParser) -> None:
    """Add ``--reorder``; None stands for neither."""
    parser.add_argument("--reorder", action=argparse.BooleanOptionalAction, default=None,
                        help="put similar documents side by side, for faster exact search (default: learned weights of "
                        "50,000 documents or more)")  # fmt: skip


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add where the encoder of an index is, for `index_encoder` and `open_retriever`."""
    parser.add_argument("--model", metavar="DIR_OR_ID", help="where the encoder's model is (default: where it was)")
    parser.add_argument("--device", default="cpu", help="where a model runs: cpu, cuda, ... (default cpu)")


def index_encoder(options: argparse.Namespace) -> Encoder:
    """Load the encoder that made the vectors of an index."""
    from ...index import manifest
    from ..encoders.registry import encoder_of

    record = manifest.read(Path(options.index)).encoder
    overrides = {} if record.kind == "bm25" else {"device": options.device}
    return encoder_of(record, model=options.model, **overrides)


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """Add which encoder a new index has, for `new_encoder`."""
    group = parser.add_argument_group("encoder")
    group.add_argument("--encoder", choices=["bm25", "splade", "inference-free", "colbert", "slim"],
                       help="default: what the model's files say, which is never slim")  # fmt: skip
    group.add_argument("--model", metavar="DIR_OR_ID",
                       help="a model folder, a model that comes with lexmax (lexmax-splade, lexmax-inference-free, "
                       f"lexmax-colbert), or an id in the cache or on the hub (default: {DEFAULT_MODEL})")  # fmt: skip
    group.add_argument("--device", default="cpu", help="where a model runs: cpu, cuda, ... (default cpu)")
    group.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                       help="an encoder's setting: k1=0.9, stemmer=german, document_top_k=150, pool_factor=2, ...")  # fmt: skip


def new_encoder(options: argparse.Namespace) -> Encoder:
    """Load the encoder of a new index; what none is named for is the model that comes with lexmax."""
    from ..encoders.loader import shipped_defaults
    from ..encoders.registry import load_encoder

    pairs = [split_setting(text, "--set") for text in options.set]
    settings = {name: json_or_text(value) for name, value in pairs}
    model = options.model
    if model is None and options.encoder is None:
        require_models(f"the default encoder, {DEFAULT_MODEL} (--encoder bm25 needs nothing more)")
        model = DEFAULT_MODEL
    elif model or options.encoder != "bm25":
        require_models("an encoder with a model")
    if model is not None:
        settings = {**shipped_defaults(model, options.device), **settings}
        if "dtype" in settings:
            slower = "; --encoder bm25 is some hundred times faster, and less accurate" if options.model is None else ""
            say(f"encoding with {model} in {settings['dtype']}{slower}")
    return load_encoder(options.encoder, model=model, device=options.device, **settings)


def add_token_options(parser: argparse.ArgumentParser) -> None:
    """Add how a new index keeps token vectors, for `token_storage`."""
    group = parser.add_argument_group("token vectors")
    group.add_argument("--nbits", type=int, choices=[1, 2, 4, 8], help="bits a dimension that the search reads (default 2)")
    group.add_argument("--no-exact-tokens", action="store_true",
                       help="do not keep tokens at 8 bits too, from which the best documents are scored again")  # fmt: skip
    group.add_argument("--split-long", action="store_true",
                       help="cut documents longer than the encoder reads into passages DOC#1, DOC#2, ...")  # fmt: skip
    group.add_argument("--centroids", type=int, metavar="N", help="number of centroids (default: by the number of tokens)")


def token_storage(options: argparse.Namespace) -> TokenStorage | None:
    """Return how token vectors are kept; None where nothing was said about it."""
    from ..build import TokenStorage

    if options.nbits is None and not options.no_exact_tokens and options.centroids is None:
        return None
    return TokenStorage(nbits=options.nbits or 2, exact=not options.no_exact_tokens, n_centroids=options.centroids)


def add_effort_options(parser: argparse.ArgumentParser) -> None:
    """Add how hard to search, for `open_retriever`."""
    parser.add_argument("--exhaustive", action="store_true",
                        help="score every document: the slow oracle that the fast searchers are measured by")  # fmt: skip
    group = parser.add_argument_group("token vectors")
    group.add_argument("--target-recall", type=float, metavar="R",
                       help="the cheapest search that reached this recall@10 in `lexmax calibrate`")  # fmt: skip
    group.add_argument("--n-probe", type=int, help="centroids that each query token probes (default 32)")
    group.add_argument("--n-gathered", type=int, help="documents scored over centroids (default 1024 or 20 k)")
    group.add_argument("--n-candidates", type=int, help="documents scored over residual codes (default 512 or 10 k)")
    group.add_argument("--n-exact", type=int, help="documents scored again over tokens at 8 bits (default 32 or 2 k)")
    group.add_argument("--slim-candidates", type=int, metavar="N",
                       help="of SLIM: documents scored over their tokens (default 10 k, at least 100)")  # fmt: skip


def open_retriever(options: argparse.Namespace) -> Retriever:
    """Open the index with its encoder and as much effort as was asked for."""
    from ..retriever import Retriever

    searcher = "exhaustive" if options.exhaustive else "auto"
    return Retriever.open(options.index, model=options.model, device=options.device, searcher=searcher, **_effort(options))


def _effort(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `Retriever.open` takes of how hard to search token vectors."""
    if options.slim_candidates is not None:
        from ..searchers.slim import SlimOptions

        return {"slim": SlimOptions(n_candidates=options.slim_candidates)}
    names = ("n_probe", "n_gathered", "n_candidates", "n_exact")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if not given:
        return {"target_recall": options.target_recall}
    from ..searchers.centroid import CentroidOptions

    return {"target_recall": options.target_recall, "centroid": CentroidOptions(**given)}


def add_corpus_options(parser: argparse.ArgumentParser) -> None:
    """Add how records of a corpus are read, for `corpus_fields` and `bad_records`."""
    group = parser.add_argument_group("corpus")
    group.add_argument("--id-field", metavar="NAME", default="_id", help="key of the document id (default _id)")
    group.add_argument("--title-field", metavar="NAME", action="append",
                       help="key of the title; repeat to join (default title)")  # fmt: skip
    group.add_argument("--text-field", metavar="NAME", action="append", help="key of the text; repeat to join (default text)")
    group.add_argument("--metadata-field", metavar="NAME", action="append",
                       help="key to keep as metadata (default: all scalars)")  # fmt: skip
    group.add_argument("--skip-bad", action="store_true", help="leave out malformed and duplicate records, and list them")


def corpus_fields(options: argparse.Namespace) -> Fields:
    """Return which keys of a record mean what."""
    from ..corpora.reading import Fields

    return Fields(
        id=options.id_field,
        title=tuple(options.title_field or ["title"]),
        text=tuple(options.text_field or ["text"]),
        metadata=tuple(options.metadata_field) if options.metadata_field else None,
    )


def bad_records(options: argparse.Namespace) -> BadRecords | None:
    """Return what collects records that are skipped; None where a bad one is an error."""
    from ..corpora.reading import BadRecords

    return BadRecords() if options.skip_bad else None
