"""From a corpus to an index: read, encode, add, commit; interrupted builds go on where they were."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ..index.collection import BufferLimits, Collection
from ..index.documents import Document
from ..index.errors import DatasetError, DuplicateDocumentError, IndexNotFoundError
from ..index.manifest import BuildState, EncoderRecord
from ..index.manifest import read as read_manifest
from ..index.multivector.tokens import MultiVectorConfig
from .corpora.passages import passages_of
from .corpora.reading import BadRecords, Fields, read_corpus
from .encoders.base import Encoder, MultiVectorEncoder, as_sparse, makes_sparse_tokens, makes_tokens
from .encoders.lexical import LexicalEncoder
from .encoders.registry import check_encoder
from .progress import Progress

COMMIT_EVERY_S = 120.0
"""What a crash can cost at most: work since the last commit."""


@dataclass(frozen=True, kw_only=True)
class TokenStorage:
    """How an index keeps token vectors; the fields of `index.tokens.MultiVectorConfig`, whose ``dim`` is the encoder's."""

    nbits: int = 2
    exact: bool = True
    n_centroids: int | None = None

    def config(self, dim: int) -> MultiVectorConfig:
        """Return what the index of an encoder of this dim is created with."""
        return MultiVectorConfig(dim=dim, nbits=self.nbits, exact=self.exact, n_centroids=self.n_centroids)


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build or an add did.

    Attributes
    ----------
    n_added, n_replaced, n_skipped, n_resumed, n_truncated : int
        Documents written, live ones replaced, malformed records left out, documents found done by an earlier run, and
        documents of which the encoder of token vectors read the beginning only.
    n_split : int
        Documents that were cut into passages, which ``n_added`` counts.
    elapsed_s, compact_s : float
        Reading, encoding and writing; merging and reordering at the end.
    """

    n_added: int
    n_replaced: int
    n_skipped: int
    n_resumed: int
    n_truncated: int = 0
    n_split: int = 0
    elapsed_s: float
    compact_s: float = 0.0


def build_index(
    sources: Sequence[str], out: Path | str, *, encoder: Encoder | None = None, fields: Fields | None = None,
    bad: BadRecords | None = None, progress: Progress | None = None, commit_every_s: float = COMMIT_EVERY_S,
    limits: BufferLimits | None = None, reorder: bool | None = None, tokens: TokenStorage | None = None,
    split_long: bool = False,
) -> BuildReport:  # fmt: skip
    """Build an index from corpora; run again after an interruption, it goes on after the last commit.

    Parameters
    ----------
    sources : sequence of str
        What `corpus.read_corpus` takes: files, folders, ``-``, ``ir_datasets:`` ids.
    out : Path or str
        The index folder, made anew.
    encoder : Encoder or None
        None: BM25 with its defaults.
    fields : Fields or None
        Which keys hold what in JSON lines and Parquet.
    bad : BadRecords or None
        Collects malformed and duplicate records and goes on; None: the first one is an error.
    progress : callable or None
        Called with the number of documents done.
    commit_every_s : float
        Seconds between commits.
    limits : BufferLimits or None
        Memory of the writer.
    reorder : bool or None
        See `Collection.compact`.
    tokens : TokenStorage or None
        How token vectors are kept, for encoders that make them.
    split_long : bool
        Cut documents that are longer than an encoder of token vectors reads into passages (see `passages`); else it reads
        their beginnings.

    Raises
    ------
    FileExistsError
        ``out`` holds a finished index, or an unfinished one of another corpus.
    DatasetError, DuplicateDocumentError
        Malformed or duplicate records; what was committed stays, and the corrected corpus can go on.
    EncoderMismatchError
        An unfinished build was made by another encoder.
    """
    encoder = encoder or LexicalEncoder()
    with _open_or_create(Path(out), sources, encoder, limits, tokens) as collection:
        writer = _Writer(collection, encoder, bad, progress, replace=False, split_long=split_long)
        report = writer.run(read_corpus(sources, fields=fields, bad=bad), list(sources), commit_every_s)
        start = time.monotonic()
        collection.compact(reorder=reorder)
        collection.build = None
        collection.commit()
    return replace(report, compact_s=time.monotonic() - start)


def add_to_index(
    sources: Sequence[str], path: Path | str, encoder: Encoder, *, replace: bool = False, fields: Fields | None = None,
    bad: BadRecords | None = None, progress: Progress | None = None,
) -> BuildReport:  # fmt: skip
    """Add corpora to an index in one commit: all documents or, after an error, none.

    Parameters are those of `build_index`; ``replace`` deletes live documents of the same doc_id.

    Raises
    ------
    EncoderMismatchError
        The index was made by another encoder.
    IndexNotFoundError, IndexFormatError, IndexLockedError, DatasetError, DuplicateDocumentError
    """
    with Collection.open(path) as collection:
        check_encoder(collection.manifest.encoder, encoder)
        writer = _Writer(collection, encoder, bad, progress, replace=replace)
        report = writer.run(read_corpus(sources, fields=fields, bad=bad), None, float("inf"))
        collection.commit()
    return report


def encoder_record(encoder: Encoder) -> EncoderRecord:
    """Return what the manifest keeps of an encoder."""
    return EncoderRecord(kind=encoder.kind, fingerprint=encoder.fingerprint, settings=dict(encoder.settings))


def _open_or_create(
    out: Path, sources: Sequence[str], encoder: Encoder, limits: BufferLimits | None, tokens: TokenStorage | None
) -> Collection:
    try:
        state = read_manifest(out).build
    except IndexNotFoundError:
        record = encoder_record(encoder)
        if makes_tokens(encoder):
            config = (tokens or TokenStorage()).config(encoder.dim)
            return Collection.create(out, encoder=record, multivector=config, limits=limits)
        if tokens is not None:
            raise ValueError(f"encoder {encoder.kind} makes sparse vectors: nbits and centroids are for dense ones") from None
        if makes_sparse_tokens(encoder):
            return Collection.create(
                out, encoder=record, sparse_tokens=True, vocabulary=encoder.vocabulary, limits=limits
            )  # fmt: skip
        bm25 = encoder.bm25 if isinstance(encoder, LexicalEncoder) else None
        vocabulary = as_sparse(encoder).vocabulary
        return Collection.create(out, encoder=record, bm25=bm25, vocabulary=vocabulary, limits=limits)
    if state is None:
        raise FileExistsError(f"{out} holds an index already: remove it, choose another folder, or use `lexmax add`")
    if state.sources != list(sources):
        raise FileExistsError(
            f"{out} holds an unfinished build of {' '.join(state.sources)}: run that again to finish it, or remove it"
        )
    collection = Collection.open(out, limits=limits)
    try:
        check_encoder(collection.manifest.encoder, encoder)
    except BaseException:
        collection.close()
        raise
    return collection


class _Writer:
    """One pass over a corpus into a collection."""

    def __init__(
        self, collection: Collection, encoder: Encoder, bad: BadRecords | None, progress: Progress | None, *, replace: bool,
        split_long: bool = False,
    ) -> None:  # fmt: skip
        if split_long and not makes_tokens(encoder):
            raise ValueError(f"encoder {encoder.kind} makes one vector a document: long documents are split for token vectors")
        self._split_long = split_long
        self._collection, self._encoder, self._bad = collection, encoder, bad
        self._progress, self._replace = progress, replace
        self._batch_size = 4096 if getattr(encoder, "vocabulary", ()) is None else 256  # BM25 is fast
        self._n_truncated = self._n_split = 0
        self._n_done = self._n_added = self._n_replaced = 0

    def run(self, documents: Iterator[Document], sources: list[str] | None, commit_every_s: float) -> BuildReport:
        """Add ``documents``; with ``sources``, commit progress as it goes and skip what an earlier run committed."""
        start = last_commit = time.monotonic()
        n_resumed = self._skip_done(documents)
        self._n_done = n_resumed
        last_id = ""
        try:
            while batch := list(islice(documents, self._batch_size)):
                self._add(batch)
                self._n_done += len(batch)
                last_id = batch[-1].doc_id
                if self._progress:
                    self._progress(self._n_done)
                if sources is not None and time.monotonic() - last_commit >= commit_every_s:
                    self._save(sources, last_id)
                    last_commit = time.monotonic()
        except KeyboardInterrupt:
            if sources is not None and last_id:
                self._save(sources, last_id)
            raise
        n_skipped = self._bad.n_records if self._bad else 0
        return BuildReport(
            n_added=self._n_added, n_replaced=self._n_replaced, n_skipped=n_skipped, n_resumed=n_resumed,
            n_truncated=self._n_truncated, n_split=self._n_split, elapsed_s=time.monotonic() - start,
        )  # fmt: skip

    def _save(self, sources: list[str], last_id: str) -> None:
        self._collection.build = BuildState(sources=sources, n_records=self._n_done, last_doc_id=last_id)
        self._collection.commit()

    def _skip_done(self, documents: Iterator[Document]) -> int:
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

    def _add(self, batch: Sequence[Document]) -> None:
        encoder = self._encoder
        if makes_tokens(encoder):
            n_long = encoder.n_truncated([document.content for document in batch])
            if n_long and self._split_long:
                self._n_split += n_long
                batch = [passage for document in batch for passage in passages_of(document, _whole(encoder))]
            else:
                self._n_truncated += n_long
        texts = [document.content for document in batch]
        vectors = self._encoder.encode_documents(texts)
        try:
            self._n_replaced += self._collection.add(batch, vectors, replace=self._replace)
            self._n_added += len(batch)
        except (DatasetError, DuplicateDocumentError):
            if self._bad is None:
                raise
            for i, document in enumerate(batch):  # find and leave out the documents at fault
                try:
                    row = vectors.select(np.array([i]))
                    self._n_replaced += self._collection.add([document], row, replace=self._replace)
                    self._n_added += 1
                except (DatasetError, DuplicateDocumentError) as problem:
                    self._bad.add("document", self._n_done + i + 1, str(problem))


def _whole(encoder: MultiVectorEncoder) -> Callable[[str], bool]:
    """Make the question whether the encoder reads a text whole."""
    return lambda text: not encoder.n_truncated([text])
