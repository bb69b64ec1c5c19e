"""Building a set of shards: a pass that counts, a sample that all shards are trained on, then the shards, in parallel.

Shards hold runs of the corpus, in its order. What their scores depend on is the same in all: codecs, cells and scales are those
of a seed, an index of a sample of documents; BM25's average length is given to all once it is known. A run that was interrupted
continues: finished shards are kept, others are built again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...index import manifest as manifests
from ...index.arguments import count_of, path_of
from ...index.collection import BufferLimits, Collection
from ...index.documents import Document
from ...index.errors import DuplicateDocumentError, IndexNotFoundError, LexmaxError
from ...index.snapshot import Snapshot
from ...index.sparse.field import MAX_DRIFT, SparseField
from ...index.sparse.statistics import SparseStatistics
from ...index.sparse.weighing import bm25_scale, largest_bm25_weight
from ...index.sparse.writer import REFITTED_POSTINGS
from ..build import BuildReport, Source, build_index, source_names
from ..corpora.reading import BadRecords, Fields, read_corpus
from ..encoders.specs import EncoderSpec, parse_encoder_spec
from ..fields import check_search, field_encoders
from ..models import DEFAULT_ENCODERS
from ..pipelines.defaults import default_search
from ..progress import Progress
from . import manifest as sets
from .planning import Start, count, cuts_of, finished, planned
from .running import Runner, in_processes

SEED = "seed"
FEWEST_SAMPLED, MOST_SAMPLED = 2_048, 50_000
"""Documents that the seed is made of: a sixteenth of a shard, but no fewer and no more than these."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to build; can be pickled.

    Attributes
    ----------
    sources, fields, skip_bad
        Those of `build_index`; ``skip_bad``: malformed records are left out.
    first, last : int
        Which documents of the corpus: those before ``last``.
    start : Start or None
        A place before the first of them to read from; None: the corpus's beginning.
    folder, seed : Path
    encoders : tuple of EncoderSpec
    search : str or None
    split_long, device, reorder
        Those of `build_index`.
    """

    sources: tuple[str, ...]
    fields: Fields | None
    skip_bad: bool
    first: int
    last: int
    start: Start | None
    folder: Path
    seed: Path | None
    encoders: tuple[EncoderSpec, ...]
    search: str | None
    split_long: bool
    device: str
    reorder: bool | None


def build_shards(
    sources: Source | Sequence[Source], out: Source, *, n_shards: int, encoders: Sequence[str | EncoderSpec] | None = None,
    search: str | None = None, fields: Fields | None = None, bad: BadRecords | None = None, progress: Progress | None = None,
    notice: Callable[[str], None] | None = None, n_workers: int = 1, split_long: bool = False, device: str = "cpu",
    reorder: bool | None = None, runner: Runner | None = None,
) -> BuildReport:  # fmt: skip
    """Build a set of shards; run again after an interruption, it continues.

    Parameters
    ----------
    sources, encoders, search, fields, bad, progress, notice, split_long, device, reorder
        Those of `build_index`. Encoders are texts or specs, which every worker loads; ``bad`` counts what is left out.
    out : path
        The folder of the set.
    n_shards : int
        At most as many as there are documents.
    n_workers : int
        Processes that build shards.
    runner : Runner or None
        What runs the workers' tasks; None: processes of this machine. See `running`.

    Raises
    ------
    FileExistsError
        ``out`` holds something else, or an unfinished build of another corpus or with other settings.
    ShardError
        A worker ended with an error, or was killed; shards that were finished stay.
    DatasetError, DuplicateDocumentError
        A malformed record, or a doc_id that two shards have.
    """
    start, folder, names = time.monotonic(), path_of(out, "out"), source_names(sources)
    specs = tuple(parse_encoder_spec(each) if isinstance(each, str) else each for each in encoders or DEFAULT_ENCODERS)
    chosen = field_encoders(specs, device=device)
    expression = search or default_search({name: each.encoder for name, each in chosen.items() if each.encoding is None})
    check_search(expression, chosen)
    count_of(n_shards, "n_shards")
    settings = {
        "sources": names, "n_shards": n_shards, "search": expression, "split_long": split_long, "reorder": reorder,
        "fields": {name: [each.encoder.fingerprint, dict(each.new_field().options)] for name, each in chosen.items()},
    }  # fmt: skip
    if sets.is_set(folder):
        return finished(folder, settings)
    n_docs, starts = planned(folder, settings, lambda: count(names, n_shards, fields, bad, notice))
    n_shards = min(n_shards, n_docs)
    cuts = cuts_of(n_docs, n_shards)
    first = ShardTask(
        sources=tuple(names), fields=fields, skip_bad=bad is not None, first=0, last=n_docs, start=None, folder=folder / SEED,
        seed=None, encoders=specs, search=expression, split_long=split_long, device=device, reorder=reorder,
    )  # fmt: skip
    run = runner or in_processes(n_workers)
    seed = None
    if any(each.new_field().representation != "nets" and not _is_bm25(each) for each in chosen.values()):
        seed = folder / SEED
        run(build_seed, [(replace(first, reorder=False), cuts[1])], lambda result: None)
    folders = [folder / f"shard-{number:03d}" for number in range(n_shards)]
    tasks = [
        replace(first, first=cuts[number], last=cuts[number + 1], start=starts[number], folder=folders[number], seed=seed)
        for number in range(n_shards)
    ]
    reports: list[BuildReport] = []
    n_done = 0

    def done(report: Any) -> None:
        nonlocal n_done
        reports.append(report)
        n_done += report.n_added + report.n_resumed
        if progress:
            progress(n_done)

    run(build_shard, [(task,) for task in tasks], done)
    finishing = time.monotonic()
    _check_ids(folders)
    run(give_statistics, bm25_statistics(folders), lambda result: None)
    commit(folder, sets.ShardManifest(shards=[], search=expression), folders)
    shutil.rmtree(folder / SEED, ignore_errors=True)
    return _joined(reports, bad, finishing - start, time.monotonic() - finishing)


def commit(path: Path, known: sets.ShardManifest, folders: Sequence[Path]) -> sets.ShardManifest:
    """Commit a set with its shards as they are on the disk."""
    return sets.publish(path, replace(known, shards=[sets.ShardRecord.of(folder) for folder in folders]))


def build_seed(task: ShardTask, n_docs: int) -> None:
    """Build the index that shards of ``n_docs`` documents share the trained state of; what a worker runs."""
    if _is_finished(task.folder):
        return
    n_sampled = min(task.last, n_docs, max(FEWEST_SAMPLED, min(MOST_SAMPLED, n_docs // 16)))
    step = task.last / n_sampled
    wanted = {int(step * number) for number in range(n_sampled)}
    documents = (each for number, each in enumerate(_documents(task)) if number in wanted)
    _build(task, documents, BufferLimits(growth=max(1.0, n_docs / n_sampled)))


def build_shard(task: ShardTask) -> BuildReport:
    """Build one shard, or see that it is finished; what a worker runs."""
    if _is_finished(task.folder):
        return BuildReport(n_added=0, n_resumed=manifests.read(task.folder).n_docs, finished=True)
    n_before = task.start.n_before if task.start else 0
    return _build(task, islice(_documents(task), task.first - n_before, task.last - n_before), None)


def give_statistics(folder: Path, statistics: dict[str, tuple[float, float]]) -> None:
    """Weigh BM25 fields of a shard by scale and average length of the whole collection; what a worker runs."""
    with Collection.open(folder) as collection:
        for name, (scale, average_length) in statistics.items():
            collection.give_statistics(name, scale=scale, average_length=average_length)
        collection.commit()


def _build(task: ShardTask, documents: Iterator[Document], limits: BufferLimits | None) -> BuildReport:
    shutil.rmtree(task.folder, ignore_errors=True)  # of a run that was interrupted
    return build_index(
        documents=documents, out=task.folder, encoders=task.encoders, search=task.search, split_long=task.split_long,
        device=task.device, reorder=task.reorder, like=task.seed, limits=limits,
    )  # fmt: skip


def _documents(task: ShardTask) -> Iterator[Document]:
    bad, after = BadRecords() if task.skip_bad else None, task.start.position if task.start else None
    return read_corpus(list(task.sources), fields=task.fields, bad=bad, after=after)


def _is_finished(folder: Path) -> bool:
    try:
        return manifests.read(folder).build is None
    except (LexmaxError, IndexNotFoundError):
        return False


def _is_bm25(each: Any) -> bool:
    return bool(each.new_field().options.get("bm25"))


def _check_ids(folders: Sequence[Path]) -> None:
    """Raise DuplicateDocumentError for a doc_id that several shards have; each has its own once."""
    tables = [segment.documents.doc_ids.to_arrow() for folder in folders for segment in Snapshot.open(folder).segments]
    ids = pa.chunked_array(tables, pa.large_string())
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
        raise DuplicateDocumentError(twice, len(twice))


def bm25_statistics(
    folders: Sequence[Path], *, only_stale: bool = False
) -> list[tuple[Path, dict[str, tuple[float, float]]]]:  # fmt: skip
    """What the BM25 fields of each shard are to be weighed with: arguments of `give_statistics`.

    With ``only_stale`` of those fields that the commit of one index would weigh again: small ones whose average length has
    drifted; and of those that are weighed with several, as after an interruption.
    """
    shards = [Snapshot.open(folder) for folder in folders]
    given: dict[str, tuple[float, float]] = {}
    for name, first in shards[0].fields.items():
        if not isinstance(first, SparseField) or first.bm25 is None:
            continue
        fields: list[Any] = [shard.fields[name] for shard in shards]
        statistics = [field.statistics() for field in fields]
        average = sum(each.total_length for each in statistics) / max(1, sum(each.n_docs for each in statistics))
        weighed = SparseStatistics.merged(statistics).weighed_lengths
        if only_stale and len(weighed) < 2:
            n_postings = sum(segment.record.n_postings for field in fields for segment in field.segments)
            drift = max((abs(each / max(average, 1e-9) - 1) for each in weighed), default=0.0)
            if n_postings > REFITTED_POSTINGS or drift <= MAX_DRIFT:
                continue
        tops = [largest_bm25_weight(field.segments, field.bm25, average, live=True) for field in fields]
        given[name] = bm25_scale(max(tops)), average
    return [(folder, given) for folder in folders] if given else []


def _joined(reports: Sequence[BuildReport], bad: BadRecords | None, elapsed_s: float, compact_s: float) -> BuildReport:
    n_truncated: dict[str, int] = {}
    for report in reports:
        for name, n in report.n_truncated.items():
            n_truncated[name] = n_truncated.get(name, 0) + n
    return BuildReport(
        n_added=sum(report.n_added for report in reports), n_resumed=sum(report.n_resumed for report in reports),
        n_skipped=bad.n_records if bad else 0, n_truncated=n_truncated, n_split=sum(report.n_split for report in reports),
        foreign=tuple(dict.fromkeys(name for report in reports for name in report.foreign)),
        elapsed_s=elapsed_s, compact_s=compact_s,
    )  # fmt: skip
