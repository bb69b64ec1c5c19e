"""Options that several commands take, and what is read from them.

This module is read at every start of the command line, so whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..terminal import json_or_text, require_models, say, split_setting
from .parsing import Parser

if TYPE_CHECKING:
    from ...index.manifest import FieldRecord
    from ...index.multivector.placement import TokenStorage
    from ..corpora.reading import BadRecords, Fields
    from ..encoders.base import Encoder
    from ..encoders.specs import EncoderSpec
    from ..feedback.log import ClickLog
    from ..retriever import Retriever

SIZE = re.compile(r"(?P<number>\d+\.?\d*|\.\d+) ?(?P<unit>(?:[kmgt]i?)?b?)", re.IGNORECASE)
SHORT_DOCS = 300_000
"""Documents up to which NumPy answers a query of BM25 sooner than Numba is imported."""
Command = Callable[[str, Callable[[argparse.Namespace], int], str, str], Parser]
"""Makes a sub-command of a name, what it runs, a summary and an example."""

EXPRESSION_HELP = """\
search expressions:
  FIELD                       the best documents of one field
  A + B                       fusion by reciprocal rank
  0.3*A + 0.7*B               fusion by weights, which each term distributes by its scores
  A:200                       the 200 best of A take part (default: 100, or k)
  (A + B) > C                 the documents of A + B, ordered by C;  > C:50 takes the best 50
  (A + B) > 0.3*A + 0.7*C     every field named after > scores every document
A shell needs quotes around > and *."""
SPEC_HELP = """\
encoders, [NAME=]MODEL[,SETTING=VALUE]...:
  bm25                        BM25; bm25,k1=0.9,stemmer=german
  lexmax-splade               a model that comes with lexmax (also lexmax-inference-free, lexmax-colbert), a folder, or an id
                              in the Hugging Face cache or on the hub
  tokens=lexmax-colbert,nbits=2,document_length=300
                              a field of another name, how it keeps token vectors, and a setting of the encoder
  fde=muvera,of=colbert       one vector per document, made of the vectors of the token field colbert: a first stage for
                              fde:1000 > colbert; see docs/muvera.md"""


def add_index(parser: argparse.ArgumentParser) -> None:
    """Add the index folder."""
    parser.add_argument("index", metavar="IDX", help="folder of the index")


def add_reorder(parser: argparse.ArgumentParser) -> None:
    """Add ``--reorder``; None stands for neither."""
    parser.add_argument("--reorder", action=argparse.BooleanOptionalAction, default=None,
                        help="put similar documents side by side, for faster exact search (default: learned weights of "
                        "50,000 documents or more)")  # fmt: skip


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add where the encoders of an index are, for `models_of` and `open_retriever`."""
    parser.add_argument("--model", action="append", default=[], metavar="FIELD=DIR_OR_ID",
                        help="where the model of a field is now, when it has moved; repeatable")  # fmt: skip
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add where models run."""
    parser.add_argument("--device", default="cpu", help="where models run: cpu, cuda, ... (default cpu)")


def models_of(options: argparse.Namespace) -> dict[str, str]:
    """Return where models of fields are now, by field."""
    return once([split_setting(text, "--model") for text in options.model], "--model")


def add_search_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add which search answers and how hard it tries, for `open_retriever`; ``several``: --search can be repeated."""
    group = parser.add_argument_group("search", EXPRESSION_HELP)
    about = "search expression (default: the one that the index stores)"
    if several:
        group.add_argument("--search", metavar="[NAME=]EXPR", action="append", default=[], help=f"{about}; repeat with --suite")
    else:
        group.add_argument("--search", metavar="EXPR", help=about)
    group.add_argument("--option", action="append", default=[], metavar="FIELD.NAME=VALUE",
                       help="an option of a field's search, such as colbert.n_probe=64; repeatable")  # fmt: skip
    group.add_argument("--target-recall", type=float, metavar="R",
                       help="of token vectors: the cheapest settings that reach this recall, as calibrated")  # fmt: skip
    group.add_argument("--exhaustive", action="store_true",
                       help="score every document: the slow oracle that the fast searchers are measured by")  # fmt: skip
    group.add_argument("--token-storage", metavar="PLACE",
                       help="where token vectors are: memory, mmap, or on disk, read by io_uring, libaio, pread or willneed "
                       "(default auto: mmap if they fit into half of the free memory, else the first that works)")  # fmt: skip
    group.add_argument("--memory-budget", metavar="SIZE",
                       help="keep so much of token vectors in memory, as in 500MB, and read the rest from disk")  # fmt: skip


