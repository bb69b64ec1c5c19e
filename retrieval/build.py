"""From documents to an index: read, encode in one pass, add, commit; interrupted builds continue where they were."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..index.arguments import path_of
from ..index.collection import BufferLimits, Collection
from ..index.document_buffer import DocumentColumns
from ..index.errors import DatasetError, DuplicateDocumentError, IndexNotFoundError
from ..index.fde.field import source_of
from ..index.manifest import BuildState, Manifest
from ..index.manifest import read as read_manifest
from ..index.representations import Vectors
from .corpora.objects import as_documents
from .corpora.passages import passages_of
from .corpora.reading import BadRecords, Corpus, Fields, read_corpus
from .encoders.base import Encoder
from .encoders.registry import check_encoder
from .encoders.shared_pass import SharedPass
from .encoders.specs import EncoderSpec
from .encoders.words import is_latin
from .fields import FieldEncoder, FieldEncoders, check_search, check_unfinished, field_encoders, index_encoders, is_same_field
from .models import DEFAULT_ENCODERS, SHIPPED
from .pipelines.defaults import default_search
from .progress import Progress

COMMIT_EVERY_S = 120.0
"""What a crash can cost at most: work since the last commit."""
MAX_BATCH = 32_768
BATCH_CHARS = 1 << 23
"""Documents that are encoded at once, and about how many characters they have."""
Source = str | os.PathLike[str]
Notice = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build or an addition did.

    Attributes
    ----------
    n_added, n_replaced, n_skipped, n_resumed : int
        Documents written, live ones replaced, malformed records left out, and records found done by an earlier run.
    n_truncated : dict of str to int
        Field -> documents of which its encoder read the beginning only.
    n_split : int
        Documents that were cut into passages, which ``n_added`` counts.
    foreign : tuple of str
        Fields whose models come with lexmax, which were trained on English, where most documents are in another script.
    finished : bool
        The index was finished by an earlier run of the same build: nothing was done.
    elapsed_s, compact_s : float
        Reading, encoding and writing; merging and reordering at the end.
    """

    n_added: int
    n_replaced: int = 0
    n_skipped: int = 0
    n_resumed: int = 0
    n_truncated: dict[str, int] = field(default_factory=dict)
    n_split: int = 0
    foreign: tuple[str, ...] = ()
    finished: bool = False
    elapsed_s: float = 0.0
    compact_s: float = 0.0


def build_index(
    sources: Source | Sequence[Source] | None = None, out: Source | None = None, *,
    documents: Iterable[Any] | None = None, encoders: Sequence[str | EncoderSpec] | FieldEncoders | None = None,
    search: str | None = None, fields: Fields | None = None, bad: BadRecords | None = None,
    progress: Progress | None = None, notice: Notice | None = None, commit_every_s: float = COMMIT_EVERY_S,
    limits: BufferLimits | None = None, reorder: bool | None = None, split_long: bool = False, device: str = "cpu",
    like: Source | None = None,
) -> BuildReport:  # fmt: skip
    """Build an index; run again after an interruption, a build from files continues after the last commit.

    Parameters
    ----------
    sources : path, or sequence of paths, or None
        What `corpora.reading.read_corpus` takes: files, folders, ``-``, ``ir_datasets:`` ids.
    out : path
        The folder of the new index.
    documents : iterable or None
        Instead of ``sources``: what `corpora.objects.as_documents` takes, such as strings, dicts, `Document` objects, a
        pandas or Arrow table. They are committed together.
    encoders : sequence or mapping, or None
        The vector fields; see `fields.field_encoders`. None: BM25 and the sparse and token models that come with lexmax.
    search : str or None
        The default search expression; None: `pipelines.defaults.default_search` of the fields.
    fields : Fields or None
        Which keys of records hold what; None: they are recognised.
    bad : BadRecords or None
        Collects malformed and duplicate records and continues; None: the first one is an error.
    progress : callable or None
        Called with the number of documents done.
    notice : callable or None
        Called with a sentence about what was recognised or decided.
    commit_every_s : float
        Seconds between commits.
    limits : BufferLimits or None
        Memory of the writer.
    reorder : bool or None
        See `Collection.compact`.
    split_long : bool
        Cut documents that are longer than an encoder reads into passages (see `corpora.passages`).
    device : str
        Where models run.
    like : path or None
        An index whose trained state the new one shares; see `Collection.create`.

    Raises
    ------
    FileExistsError
        ``out`` holds an index of something else, or an unfinished one of another corpus.
    DatasetError, DuplicateDocumentError
        Malformed or duplicate records; what was committed stays, and the corrected corpus can continue.
    EncoderMismatchError
        An unfinished build was made by another encoder.
    """
    if out is None:
        raise TypeError("build_index needs out, the folder of the new index")
    if (sources is None) == (documents is None):
        raise TypeError("build_index takes sources (files) or documents (Python objects), one of them")
    names = None if sources is None else source_names(sources)
    _check_fields(fields)
    chosen = field_encoders(DEFAULT_ENCODERS if encoders is None else encoders, device=device)
    if not chosen:
        raise ValueError("an index needs at least one vector field: give encoders")
    made = {name: each.encoder for name, each in chosen.items() if each.encoding is None}
    expression = default_search(made) if search is None else search
    check_search(expression, chosen)
    path = path_of(out, "out")
    finished = _finished(path, names, chosen)
    if finished is not None:
        return BuildReport(n_added=0, n_resumed=finished.n_docs, finished=True)
    with _open_or_create(path, names, chosen, expression, limits, like) as collection:
        corpus = _corpus(names, documents, fields, bad, notice)
        writer = _Writer(collection, made, bad, progress, split_long=split_long)
        report = writer.run(corpus, names, commit_every_s)
        start = time.monotonic()
        collection.compact(reorder=reorder)
        collection.build = None
        collection.corpus = {"sources": names, "fields": None if corpus.fields is None else asdict(corpus.fields)}
        collection.commit()
    return replace(report, compact_s=time.monotonic() - start)


