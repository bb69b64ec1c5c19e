"""System calls that fail on purpose, and what an index must be afterwards.

`FailingCalls` makes the n-th call on files of a folder fail. `trial` runs a scenario under it and says what is wrong then: the
index must be exactly that of one of the scenario's commits, the error must say which, and nothing may be left behind.
"""

import ctypes
import errno
import fcntl
import io
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from all_kinds import FIELDS, STRUCTURES, queries_of, vectors_of
from several_fields import Fields

from lexmax import Collection, StorageError, build_index
from lexmax.index import filling, mapping, segment_store
from lexmax.index.collection import BufferLimits
from lexmax.index.documents import Document
from lexmax.index.errors import IndexNotFoundError
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.encoders.lexical import LexicalEncoder
from lexmax.retrieval.searchers.registry import field_searcher

ERRORS = {
    "fsync": errno.EIO, "write": errno.ENOSPC, "open": errno.EMFILE, "mkdir": errno.ENOSPC, "rename": errno.EIO,
    "unlink": errno.EACCES, "rmdir": errno.EBUSY, "list": errno.EACCES, "lock": errno.ENOLCK, "mmap": errno.ENOMEM,
}  # fmt: skip
"""Kinds of calls, and the error of each."""
CLEANING = ("unlink", "rmdir", "list")
HOWS = ("once", "lasting", "memory", "interrupt")
"""The n-th call alone fails, or all later ones of its kind too; or it raises MemoryError or KeyboardInterrupt."""


class FailingCalls:
    """Count calls on files below ``folder``, and make the n-th fail.

    Attributes
    ----------
    calls : list of str
        Kind and file of each call so far.
    failed : str
        The kind of the call that failed, empty as long as none did.
    """

    def __init__(self, folder, n=0, how="once", kinds=tuple(ERRORS)):
        self.folder, self.n, self.how, self.kinds = Path(folder), n, how, kinds
        self.calls, self.failed = [], ""
        self._patches = [
            *(mock.patch.object(os, name, self._of_paths(kind, getattr(os, name))) for kind, names in {
                "open": ["open"], "mkdir": ["mkdir"], "rename": ["rename", "replace"], "unlink": ["unlink", "remove"],
                "rmdir": ["rmdir"], "list": ["listdir", "scandir"],
            }.items() for name in names),
            mock.patch.object(os, "fsync", self._of_descriptors("fsync", os.fsync)),
            mock.patch.object(fcntl, "flock", self._of_descriptors("lock", fcntl.flock)),
            mock.patch.object(io, "open", self._opened), mock.patch("builtins.open", self._opened),
            mock.patch.object(mapping, "_libc", self._mapping()),
        ]  # fmt: skip

    def __enter__(self):
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_):
        for patch in reversed(self._patches):
            patch.stop()

    def call(self, kind, path):
        """Count a call; raise where it is to fail."""
        path = Path.cwd() / path
        if not path.is_relative_to(self.folder) or kind not in self.kinds:
            return
        self.calls.append(f"{kind} {path}")
        if len(self.calls) == self.n:
            self.failed = kind
            if self.how == "interrupt":
                raise KeyboardInterrupt
            if self.how == "memory":
                raise MemoryError
        if len(self.calls) == self.n or (self.how == "lasting" and kind == self.failed):
            raise OSError(ERRORS[kind], os.strerror(ERRORS[kind]), str(path))

    def _of_paths(self, kind, real):
        def call(path, *args, **options):
            place = path if isinstance(path, int) else options.get("dir_fd")
            self.call(kind, path if place is None else name_of(place))
            return real(path, *args, **options)

        return call

    def _of_descriptors(self, kind, real):
        def call(file, *args):
            number = file if isinstance(file, int) else file.fileno()
            if not (kind == "lock" and args[0] & fcntl.LOCK_UN):
                self.call(kind, name_of(number))
            return real(file, *args)

        return call

    def _opened(self, file, mode="r", *args, _real=io.open, **options):
        if isinstance(file, int):
            return _real(file, mode, *args, **options)
        self.call("open", file)
        if mode != "wb" or not (Path.cwd() / file).is_relative_to(self.folder):
            return _real(file, mode, *args, **options)
        return io.BufferedWriter(_FailingFile(self, file))

    def _mapping(self):
        calls, real = self, mapping._libc

        class Mapping:
            madvise, munmap = real.madvise, real.munmap

            @staticmethod
            def mmap(address, size, protection, flags, descriptor, offset):
                try:
                    calls.call("mmap", name_of(descriptor))
                except OSError as failure:
                    ctypes.set_errno(failure.errno)
                    return ctypes.c_void_p(-1).value
                return real.mmap(address, size, protection, flags, descriptor, offset)

        return Mapping