def search_options(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the options of each field's search."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in once([split_setting(text, "--option") for text in options.option], "--option").items():
        field, dot, option = name.partition(".")
        if not dot or not option:
            raise ValueError(f"--option takes FIELD.NAME=VALUE, as in colbert.n_probe=64, not {name}={value}")
        found.setdefault(field, {})[option] = json_or_text(value)
    if options.target_recall is not None:
        records = _searched(options.index, options.search)
        fields = [name for name, record in records.items() if record.representation == "tokens"]
        if not fields:
            raise ValueError(f"--target-recall is for fields of token vectors; the search has {', '.join(records)}")
        for field in fields:
            found.setdefault(field, {}).setdefault("target_recall", options.target_recall)
    return found


def once(pairs: list[tuple[str, str]], option: str) -> dict[str, str]:
    """Return pairs as a mapping; raises ValueError when a name comes twice."""
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{option} gives {twice} twice")
    return dict(pairs)


def _searched(index: str, search: str | None) -> dict[str, FieldRecord]:
    """Fields of an index that a search names, as far as they are there."""
    from ..pipelines.expression import parse
    from ..shards.manifest import fields_of

    fields, default = fields_of(Path(index))
    expression = default if search is None else search
    names = list(fields) if expression is None else list(parse(expression).fields)
    return {name: fields[name] for name in names if name in fields}


def is_short(options: argparse.Namespace) -> bool:
    """Tell whether a search ends sooner in plain Python than Numba is imported: one of BM25 fields that are not large."""
    from ...index.manifest import read
    from ..shards.manifest import is_set

    if (
        is_set(Path(options.index))
        or options.exhaustive
        or options.explain
        or options.feedback
        or options.option
        or options.queries is not None
    ):
        return False
    segments = read(Path(options.index)).segments
    n_docs, n_deleted = sum(each.n_docs for each in segments), sum(each.n_deleted for each in segments)
    kinds = {record.encoder.kind for record in _searched(options.index, options.search).values()}
    return kinds == {"bm25"} and n_docs <= SHORT_DOCS and not n_deleted


def tell_models(records: Mapping[str, FieldRecord], models: Mapping[str, str]) -> None:
    """Tell which models will be loaded because an index names them: its maker chose the folder or id."""
    from ..models import SHIPPED

    for name, record in records.items():
        model = record.encoder.settings.get("model")
        if model is not None and name not in models and (model not in SHIPPED or Path(model).is_dir()):
            say(f"the index names the model of {name}: {model} (--model {name}=DIR_OR_ID takes another place)")


def open_retriever(
    options: argparse.Namespace, clicks: ClickLog | str | None = None, encoders: Mapping[str, Encoder] | None = None
) -> Retriever:
    """Open the index with the search and its options that were asked for, a click log, and encoders at hand."""
    models = models_of(options)
    tell_models(_searched(options.index, options.search), models)  # first, since a missing index needs no retriever
    from ..retriever import Retriever

    settings: dict[str, Any] = {
        "search": options.search, "encoders": encoders, "models": models, "device": options.device,
        "options": search_options(options), "exhaustive": options.exhaustive, "clicks": clicks,
    }  # fmt: skip
    if getattr(options, "ray", None) is None:
        return Retriever.open(options.index, storage=token_storage(options), **settings)
    from ..shards.manifest import is_set
    from ..shards.on_ray import RayOptions, open_on_ray

    if not is_set(Path(options.index)):
        raise ValueError(f"{options.index} is no set of shards, which --ray serves: `lexmax build --shards N` makes one")
    on_ray = RayOptions(address=options.ray or None, n_replicas=options.replicas, deadline_s=options.shard_deadline)
    return Retriever(open_on_ray(options.index, on_ray), **settings)


def token_storage(options: argparse.Namespace) -> TokenStorage:
    """Return where token vectors are to be."""
    from ...index.multivector.placement import TokenStorage

    budget = None if options.memory_budget is None else bytes_of(options.memory_budget, "--memory-budget")
    return TokenStorage(place=options.token_storage or "auto", memory_budget=budget)


def bytes_of(text: str, option: str) -> int:
    """Read a size: a number of bytes, or of KB, MB, GB or TB, powers of 1,000, or of KiB, MiB, GiB or TiB, of 1,024."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{option} takes a size, as in 500MB or 1.5GiB, not {text!r}")
    unit = match["unit"].lower() or "b"
    return int(float(match["number"]) * (1024 if "i" in unit else 1000) ** "bkmgt".index(unit[0]))


def encoder_specs(texts: list[str]) -> list[EncoderSpec]:
    """Read ``--encoder`` options; what needs models that are not installed is known before anything is read."""
    from ..encoders.specs import parse_encoder_spec

    specs = [parse_encoder_spec(text) for text in texts]
    for spec in specs:
        if spec.kind not in ("bm25", "muvera"):
            require_models(f"the encoder {spec.model or spec.kind} (--encoder bm25 needs nothing more)")
    return specs


def tell_encoders(specs: list[EncoderSpec], device: str) -> None:
    """Tell which fields are filled, and in what precision models run."""
    from ..encoders.methods import precision_of

    told = []
    for spec in specs:
        precision = precision_of(spec, device)
        told.append(f"{spec.name} ({spec.model or spec.kind}, {precision})" if precision else spec.name)
    say("fields: " + ", ".join(told))


def add_corpus_options(parser: argparse.ArgumentParser) -> None:
    """Add how records of a corpus are read, for `corpus_fields` and `bad_records`."""
    group = parser.add_argument_group("corpus")
    group.add_argument("--id-field", metavar="NAME", help="key of the document id (default: recognised, _id first)")
    group.add_argument(
        "--title-field", metavar="NAME", action="append", help="key of the title; repeat to join (default title)"
    )
    group.add_argument("--text-field", metavar="NAME", action="append",
                       help="key of the text; repeat to join (default: recognised, text first)")  # fmt: skip
    group.add_argument("--metadata-field", metavar="NAME", action="append",
                       help="key to keep as metadata (default: all but lists of other things than strings)")  # fmt: skip
    group.add_argument("--skip-bad", action="store_true", help="leave out malformed and duplicate records, and list them")


def corpus_fields(options: argparse.Namespace) -> Fields | None:
    """Return which keys of a record mean what; None where nothing was named."""
    from ..corpora.reading import Fields

    named = {
        "id": options.id_field,
        "title": tuple(options.title_field) if options.title_field else None,
        "text": tuple(options.text_field) if options.text_field else None,
        "metadata": tuple(options.metadata_field) if options.metadata_field else None,
    }
    given = {name: value for name, value in named.items() if value is not None}
    return Fields(**given) if given else None


def bad_records(options: argparse.Namespace) -> BadRecords | None:
    """Return what collects records that are skipped; None where a bad one is an error."""
    from ..corpora.reading import BadRecords

    return BadRecords() if options.skip_bad else None