def add_to_index(
    sources: Source | Sequence[Source] | None = None, path: Source | None = None, *, documents: Iterable[Any] | None = None,
    encoders: Mapping[str, Encoder] | None = None, models: Mapping[str, str] | None = None, device: str = "cpu",
    replace: bool = False, fields: Fields | None = None, bad: BadRecords | None = None, progress: Progress | None = None,
    notice: Notice | None = None,
) -> BuildReport:  # fmt: skip
    """Add documents to an index in one commit, in all its fields: all documents or, after an error, none.

    Parameters
    ----------
    sources, documents, fields, bad, progress, notice, device
        Those of `build_index`; ``fields`` None: of files the keys that the index was
        built with, of objects the recognised ones.
    path : path
        The index folder.
    encoders : mapping of str to Encoder, or None
        Encoders at hand, by field; the others are loaded.
    models : mapping of str to str, or None
        Where models of fields are now, when they have moved.
    replace : bool
        Delete live documents of the same doc_id first.

    Raises
    ------
    EncoderMismatchError
        A field was made by another encoder.
    IndexNotFoundError, IndexFormatError, IndexLockedError, DatasetError, DuplicateDocumentError
    """
    if path is None:
        raise TypeError("add_to_index needs path, the folder of the index")
    if (sources is None) == (documents is None):
        raise TypeError("add_to_index takes sources (files) or documents (Python objects), one of them")
    _check_fields(fields)
    with Collection.open(path_of(path)) as collection:
        every = collection.manifest.fields
        records = {name: every[name] for name in collection.fields if source_of(every, name) is None}
        known = dict(encoders or {})
        for name in known.keys() & records.keys():
            check_encoder(records[name].encoder, known[name])
        missing = {name: record for name, record in records.items() if name not in known}
        used = {**known, **index_encoders(missing, models=models, device=device)}
        if sources is not None and fields is None and collection.corpus and collection.corpus.get("fields"):
            fields = Fields.from_dict(collection.corpus["fields"])
        corpus = _corpus(None if sources is None else source_names(sources), documents, fields, bad, notice)
        writer = _Writer(collection, {name: used[name] for name in records}, bad, progress, replace=replace)
        report = writer.run(corpus, None, float("inf"))
        collection.commit()
    return report


def _check_fields(fields: Fields | None) -> None:
    if fields is not None and not isinstance(fields, Fields):
        raise TypeError(f"fields are a Fields, as in Fields(text=('body',)), not {type(fields).__name__}")


