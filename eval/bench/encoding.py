"""`lexmax bench encode`: encoders alone and in one shared pass, in several precisions, in one interleaved run.

Passages and queries are the first of a BEIR folder, by default the SciFact abstracts and claims of the repository. Every
round runs each encoder alone and all of them in one pass, precision by precision; the best of the rounds counts, and what
comes before them loads and compiles.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ...index.errors import DatasetError
from ...retrieval.corpora.queries import read_queries
from ...retrieval.corpora.reading import read_corpus
from ...retrieval.encoders.methods import precision_of
from ...retrieval.encoders.shared_pass import SharedPass
from ...retrieval.encoders.specs import EncoderSpec, load_spec, parse_encoder_spec
from ..datasets import COLLECTIONS
from ..tables import markdown_table
from .report import Report, Row
from .timing import Search, Stream, interleave

ENCODERS = ("bm25", "lexmax-splade", "lexmax-colbert")
PRECISIONS = ("int8", "bfloat16", "float32")
SHARED = "one pass"
SCIFACT = COLLECTIONS / "scifact"


@dataclass(frozen=True, kw_only=True)
class EncodeBench:
    """What to time.

    Attributes
    ----------
    encoders : sequence of str
        ``[NAME=]MODEL[,SETTING=VALUE]...`` each.
    precisions : sequence of str
        Each encoder that has a model runs in all of them.
    folder : path
        A BEIR folder.
    n_passages, n_queries : int
    n_threads : int
        Of torch; numba's and BLAS's must be set in the environment before they are imported.
    n_rounds : int
        The best of them counts.
    """

    encoders: Sequence[str] = ENCODERS
    precisions: Sequence[str] = PRECISIONS
    folder: str | os.PathLike[str] = SCIFACT
    n_passages: int = 64
    n_queries: int = 40
    n_threads: int = 2
    n_rounds: int = 3

    def __post_init__(self) -> None:
        if min(self.n_passages, self.n_queries, self.n_threads, self.n_rounds) < 1:
            raise ValueError("passages, queries, threads and rounds must be at least 1")


class EncodeReport(Report):
    """A row for each encoder and precision, and one for all encoders in one pass.

    ``p50_us`` and ``p99_us`` are those of single queries, on the wall. ``ratio_to_dearest`` is the time of the one pass over
    the passages by that of the slowest encoder alone: 1 means that the others cost nothing.
    """

    def to_markdown(self) -> str:
        """Return the rows as a table and the setup as a list."""
        table = [["encoder", "precision", "passages/s", "query p50 ms", "p99 ms", "time by the dearest's"]]
        for row in self.rows:
            ratio = "" if row["ratio_to_dearest"] is None else f"{row['ratio_to_dearest']:.2f}"
            times = [f"{row['passages_per_s']:.1f}", f"{row['p50_us'] / 1000:.2f}", f"{row['p99_us'] / 1000:.2f}"]
            table.append([row["encoder"], row["precision"] or "", *times, ratio])
        return "\n".join([*markdown_table(table), "", *(f"- {name}: {value}" for name, value in self.setup.items())]) + "\n"


def run_encode_bench(bench: EncodeBench, say: Callable[[str], None] = lambda message: None) -> EncodeReport:
    """Time encoders on passages and on single queries.

    Raises
    ------
    DatasetError
        There is no such folder, or no passage or query in it.
    ValueError, TypeError, RepresentationError
        As `encoders.specs.load_spec`; two encoders of one name.
    """
    import torch

    torch.set_num_threads(bench.n_threads)
    passages, queries = _texts(bench)
    passes = _passes([parse_encoder_spec(text) for text in bench.encoders], bench.precisions, say)
    say("timing")
    streams = [
        interleave(_encoding(passes, side), dict.fromkeys(passes, asked), 0, bench.n_rounds)
        for side, asked in (("documents", [passages]), ("queries", [[query] for query in queries]))
    ]
    rows = [_row(name, len(passages), *(each[name] for each in streams)) for name in passes]
    for row in rows:
        if row["encoder"] == SHARED:
            alone = [each for each in rows if each["precision"] in (row["precision"], None) and each is not row]
            row["ratio_to_dearest"] = round(min(each["passages_per_s"] for each in alone) / row["passages_per_s"], 3)
    setup = {
        "encoders": ", ".join(bench.encoders), "passages": len(passages), "queries": len(queries),
        "mean_words": round(float(np.mean([len(text.split()) for text in passages])), 1), "rounds": bench.n_rounds,
        "threads": bench.n_threads, "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }  # fmt: skip
    return EncodeReport(rows=rows, setup=setup)


def _texts(bench: EncodeBench) -> tuple[list[str], list[str]]:
    folder = Path(bench.folder)
    if not folder.is_dir():
        raise DatasetError("no such folder: give --dataset a BEIR folder", path=folder)
    passages = [document.content for document in islice(read_corpus(folder), bench.n_passages)]
    queries = [query.text for query in islice(read_queries(next(folder.glob("queries.jsonl*"), folder)), bench.n_queries)]
    if not passages or not queries:
        raise DatasetError("there is no passage, or no query", path=folder)
    return passages, queries


def _passes(specs: Sequence[EncoderSpec], precisions: Sequence[str], say: Callable[[str], None]) -> dict[str, SharedPass]:
    """What is timed, by ``ENCODER`` or ``ENCODER, PRECISION``: every encoder alone, and all in one pass."""
    if len({spec.name for spec in specs}) < len(specs):
        raise ValueError("two encoders have one name: name them, as in --encoder NAME=MODEL")
    plain = {spec.name: load_spec(spec) for spec in specs if precision_of(spec, "cpu") is None}
    passes = {name: SharedPass({name: encoder}) for name, encoder in plain.items()}
    models = [spec for spec in specs if spec.name not in plain]
    for precision in precisions if models else ():
        say(f"loading models in {precision}")
        loaded = {each.name: load_spec(replace(each, settings={**each.settings, "dtype": precision})) for each in models}
        passes |= {f"{name}, {precision}": SharedPass({name: encoder}) for name, encoder in loaded.items()}
        if len(specs) > 1:
            passes[f"{SHARED}, {precision}"] = SharedPass(plain | loaded)
    return passes


def _encoding(passes: Mapping[str, SharedPass], side: str) -> dict[str, Search]:
    def encoding(encoders: SharedPass) -> Search:
        encode = encoders.encode_documents if side == "documents" else encoders.encode_queries
        return lambda texts, k: encode(texts)

    return {name: encoding(encoders) for name, encoders in passes.items()}


def _row(name: str, n_passages: int, passages: Stream, queries: Stream) -> Row:
    encoder, _, precision = name.partition(", ")
    return {
        "engine": f"lexmax {name}", "encoder": encoder, "precision": precision or None, "k": None, "recall@10": None,
        "passages_per_s": round(1e6 * n_passages / float(passages.wall_us[0]), 1),
        "p50_us": round(float(np.percentile(queries.wall_us, 50)), 1),
        "p99_us": round(float(np.percentile(queries.wall_us, 99)), 1), "ratio_to_dearest": None,
    }  # fmt: skip