def name_of(descriptor):
    """The file that a descriptor is open on."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()


class _FailingFile(io.FileIO):
    def __init__(self, calls, path):
        super().__init__(path, "w")
        self._calls, self._path = calls, path

    def write(self, data):
        self._calls.call("write", self._path)
        return super().write(data)


def digest(path, queries):
    """Everything that a reader sees of an index: documents, answers of every field with scores, settings. None: no index."""
    try:
        snapshot = Snapshot.open(path, verify=True)
    except IndexNotFoundError:
        return None
    manifest, live = snapshot.manifest, []
    for segment in snapshot.segments:
        live += [segment.base + i for i in range(segment.n_docs) if segment.live is None or segment.live[i]]
    seen = {
        "documents": sorted((d.doc_id, d.title, d.text, str(d.metadata)) for d in snapshot.get_many(live)),
        "settings": (manifest.search, manifest.metadata, manifest.build),
        "fields": {name: (each.encoder, each.options, each.complete) for name, each in manifest.fields.items()},
    }
    for name, each in snapshot.fields.items():
        searcher = field_searcher(each)
        hits = searcher.search(searcher.vectors(queries[name]), 20)
        rankings = [hits.query(i) for i in range(len(hits))]
        seen[name] = [sorted(zip(scores.tolist(), snapshot.doc_ids(docs.tolist()), strict=True)) for docs, scores in rankings]
    return seen


@dataclass
class Scenario:
    """What is done to an index: ``prepare(path)`` makes it, if there is one, and ``act(path)`` commits changes to it."""

    name: str
    act: Callable[[Path], object]
    queries: dict[str, object]
    prepare: Callable[[Path], object] | None = None
    resumes: bool = False
    """Whether ``act`` ends at the same index when it is called again after a failure."""


class Trials:
    """Trials of one scenario in a folder of its own; ``states`` are what readers see before it and after each commit."""

    def __init__(self, scenario, folder):
        self.scenario, self.base, self.path = scenario, Path(folder) / "base", Path(folder) / "work" / "idx"
        self.base.mkdir(parents=True)
        if scenario.prepare:
            scenario.prepare(self.base / "idx")
        self.fresh()
        self.states = [self.digest()]
        with self.commits(lambda: self.states.append(self.digest())):
            scenario.act(self.path)
        self.n_commits = len(self.states) - 1

    def digest(self):
        return digest(self.path, self.scenario.queries)

    def fresh(self):
        """Put the index back as it was before the scenario."""
        shutil.rmtree(self.path.parent, ignore_errors=True)
        shutil.copytree(self.base, self.path.parent)

    @staticmethod
    def commits(told):
        """Call ``told`` after each commit."""
        real = segment_store.publish

        def publish(*args):
            real(*args)
            told()

        return mock.patch.object(segment_store, "publish", publish)

    def trial(self, n, how="once", kinds=tuple(ERRORS)):
        """Let the n-th call fail; returns the call that did, or None when there are fewer, and what is wrong then."""
        self.fresh()
        done, error = [], None
        with FailingCalls(self.path, n, how, kinds) as failing, self.commits(lambda: done.append(1)):
            try:
                self.scenario.act(self.path)
            except BaseException as failure:
                error = failure
        if not failing.failed:
            return None, []
        with FailingCalls(self.path, 0):  # the same files, but no call fails
            return failing.calls[n - 1], list(self._problems(failing, how, len(done), error))

    def _problems(self, failing, how, n_done, error):
        state = self.digest()
        if isinstance(error, StorageError):
            possible = [n_done + error.committed]
            if "\n" in str(error):
                yield f"a message of several lines: {error}"
        elif how == "interrupt" and isinstance(error, KeyboardInterrupt):
            possible = [n_done, n_done + 1]
        elif error is None:
            possible = [self.n_commits]
        else:
            yield f"an untyped error: {error!r}"
            return
        if state not in [self.states[i] for i in possible if i < len(self.states)]:
            at = self.states.index(state) if state in self.states else "none"
            yield f"the index is that of commit {at}, not of {possible} of {self.n_commits}, after {error!r}"
            return
        cleans = how != "interrupt" and failing.failed not in CLEANING
        if error is not None and cleans and (how != "lasting" or failing.failed in ("write", "mkdir", "rename")):
            yield from self.litter(state is None)
        if state is not None:
            with Collection.open(self.path) as collection:
                collection.commit()
            yield from self.litter(False)
            if self.digest() != state:
                yield "a commit of nothing changed the index"
        if self.scenario.resumes:
            self.scenario.act(self.path)
            if self.digest() != self.states[-1]:
                yield "run again, it ends at another index"

    def litter(self, nothing):
        """Say what lies about that no commit names, or, where there is no index, that anything does."""
        if nothing:
            if self.path.exists():
                yield f"left behind: {sorted(path.name for path in self.path.iterdir())} in a folder of no index"
            return
        known = segment_store.named_files(self.path) | {"manifest.json", "write.lock"}
        found = {path.name for path in self.path.iterdir()}
        if found != known:
            yield f"left behind: {sorted(found - known)}, missing: {sorted(known - found)}"


def errors_told(err):
    """Lines of stderr that tell an error."""
    return [line for line in err.splitlines() if line.startswith("lexmax: ") and "compiling kernels" not in line]


# --- the scenarios ---


class Lexical(LexicalEncoder):
    """BM25 that is said to cut documents, so that a build takes them in batches of 128."""

    def n_truncated(self, texts):
        return 0


def scenarios(folder):
    """Every way to change an index, over fields of all representations; a corpus is written to ``folder``."""
    five, corpus = Fields(40), Path(folder) / "corpus.jsonl"
    corpus.write_text("".join(f'{{"id": "d{i}", "text": "word{i % 7} word{i % 5}"}}\n' for i in range(300)))
    queries = {name: vectors.select(np.array([0, 3, 8])) for name, vectors in five.vectors.items()}
    texts = {"bm25": [{"word1": 1.0, "word2": 1.0}], "other": [{"word1": 1.0}]}

    def grown(path, *, n=20, names=None, by=7):
        with Collection.create(path, {name: five.new[name] for name in names or five.new}) as collection:
            for first in range(0, n, by):
                collection.add(*five.batch(*range(first, min(n, first + by)), names=names))
                collection.commit()
            collection.delete(["d2", "d9"])
            collection.commit()

    def create(path):
        with Collection.create(path, five.new, search="bm25 + splade") as collection:
            collection.add(*five.batch(0, 1, 2, 3))
            collection.commit()
            collection.add(*five.batch(4, 5))
            collection.commit()

    def change(path):
        with Collection.open(path, limits=BufferLimits(n_postings=30)) as collection:
            for row in range(20, 26):
                collection.add(*five.batch(row))
            collection.commit()
            collection.add(*five.batch(3, 30), replace=True)
            collection.delete(["d1", "d21"])
            collection.commit()

    def compact(path, *, reorder=False):
        with Collection.open(path) as collection:
            collection.delete(["d4"])
            collection.compact(reorder=reorder)
            collection.commit()

    def merge(path):
        with Collection.open(path) as collection:
            collection.add(*five.batch(20))
            collection.commit()

    def fill(path):
        with mock.patch.object(filling, "BATCH_DOCS", 4), Collection.open(path) as collection:
            for name in ("splade", "colbert", "slim", "dense"):
                if name not in collection.manifest.fields:
                    collection.add_field(name, five.new[name])
                    collection.commit()
                collection.fill(name, five.encode(name), commit_every_s=0)

    def half_filled(path):
        grown(path, names=["bm25"])
        with mock.patch.object(filling, "BATCH_DOCS", 4), suppress(ZeroDivisionError), Collection.open(path) as collection:
            collection.add_field("splade", five.new["splade"])
            collection.fill("splade", five.encode("splade"), commit_every_s=0, progress=lambda n: 1 // (n < 12))

    def drop(path):
        with Collection.open(path) as collection:
            collection.drop_field("colbert")
            collection.search = "bm25"
            collection.commit()

    def build(path, **options):
        build_index([corpus], path, encoders={"bm25": Lexical(), "other": Lexical(b=0.1)}, commit_every_s=0, **options)

    def half_built(path):
        with suppress(ZeroDivisionError):
            build(path, progress=lambda n: 1 // (n < 200))

    return [
        Scenario("create", create, queries),
        Scenario("change", change, queries, grown),
        Scenario("compact", compact, queries, grown),
        Scenario("reorder", partial(compact, reorder=True), queries, grown),
        Scenario("merge", merge, queries, partial(grown, n=8, by=1)),
        Scenario("fill", fill, queries, partial(grown, names=["bm25"]), resumes=True),
        Scenario("fill on", fill, queries, half_filled, resumes=True),
        Scenario("drop", drop, queries, grown),
        Scenario("build", build, texts, resumes=True),
        Scenario("build on", build, texts, half_built, resumes=True),
    ]


def structures(folder):
    """The changes that make lists, graphs, quantised vectors and encodings, which few documents do not have."""
    del folder
    n, n_more = 1100, 40
    rows = [f"text {i}" for i in range(n + n_more)]
    documents = [Document(doc_id=f"d{i}", text=text) for i, text in enumerate(rows)]
    vectors = vectors_of(np.random.default_rng(7), n + n_more, 4, 2)
    plain = {name: FIELDS[name] for name in ("bm25", "colbert")}
    queries = queries_of(3, 10, exhaustive=False)["vectors"]

    def add(collection, first, last):
        part = {name: vectors[name].select(np.arange(first, last)) for name in collection.manifest.fields if name in vectors}
        collection.add(documents[first:last], part)
        collection.commit()

    def made(path, fields):
        with Collection.create(path, fields) as collection:
            add(collection, 0, n)

    def change(path):
        with Collection.open(path) as collection:
            add(collection, n, n + n_more)
            collection.delete(["d3", f"d{n + 1}"])
            collection.commit()
            collection.compact()
            collection.commit()

    def encode(of, texts):
        return of.select(np.array([rows.index(text) for text in texts]))

    def fill(path):
        with Collection.open(path) as collection:
            for name, new in STRUCTURES.items():
                if name not in collection.manifest.fields:
                    collection.add_field(name, new)
                    collection.commit()
                of = vectors.get(name)
                encode = (
                    None if of is None else (lambda texts, of=of: of.select(np.array([rows.index(each) for each in texts])))
                )
                collection.fill(name, encode, commit_every_s=0)

    return [
        Scenario("structures", change, queries, partial(made, fields={**plain, **STRUCTURES})),
        Scenario("fill structures", fill, queries, partial(made, fields=plain), resumes=True),
    ]