def source_names(sources: Source | Sequence[Source]) -> list[str]:
    """Names of one source or several, paths of any kind, as strings; TypeError for anything else, ValueError for none."""
    one = isinstance(sources, str | bytes | Mapping) or not isinstance(sources, Iterable)
    given: Iterable[Any] = [sources] if one else sources  # type: ignore[assignment]
    names = []
    for path in given:
        if not isinstance(path, str | os.PathLike):
            kind = type(path).__name__
            raise TypeError(f"sources are paths of files and folders, not {kind}: Python objects go to documents=[...]")
        names.append(os.fspath(path))
    if not names:
        raise ValueError("there are no sources: name a file or a folder")
    return names


def _corpus(
    names: list[str] | None,
    documents: Iterable[Any] | None,
    fields: Fields | None,
    bad: BadRecords | None,
    notice: Notice | None,
) -> Corpus:
    """Open files, or else Python objects."""
    if names is not None:
        return read_corpus(names, fields=fields, bad=bad, notice=notice)
    return as_documents(() if documents is None else documents, fields, bad=bad, notice=notice)


def _finished(path: Path, names: list[str] | None, chosen: Mapping[str, FieldEncoder]) -> Manifest | None:
    """Manifest of an index that an earlier run of the same build finished, None when there is none.

    Raises FileExistsError for an index of something else.
    """
    try:
        manifest = read_manifest(path)
    except IndexNotFoundError:
        return None
    if manifest.build is not None:
        return None
    same_sources = names is not None and manifest.corpus is not None and manifest.corpus.get("sources") == names
    if same_sources and all(
        name in manifest.fields and is_same_field(manifest.fields[name], each) for name, each in chosen.items()
    ):
        return manifest
    raise FileExistsError(f"{path} holds an index already: remove it, choose another folder, or use `lexmax add`")


