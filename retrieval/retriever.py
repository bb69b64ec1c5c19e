"""The retriever: text in, documents out. What Python programs, the command line, the server and the evaluation use."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from ..index.arguments import count_of, mapping_of, path_of, texts_of
from ..index.arrays import Mask
from ..index.collection import Collection
from ..index.documents import Document
from ..index.errors import RepresentationError
from ..index.fde.field import source_of
from ..index.manifest import FieldRecord
from ..index.multivector.placement import TokenStorage
from ..index.nearest import did_you_mean
from ..index.representations import Vectors
from .build import add_to_index, build_index
from .encoders.base import Encoder
from .encoders.registry import check_encoder
from .encoders.shared_pass import SharedPass
from .feedback.clicks import Impression
from .feedback.log import ClickLog
from .feedback.moving import NO_NOTES, Choice, Feedback, Notes, check_movable, rocchio_of
from .fields import index_encoder
from .pipelines.explaining import explain_hits
from .pipelines.expression import Search, parse
from .pipelines.pipeline import Answer, Pipeline
from .results import Result, Results
from .searchers.registry import ENCODERS, FieldSearcher, field_searcher
from .shards.changing import add_to_shards, delete_from_shards
from .shards.searcher import ShardRequest
from .shards.snapshot import AnySnapshot, ShardedSnapshot, newest_commit, open_snapshot
from .steering import Boost, boosted, boosts_by_field

N_CORES = os.cpu_count() or 1
MAX_PIPELINES = 64
OPTIONS_FORM = '{"colbert": {"n_probe": 64}}'
Filter = str | Mapping[str, Any]
Options = Mapping[str, Any]


@dataclass(eq=False)
class _State:
    """A snapshot with the searchers of its fields and the pipelines of expressions; replaced as a whole at a reload."""

    snapshot: AnySnapshot
    searchers: dict[str, FieldSearcher] = field(default_factory=dict)
    pipelines: OrderedDict[str, Pipeline] = field(default_factory=OrderedDict)


class Retriever:
    """Answers queries from one index; make one with `open` or `from_texts`.

    Safe to use from many threads; a context manager. Each search uses the commit that was opened, until `reload`. A pickled or
    copied retriever opens the index again by its path.
    """

    def __init__(
        self, snapshot: AnySnapshot, *, search: str | None = None, encoders: Mapping[str, Encoder] | None = None,
        models: Mapping[str, str] | None = None, device: str = "cpu", options: Options | None = None, exhaustive: bool = False,
        storage: TokenStorage | None = None, clicks: ClickLog | Path | str | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(snapshot, AnySnapshot):
            raise TypeError(f"a Retriever is made of a Snapshot, not {type(snapshot).__name__}: use Retriever.open(path)")
        self._given = mapping_of(encoders, "encoders", "{FIELD: encoder}")
        self._models, self._device = mapping_of(models, "models", "{FIELD: folder or id}"), device
        self._search, self._options, self._exhaustive = search, mapping_of(options, "options", OPTIONS_FORM), exhaustive
        self._storage = storage
        self._encoders: dict[str, Encoder] = {}
        self._lock, self._encoder_lock, self._reload_lock = threading.RLock(), threading.Lock(), threading.Lock()
        self._feedback = None if clicks is None else Feedback(clicks if isinstance(clicks, ClickLog) else ClickLog(clicks))
        self._state: _State | None = _State(snapshot)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        given: list[tuple[Mapping[str, Any], str]] = [
            (self._given, "an encoder"), (self._models, "a model"), (self._options, "options")
        ]  # fmt: skip
        for names, what in given:
            for name in names:
                if name not in snapshot.manifest.fields:
                    known = snapshot.manifest.fields
                    hint = f"the fields are {', '.join(known)}{did_you_mean(str(name), known)}"
                    raise ValueError(f"{snapshot.path}: {what} for the field {name!r}; {hint}")
        for name, encoder in self._given.items():
            check_encoder(snapshot.manifest.fields[name].encoder, encoder)
        pipeline = self._pipeline(self._current(), None)
        pipeline.options(self._options_of(pipeline, None))
        self.encoders(list(pipeline.search.fields))

    @classmethod
    def open(
        cls, path: Path | str, *, search: str | None = None, encoders: Mapping[str, Encoder] | None = None,
        models: Mapping[str, str] | None = None, device: str = "cpu", options: Options | None = None, exhaustive: bool = False,
        clicks: ClickLog | Path | str | None = None, verify: bool = False, warm: bool = False,
        storage: TokenStorage | str | None = None,
    ) -> Retriever:  # fmt: skip
        """Open the newest commit of an index and the encoders of its default search.

        Parameters
        ----------
        path : Path or str
            The folder of an index, or of a set of shards.
        search : str or None
            The search expression of queries that bring none; None: the index's own.
        encoders : mapping of str to Encoder, or None
            Encoders at hand, by field; the others are loaded when a search names their field.
        models : mapping of str to str, or None
            Where models of fields are now, when they have moved.
        device : str
            Where models run.
        options : mapping, or None
            Field -> options of its search, for queries that bring none of their own for the field.
        exhaustive : bool
            Score every document with every field: the oracle.
        clicks : ClickLog, path or None
            A click log, for searches with ``feedback`` and for `log_clicks`.
        verify : bool
            See `Snapshot.open`.
        warm : bool
            Load the kernels and models now, not at the first query.
        storage : TokenStorage, str or None
            Where records of token vectors are, or the name of the place; None: `TokenStorage`'s defaults.

        Raises
        ------
        IndexNotFoundError, IndexFormatError
            No index there, or a damaged one.
        StorageError
            The system refuses something, such as the backend that ``storage`` names.
        EncoderMismatchError
            An encoder is not the one that made its field.
        RepresentationError, ValueError
            A search that does not fit the fields, or unknown options.
        DatasetError
            There is no click log.
        """
        chosen = storage if isinstance(storage, TokenStorage) else TokenStorage(place="auto" if storage is None else storage)
        snapshot = open_snapshot(path_of(path), verify=verify, storage=chosen)
        retriever = cls(
            snapshot, search=search, encoders=encoders, models=models, device=device, options=options, exhaustive=exhaustive,
            storage=chosen, clicks=clicks,
        )  # fmt: skip
        if warm:
            retriever.warm()
        return retriever

    @classmethod
    def from_texts(
        cls, documents: Iterable[Any], *, encoders: Any = None, search: str | None = None, **open_options: Any
    ) -> Retriever:
        """Index documents in a temporary folder, which goes when the retriever is closed.

        Parameters
        ----------
        documents : iterable
            What `build_index` takes as ``documents``: strings, dicts, `Document` objects, a pandas or Arrow table.
        encoders, search
            Those of `build_index`; None: the default fields and search.
        **open_options
            Those of `open`.

        >>> with Retriever.from_texts(["cats purr", "dogs bark"], encoders=["bm25"]) as retriever:
        ...     retriever.search("cats")[0].text
        'cats purr'
        """
        folder = tempfile.TemporaryDirectory(prefix="lexmax-")
        try:
            path = Path(folder.name) / "index"
            build_index(documents=documents, out=path, encoders=encoders, search=search)
            retriever = cls.open(path, **open_options)
        except BaseException:
            folder.cleanup()
            raise
        retriever._folder = folder
        return retriever

    def search(
        self, text: str, k: int = 10, *, search: str | None = None, filter: Filter | None = None,
        options: Options | None = None, boost: Boost | None = None, feedback: Choice = None, explain: bool = False,
        timings: bool = False, partial: bool = False,
    ) -> Results:  # fmt: skip
        """Answer one query; see `search_batch`."""
        if not isinstance(text, str):
            raise TypeError(f"a query is a string, not {type(text).__name__}; search_batch takes several")
        return self.search_batch(
            [text], k, search=search, filter=filter, options=options, boost=boost, feedback=feedback, explain=explain,
            timings=timings, partial=partial,
        )[0]  # fmt: skip

    async def asearch(self, text: str, k: int = 10, **keywords: Any) -> Results:
        """Answer one query in a thread of the event loop; parameters are those of `search`."""
        import asyncio

        return await asyncio.to_thread(self.search, text, k, **keywords)

    def search_batch(
        self, texts: Sequence[str], k: int = 10, *, search: str | None = None, filter: Filter | None = None,
        options: Options | None = None, boost: Boost | None = None, feedback: Choice = None, explain: bool = False,
        timings: bool = False, partial: bool = False, n_threads: int | None = None,
    ) -> list[Results]:  # fmt: skip
        """Answer queries, best documents first.

        Parameters
        ----------
        texts : sequence of str
        k : int
            Answers per query; fewer only when fewer documents are found.
        search : str or None
            A search expression, see `pipelines.expression`; None: the retriever's.
        filter : str, mapping or None
            An expression over metadata, such as ``year >= 2015 and lang == "en"``, or the same as a tree; see `index.filters`.
        options : mapping or None
            Field -> options of its search, as ``{"colbert": {"n_probe": 64}}``.
        boost : mapping or None
            Term -> how heavy it is in the queries, times their heaviest term; 0 leaves it out. See `steering`.
        feedback : bool, mapping, Rocchio or None
            Move the queries of dense, fde and sparse fields by the clicks of the retriever's log; the log is read when the
            retriever is opened, and at `reload`. A mapping has options of `rocchio.Rocchio`, as ``{"eta": 0.5}``.
        explain : bool
            Explain each score, stage by stage.
        timings : bool
            Give the milliseconds of each stage, of the whole batch, and what it read from disk.
        partial : bool
            Of a set of shards on Ray: answer without shards that fail, and name them in `Results.missing_shards`. A shard that
            fails after it was searched, while it reranks or reads texts, is an error all the same.
        n_threads : int or None
            Queries searched in parallel; None: one per core.

        Raises
        ------
        ValueError, TypeError
            k < 1, a malformed expression or filter, unknown options, a boost of a term that no field has, or feedback where
            there is no click log, or no field whose queries it moves.
        RepresentationError
            The expression names a field that the index does not have.
        """
        start = time.perf_counter()
        texts, k = texts_of(texts, "queries"), count_of(k, "k")
        search = self.default_search if search is None else search  # once: a reload may replace it between the two steps
        queries = self.encode(texts, search)
        encoded_ms = (time.perf_counter() - start) * 1000
        found = self.search_vectors(
            queries, texts, k, search=search, filter=filter, options=options, boost=boost, feedback=feedback, explain=explain,
            timings=timings, partial=partial, n_threads=n_threads,
        )  # fmt: skip
        if timings:
            for results in found:
                results.timings_ms = {"encode": encoded_ms, **results.timings_ms}
        return found

    def encode(self, texts: Sequence[str], search: str | None = None) -> dict[str, Vectors]:
        """Encode queries for the fields of a search, to be searched by `search_vectors`: field -> vectors."""
        texts = texts_of(texts, "queries")
        state = self._current()
        names = self._pipeline(state, search).search.fields
        sources = {name: source_of(state.snapshot.manifest.fields, name) or name for name in names}
        encoded = SharedPass(self.encoders(list(dict.fromkeys(sources.values())))).encode_queries(texts)
        return {name: encoded[source] for name, source in sources.items()}

    def search_vectors(
        self, queries: Any, texts: Sequence[str] | None = None, k: int = 10, *, search: str | None = None,
        filter: Filter | None = None, options: Options | None = None, boost: Boost | None = None, feedback: Choice = None,
        explain: bool = False, timings: bool = False, partial: bool = False, n_threads: int | None = 1,
        checkpoint: Callable[[], None] | None = None,
    ) -> list[Results]:  # fmt: skip
        """Answer queries that are vectors already.

        Parameters
        ----------
        queries : mapping of str to vectors, or vectors
            Field -> queries, as `encode` returns them; of a search of one field the vectors alone: whatever
            `exchange.vectors.to_sparse_vectors` takes, `MultiVectors` or matrices (n_tokens, dim).
        texts : sequence of str or None
            What they were made from, which explanations compare with, and by which logged queries are known; None: unknown.
        checkpoint : callable or None
            Called before each explanation, the dearest part of a search; what it raises ends it.

        Other parameters and errors are those of `search_batch`.

        Raises
        ------
        TypeError, RepresentationError
            Vectors of another kind than the field's, or fields missing.
        ValueError
            Not as many texts as queries.
        """
        state, k = self._current(), count_of(k, "k")
        pipeline = self._pipeline(state, search)
        ready = self._ready(pipeline, queries)
        n_queries = len(next(iter(ready.values())))
        texts = [""] * n_queries if texts is None else texts_of(texts)
        if len(texts) != n_queries:
            raise ValueError(f"{n_queries} queries with {len(texts)} texts")
        ready, notes = self._steered(state, pipeline, ready, texts, boost, feedback)
        allowed = _allowed(state.snapshot, filter, partial)
        answer = self._run(pipeline, ready, k, allowed, options, n_threads, trace=explain)
        missing = sorted(allowed.missing) if isinstance(allowed, ShardRequest) else ()
        told = (answer.timings_ms if timings else None, answer.reads if timings else None, missing)
        found = []
        for number, text in enumerate(texts):
            doc_nums, scores = answer.hits.query(number)
            documents = state.snapshot.get_many(doc_nums.tolist())
            unreadable = answer.unreadable[number] if answer.unreadable else ()
            explanations: Sequence[Any] = [None] * len(documents)
            if explain:
                contents = [document.content for document in documents]
                noted = self._noted(pipeline, options, notes, number)
                explanations = explain_hits(pipeline, answer, ready, number, text, contents, checkpoint, noted)
            results = (
                Result(doc_id=document.doc_id, score=score, title=document.title, text=document.text,
                       metadata=document.metadata, explanation=explanation, unreadable=doc_num in unreadable)
                for document, score, explanation, doc_num in zip(
                    documents, scores.tolist(), explanations, doc_nums.tolist(), strict=True
                )
            )  # fmt: skip
            found.append(Results(results, *told))
        return found

    def rank(
        self, texts: Sequence[str], k: int = 10, *, search: str | None = None, filter: Filter | None = None,
        options: Options | None = None, boost: Boost | None = None, feedback: Choice = None, n_threads: int | None = None,
    ) -> list[list[tuple[str, float]]]:  # fmt: skip
        """(doc_id, score) of the k best documents of each query, without reading their texts."""
        texts, k = texts_of(texts, "queries"), count_of(k, "k")
        search = self.default_search if search is None else search  # as in `search_batch`
        state = self._current()
        pipeline = self._pipeline(state, search)
        ready, _ = self._steered(state, pipeline, self._ready(pipeline, self.encode(texts, search)), texts, boost, feedback)
        hits = self._run(pipeline, ready, k, _allowed(state.snapshot, filter), options, n_threads, trace=False).hits
        rankings = []
        for number in range(len(texts)):
            doc_nums, scores = hits.query(number)
            rankings.append(list(zip(state.snapshot.doc_ids(doc_nums.tolist()), scores.tolist(), strict=True)))
        return rankings

    def add(self, documents: Iterable[Any], *, replace: bool = False) -> int:
        """Add documents to the index in one commit, and search it from now on; returns how many were added.

        ``documents`` and ``replace`` are those of `build.add_to_index`.
        """
        state = self._current()
        names = [name for name, record in state.snapshot.manifest.fields.items() if record.complete]
        add = add_to_shards if isinstance(state.snapshot, ShardedSnapshot) else add_to_index
        report = add(None, state.snapshot.path, documents=documents, encoders=self.encoders(names), replace=replace)
        self.reload()
        return report.n_added

    def delete(self, doc_ids: Sequence[str]) -> list[str]:
        """Delete documents in one commit; returns the doc_ids that are not in the index."""
        snapshot = self._current().snapshot
        if isinstance(snapshot, ShardedSnapshot):
            missing = delete_from_shards(snapshot.path, doc_ids)
        else:
            with Collection.open(snapshot.path) as collection:
                missing = collection.delete(doc_ids)
                collection.commit()
        self.reload()
        return missing

    @property
    def clicks(self) -> ClickLog | None:
        """The click log, None without one."""
        return None if self._feedback is None else self._feedback.log

    def log_clicks(self, impressions: Iterable[Impression]) -> None:
        """Log what users saw and clicked, and search with it from now on; errors are those of `ClickLog.add`.

        Raises
        ------
        ValueError
            The retriever has no click log.
        """
        feedback = self._clicks()
        feedback.log.add(impressions)
        feedback.refresh()

    def document(self, doc_id: str) -> Document | None:
        """Return a live document by its doc_id, None when there is none."""
        return self.documents([doc_id])[0]

    def documents(self, doc_ids: Sequence[str]) -> list[Document | None]:
        """Return live documents by doc_id, None for each that is absent."""
        snapshot = self._current().snapshot
        found = snapshot.find(doc_ids)
        present = iter(snapshot.get_many(found[found >= 0].tolist()))
        return [next(present) if doc_num >= 0 else None for doc_num in found.tolist()]

    def info(self) -> dict[str, Any]:
        """Facts about the index, ready for JSON."""
        return self._current().snapshot.info()

    @property
    def snapshot(self) -> AnySnapshot:
        """The commit that is searched."""
        return self._current().snapshot

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the complete vector fields."""
        return tuple(self._current().snapshot.fields)

    @property
    def default_search(self) -> str:
        """The search expression of queries that bring none."""
        snapshot = self._current().snapshot
        default = snapshot.manifest.search if self._search is None else self._search
        if default is None and len(snapshot.fields) == 1:
            default = next(iter(snapshot.fields))
        if default is None:
            names = ", ".join(snapshot.fields) or "none"
            raise RepresentationError(f"{snapshot.path}: no default search: give an expression over the fields {names}")
        return default

    def search_fields(
        self, search: str | None = None, options: Options | None = None, boost: Boost | None = None, feedback: Choice = None
    ) -> tuple[str, ...]:
        """Names of the fields of a search expression, by default of the retriever's; the other arguments are checked too.

        Raises
        ------
        ExpressionError, RepresentationError, ValueError, TypeError
            A malformed expression, a field that is not there, unknown options, a boost of a term that no field has, feedback
            where there is none.
        """
        pipeline = self._pipeline(self._current(), search)
        pipeline.options(self._options_of(pipeline, options))
        boosts_by_field(pipeline.searchers, boost)
        if rocchio_of(feedback) is not None:
            self._clicks()
            check_movable(pipeline.searchers)
        return pipeline.search.fields

    def encoders(self, names: Sequence[str] | None = None) -> dict[str, Encoder]:
        """Encoders by field, loaded when first needed; by default of the default search.

        Raises
        ------
        EncoderMismatchError
            An encoder is not the one that made its field.
        """
        names = self.search_fields() if names is None else texts_of(names, "names")
        snapshot = self._current().snapshot
        for name in names:
            snapshot.field(name)  # a typed error that lists the fields
        records = snapshot.manifest.fields
        with self._encoder_lock:
            for name in names:
                source = source_of(records, name) or name
                for each in (source, name):
                    if each not in self._encoders:
                        self._encoders[each] = self._given.get(each) or self._encoders.get(source) or index_encoder(
                            records[each], model=self._models.get(each), device=self._device
                        )  # fmt: skip
            return {name: self._encoders[name] for name in names}

    @property
    def fingerprint(self) -> str:
        """Names what is searched and how: the default search with the fingerprints of its fields."""
        records = self._current().snapshot.manifest.fields
        search = parse(self.default_search)
        prints = ",".join(records[name].encoder.fingerprint for name in search.fields)
        return prints if str(search) in records else f"{str(search).replace(' ', '')}[{prints}]"

    @property
    def generation(self) -> int:
        """Number of the commit that is searched."""
        return self._current().snapshot.generation

    def __len__(self) -> int:
        return self._current().snapshot.n_docs

    def reload(self) -> bool:
        """Use the newest commit from now on, if there is one, and what was clicked; running searches end on the old ones.

        Returns whether there was a newer commit.

        Raises
        ------
        EncoderMismatchError
            A field was built again with another encoder; the old snapshot stays in use.
        RepresentationError
            The default search does not fit the new commit's fields; likewise.
        IndexFormatError, DatasetError
            The click log is damaged, or gone; the new commit is in use.
        """
        newer = self._reload_index()
        if self._feedback is not None:
            self._feedback.refresh()
        return newer

    def _reload_index(self) -> bool:
        with self._reload_lock:
            old = self._current()
            current = old.snapshot.manifest
            if newest_commit(old.snapshot.path) == (current.build_id, current.generation):
                return False
            state = _State(open_snapshot(old.snapshot.path, previous=old.snapshot, storage=self._storage))
            for name, encoder in self._encoders.items():
                if name in state.snapshot.manifest.fields:
                    check_encoder(state.snapshot.manifest.fields[name].encoder, encoder)
            self._pipeline(state, self._search or state.snapshot.manifest.search)
            self._encoders = {name: each for name, each in self._encoders.items() if name in state.snapshot.manifest.fields}
            self._state = state
            return True

    def warm(self) -> None:
        """Load kernels and models of the default search now, so that the first query is as fast as the next."""
        state = self._current()
        for name in self.search_fields():
            self._searcher(state, name).warm()
        if any(encoder.kind == "vectors" for encoder in self.encoders().values()):
            return
        self.search("warm up", 1)
        if self._feedback is not None:
            self._feedback.prepare(self._pipeline(state, None).searchers, self._encode_for)

    def close(self) -> None:
        """Release the index; memory maps go once running searches have ended. A temporary index is removed."""
        self._state = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Retriever:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._given or self._folder is not None:
            what = "encoders given as objects" if self._given else "a temporary index"
            raise TypeError(f"a retriever with {what} cannot be pickled or copied: open it from its path")
        keywords = {
            "search": self._search, "models": self._models, "device": self._device, "options": self._options,
            "exhaustive": self._exhaustive, "storage": self._storage,
            "clicks": None if self._feedback is None else self._feedback.log.path,
        }  # fmt: skip
        return _reopen, (str(self._current().snapshot.path.resolve()), keywords)

    def _current(self) -> _State:
        state = self._state
        if state is None:
            raise ValueError("the retriever is closed")
        return state

    def _pipeline(self, state: _State, search: str | None) -> Pipeline:
        """Return the pipeline of an expression; those of late are kept."""
        text = self.default_search if search is None else search
        with self._lock:
            if text in state.pipelines:
                state.pipelines.move_to_end(text)
                return state.pipelines[text]
            parsed: Search = parse(text)
            for name in parsed.fields:
                state.snapshot.field(name)  # a typed error that lists the fields
            pipeline = Pipeline(parsed, {name: self._searcher(state, name) for name in parsed.fields})
            state.pipelines[text] = pipeline
            if len(state.pipelines) > MAX_PIPELINES:
                state.pipelines.popitem(last=False)
            return pipeline

    def _searcher(self, state: _State, name: str) -> FieldSearcher:
        if name not in state.searchers:
            snapshot = state.snapshot
            encoder = _LazyEncoder(self, name, snapshot.manifest.fields[name])
            if isinstance(snapshot, ShardedSnapshot):
                state.searchers[name] = cast(FieldSearcher, snapshot.searcher(name, encoder))
            else:
                state.searchers[name] = field_searcher(snapshot.field(name), encoder)
        return state.searchers[name]

    def _clicks(self) -> Feedback:
        if self._feedback is None:
            raise ValueError("there is no click log: open the retriever with clicks=LOG (`lexmax serve IDX --feedback LOG`)")
        return self._feedback

    def _encode_for(self, field: str, texts: Sequence[str]) -> Vectors:
        return self.encode(texts, field)[field]

    def _steered(
        self, state: _State, pipeline: Pipeline, ready: dict[str, Vectors], texts: Sequence[str], boost: Boost | None,
        feedback: Choice,
    ) -> tuple[dict[str, Vectors], Notes]:  # fmt: skip
        """Move queries by clicks, then boost their terms; returns notes for explanations too."""
        boosts, options, notes = boosts_by_field(pipeline.searchers, boost), rocchio_of(feedback), NO_NOTES
        if options is not None:
            found = self._clicks()
            if isinstance(state.snapshot, ShardedSnapshot):
                raise ValueError(f"{state.snapshot.path}: feedback moves queries of an index, not of a set of shards")
            ready, notes = found.move(ready, texts, pipeline.searchers, state.snapshot, self._encode_for, options)
        return boosted(ready, boosts), notes

    def _noted(self, pipeline: Pipeline, options: Options | None, notes: Notes, number: int) -> dict[str, str]:
        """What explanations say of each field: what was done to a query, and what options make of scores."""
        made = pipeline.options(self._options_of(pipeline, options))
        noted = {name: [getattr(each, "note", "")] for name, each in made.items()}
        for name, each in notes.items():
            noted[name] = [each[number], *noted.get(name, ())]
        return {name: "; ".join(filter(None, each)) for name, each in noted.items()}

    def _ready(self, pipeline: Pipeline, queries: Any) -> dict[str, Vectors]:
        """Bring queries into the form that each field's searcher takes."""
        names = pipeline.search.fields
        if not isinstance(queries, Mapping):
            if len(names) != 1:
                raise TypeError(f"vectors for the fields {', '.join(names)} are a mapping of field to vectors")
            queries = {names[0]: queries}
        missing = [name for name in names if name not in queries]
        if missing:
            raise RepresentationError(f"no vectors for the field {missing[0]!r}, which the search names")
        ready = {name: pipeline.searchers[name].vectors(queries[name]) for name in names}
        counts = {len(vectors) for vectors in ready.values()}
        if len(counts) != 1:
            raise ValueError(f"fields with different numbers of queries: {', '.join(map(str, sorted(counts)))}")
        return ready

    def _options_of(self, pipeline: Pipeline, options: Options | None) -> dict[str, Any]:
        """Options of a request over those of the retriever, as far as the pipeline has their fields."""
        names = pipeline.search.fields
        merged = {name: each for name, each in self._options.items() if name in names}
        merged.update(mapping_of(options, "options", OPTIONS_FORM))
        if self._exhaustive:
            for name in names:
                given = merged.get(name) or {}
                if not isinstance(given, Mapping):
                    raise ValueError(f"exhaustive search goes with options by name, not with {type(given).__name__}")
                merged[name] = {**given, "algorithm": "exhaustive"}
        return merged

    def _run(
        self, pipeline: Pipeline, ready: Mapping[str, Vectors], k: int, allowed: Sequence[Mask | None] | None,
        options: Options | None, n_threads: int | None, *, trace: bool,
    ) -> Answer:  # fmt: skip
        return pipeline.run(
            ready, k, allowed=allowed, options=self._options_of(pipeline, options),
            n_threads=N_CORES if n_threads is None else count_of(n_threads, "n_threads"), trace=trace,
        )  # fmt: skip


class _LazyEncoder:
    """Stands for the encoder of a field until explanations ask it something."""

    def __init__(self, retriever: Retriever, name: str, record: FieldRecord) -> None:
        self._retriever, self._name = retriever, name
        self.kind = record.encoder.kind
        self.representation = ENCODERS.get(record.representation, record.representation)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._retriever.encoders([self._name])[self._name], attribute)


def _allowed(snapshot: AnySnapshot, filter: Filter | None, partial: bool = False) -> Sequence[Mask | None] | None:
    """What searches of the fields take as ``allowed``."""
    if isinstance(snapshot, ShardedSnapshot):
        return snapshot.masks(filter, partial=partial)
    return None if filter is None else snapshot.masks(filter)


def _reopen(path: str, keywords: dict[str, Any]) -> Retriever:
    return Retriever.open(path, **keywords)