def _open_or_create(
    out: Path, names: list[str] | None, chosen: Mapping[str, FieldEncoder], search: str, limits: BufferLimits | None,
    like: Source | None,
) -> Collection:  # fmt: skip
    try:
        manifest = read_manifest(out)
    except IndexNotFoundError:
        created = {name: each.new_field() for name, each in chosen.items()}
        return Collection.create(
            out, created, search=search, limits=limits, like=None if like is None else path_of(like, "like")
        )
    state = manifest.build
    if state is None or names is None or state.sources != names:
        done = "something else" if state is None else " ".join(state.sources)
        raise FileExistsError(f"{out} holds an unfinished build of {done}: run that again to finish it, or remove it")
    if set(manifest.fields) != set(chosen):
        raise FileExistsError(
            f"{out} holds an unfinished build with the fields {', '.join(manifest.fields)}, not {', '.join(chosen)}: "
            "run that again to finish it, or remove it"
        )
    for name, each in chosen.items():
        check_unfinished(f"{out}, {name}", manifest.fields[name], each)
    return Collection.open(out, limits=limits)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Have Python look for cycles among objects once per 100,000: a batch has many, and none of them is in a cycle."""
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], 100_000) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Writer:
    """One pass over documents into a collection."""

    def __init__(
        self, collection: Collection, encoders: Mapping[str, Encoder], bad: BadRecords | None, progress: Progress | None, *,
        replace: bool = False, split_long: bool = False,
    ) -> None:  # fmt: skip
        self._collection, self._bad, self._progress, self._replace = collection, bad, progress, replace
        self._shared = SharedPass(encoders)
        self._cutting = {name: each for name, each in encoders.items() if hasattr(each, "n_truncated")}
        if split_long and not self._cutting:
            raise ValueError(f"encoders {', '.join(encoders)} read documents whole: there is nothing to split")
        self._split_long = split_long
        self._batch_size = (
            128 if self._cutting else MAX_BATCH
        )  # neural encoders are slow: progress is shown and saved more often
        self._n_truncated = dict.fromkeys(self._cutting, 0)
        self._english = tuple(name for name, each in encoders.items() if each.settings.get("model") in SHIPPED)
        self._n_foreign = 0
        self._n_split = self._n_done = self._n_added = self._n_replaced = 0
        self._last_id = ""
        self._n_saved = 0
        self._is_whole = True  # False while a batch is in part added and not yet counted

    def run(self, documents: Corpus, sources: list[str] | None, commit_every_s: float) -> BuildReport:
        """Add ``documents``; with ``sources``, commit progress as it goes and skip what an earlier run committed."""
        start = last_commit = time.monotonic()
        n_resumed = self._skip_done(documents)
        self._n_done = self._n_saved = n_resumed
        if self._progress:
            self._progress(n_resumed)
        try:
            with seldom_collected():
                for batch, places in documents.batches(self._batch_size, BATCH_CHARS):
                    self._add(batch, places)
                    if self._progress:
                        self._progress(self._n_done)
                    if sources is not None and time.monotonic() - last_commit >= commit_every_s:
                        self._save(sources)
                        last_commit = time.monotonic()
        except KeyboardInterrupt:
            if sources is not None and self._is_whole and self._n_done > self._n_saved:
                self._save(sources)
            raise
        return BuildReport(
            n_added=self._n_added, n_replaced=self._n_replaced, n_skipped=self._bad.n_records if self._bad else 0,
            n_resumed=n_resumed, n_truncated={name: n for name, n in self._n_truncated.items() if n},
            n_split=self._n_split, foreign=self._english if 2 * self._n_foreign > self._n_added else (),
            elapsed_s=time.monotonic() - start,
        )  # fmt: skip

    def _save(self, sources: list[str]) -> None:
        self._is_whole = False
        self._collection.build = BuildState(sources=sources, n_records=self._n_done, last_doc_id=self._last_id)
        self._collection.commit()
        self._n_saved, self._is_whole = self._n_done, True

    def _skip_done(self, documents: Corpus) -> int:
        """Pass over what an unfinished build has committed, and see that the corpus is still the same there."""
        state = self._collection.build
        if state is None:
            return 0
        last = None
        for n, document in enumerate(documents, 1):
            if n == state.n_records:
                last = document.doc_id
                break
        if last != state.last_doc_id:
            raise DatasetError(
                f"document {state.n_records} is {last!r}, but was {state.last_doc_id!r} when the build was interrupted: "
                "the corpus has changed; remove the unfinished index and build again",
                path=state.sources[0],
            )
        return state.n_records

    def _add(self, batch: DocumentColumns, places: Sequence[tuple[str, int]]) -> None:
        n_records, last_id = len(batch), batch.doc_ids[-1]
        if self._split_long:
            pieces = [list(passages_of(document, self._reads_whole)) for document in batch]
            self._n_split += sum(len(each) > 1 for each in pieces)
            batch = DocumentColumns.of([passage for each in pieces for passage in each])
            places = [place for each, place in zip(pieces, places, strict=True) for _ in each]
        texts = batch.contents
        for name, encoder in self._cutting.items():
            self._n_truncated[name] += encoder.n_truncated(texts)
        if self._english:
            self._n_foreign += sum(not is_latin(text) for text in texts)
        vectors = self._shared.encode_documents(texts)
        self._is_whole = False
        try:
            self._n_replaced += self._collection.add(batch, vectors, replace=self._replace)
            self._n_added += len(batch)
        except (DatasetError, DuplicateDocumentError):
            self._add_one_by_one(batch, places, vectors)
        self._n_done, self._last_id = self._n_done + n_records, last_id
        self._is_whole = True

    def _add_one_by_one(
        self, batch: DocumentColumns, places: Sequence[tuple[str, int]], vectors: Mapping[str, Vectors]
    ) -> None:  # fmt: skip
        """Find the documents at fault: raise the first one's error with its place, or list them and leave them out."""
        for i, (document, (path, line)) in enumerate(zip(batch, places, strict=True)):
            rows = {name: each.select(np.array([i])) for name, each in vectors.items()}
            try:
                self._n_replaced += self._collection.add([document], rows, replace=self._replace)
                self._n_added += 1
            except (DatasetError, DuplicateDocumentError) as problem:
                if self._bad is not None:
                    self._bad.add(path, line, str(problem))
                elif isinstance(problem, DuplicateDocumentError):
                    where = f"{path}, line {line}: "
                    raise DuplicateDocumentError(problem.doc_ids, problem.n_duplicates, where=where) from problem
                else:
                    raise DatasetError(str(problem), path=path, line=line) from problem

    def _reads_whole(self, text: str) -> bool:
        return not any(encoder.n_truncated([text]) for encoder in self._cutting.values())
