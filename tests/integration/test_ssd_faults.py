"""Token stores where a disk is full, where writers are killed between two steps of a commit, and where files change in use."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from token_vectors import make_token_index, token_vectors

from lexmax import Collection, IndexFormatError, StorageError
from lexmax.eval.bench.fields import without_text
from lexmax.index.check import check_index
from lexmax.index.multivector.placement import TokenStorage
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers.centroid import CentroidOptions, CentroidSearcher

STEPS = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "ftruncate")
N_DOCS = 300


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(1)
    return token_vectors(rng, rng.integers(1, 40, 2 * N_DOCS))


@pytest.fixture(scope="module")
def queries():
    return token_vectors(np.random.default_rng(2), [32, 8])


@pytest.fixture
def small_disk(tmp_path):
    """A file system in memory of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "lexmax-test", str(folder)]
    made = subprocess.run(mount, capture_output=True, check=False)
    if made.returncode:
        pytest.skip("only root can mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def scores_of(path, queries, place="pread", options=None):
    field = Snapshot.open(path, storage=TokenStorage(place=place)).field("tokens")
    everything = np.arange(field.n_total, dtype=np.int32)
    found = CentroidSearcher(field).score(queries, [everything] * len(queries), options=options)
    return [each.tobytes() for each in found]


def grow(path, vectors, *, compact):
    with Collection.open(path) as collection:
        collection.add(without_text(N_DOCS, 2 * N_DOCS), {"tokens": vectors.select(np.arange(N_DOCS, 2 * N_DOCS))})
        collection.commit()
        if compact:
            collection.compact()
            collection.commit()


def first_half(path, vectors):
    make_token_index(path, vectors.select(np.arange(N_DOCS)), (100,))


def fill(folder, n_free):
    """Fill the file system of a folder but for some bytes."""
    with (folder / "ballast").open("wb", buffering=0) as out, suppress(OSError):
        while out.write(bytes(1 << 12)):
            pass
    os.truncate(folder / "ballast", (folder / "ballast").stat().st_size - n_free)


def compact(path, vectors):
    with Collection.open(path) as collection:
        collection.delete([f"d{number}" for number in range(5)])
        collection.compact()
        collection.commit()


@pytest.mark.parametrize("step", ["build", "add", "compact"])
@pytest.mark.parametrize("n_free", [0, 20 << 10, 60 << 10])
def test_a_full_disk_is_an_error_and_leaves_the_last_commit(small_disk, vectors, queries, step, n_free):
    path = small_disk / "idx"
    if step != "build":
        first_half(path, vectors)
        wanted = scores_of(path, queries)
    work = {"build": first_half, "add": lambda *given: grow(*given, compact=False), "compact": compact}[step]
    fill(small_disk, n_free)
    with pytest.raises(StorageError, match="No space left"):
        work(path, vectors)
    if step != "build":
        assert scores_of(path, queries) == wanted  # while the disk is full
        check_index(path)
    (small_disk / "ballast").unlink()
    if step == "build":
        shutil.rmtree(path, ignore_errors=True)
    work(path, vectors)
    check_index(path)
    assert Snapshot.open(path).n_docs == {"build": N_DOCS, "add": 2 * N_DOCS, "compact": N_DOCS - 5}[step]


def _killed_at(number, path, vectors):
    """Grow the index in this process, which ends before the system call ``number`` of those that publish."""
    left = [number]

    def dying(call):
        def counted(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counted

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))
    grow(path, vectors, compact=True)
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_writer_that_is_killed_between_any_two_steps_leaves_one_of_the_commits(tmp_path, vectors, queries):
    before, grown = tmp_path / "before", tmp_path / "grown"
    first_half(before, vectors)
    shutil.copytree(before, grown)
    grow(grown, vectors, compact=False)
    states = [scores_of(before, queries), scores_of(grown, queries)]
    with Collection.open(grown) as collection:
        collection.compact()
        collection.commit()
    states.append(scores_of(grown, queries))
    fork, number, met = multiprocessing.get_context("fork"), 0, []
    while True:
        path = tmp_path / f"killed-{number}"
        shutil.copytree(before, path)
        child = fork.Process(target=_killed_at, args=(number, path, vectors))
        child.start()
        child.join(120)
        assert child.exitcode in (0, -signal.SIGKILL)
        check_index(path)
        met.append(states.index(scores_of(path, queries)))
        if not met[-1]:
            grow(path, vectors, compact=False)  # the next writer goes on
            assert scores_of(path, queries) == states[1]
        shutil.rmtree(path)
        if child.exitcode == 0:
            break
        number += 1
    assert number > 20
    assert met == sorted(met)
    assert met[0] == 0 < met[-1]


CUT = """
import os, sys
import numpy as np
from lexmax import IndexFormatError, TokenStorage
from lexmax.index.snapshot import Snapshot
from lexmax.index.representations.multivectors import MultiVectors
from lexmax.retrieval.searchers.centroid import CentroidOptions, CentroidSearcher

path, place = sys.argv[1:]
field = Snapshot.open(path, storage=TokenStorage(place=place)).field("tokens")
searcher, everything = CentroidSearcher(field), [np.arange(field.n_total, dtype=np.int32)]
query = MultiVectors.of([np.eye(32, dtype=np.float32)], 32)
wanted = searcher.score(query, everything)[0]
store = field.segments[0].part.store.file.path
os.truncate(store, 3 * os.stat(store).st_size // 4)
if place == "memory":
    assert searcher.score(query, everything)[0].tobytes() == wanted.tobytes()
    sys.exit(0)
try:
    searcher.score(query, everything)
except IndexFormatError as error:
    assert "the end of the file" in str(error), error
found = searcher.score(query, everything, options=CentroidOptions(unreadable="keep"))
lost = np.isnan(found[0])
assert lost.any() and not lost.all() and found.reads.n_unreadable == lost.sum()
assert np.array_equal(found[0][~lost], wanted[~lost])
"""


@pytest.mark.parametrize("place", ["memory", "io_uring", "libaio", "pread", "willneed"])
def test_a_process_lives_on_when_a_store_that_is_not_mapped_is_cut_short(tmp_path, vectors, place):
    path = tmp_path / "idx"
    first_half(path, vectors)
    try:
        Snapshot.open(path, storage=TokenStorage(place=place))
    except StorageError as failure:
        pytest.skip(f"{place} does not work here: {failure}")
    program = [sys.executable, "-c", CUT, str(path), place]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["mmap", "memory", "pread"])
def test_a_store_that_was_cut_short_before_it_is_opened_is_refused(tmp_path, vectors, place):
    path = tmp_path / "idx"
    first_half(path, vectors)
    store = Snapshot.open(path).field("tokens").segments[0].part.store.file.path
    os.truncate(store, store.stat().st_size - 1)
    with pytest.raises(IndexFormatError, match=r"tokens\.lex"):
        Snapshot.open(path, storage=TokenStorage(place=place))


def test_a_compaction_replaces_the_files_of_an_open_snapshot_and_its_answers_stay(tmp_path, vectors, queries):
    path = tmp_path / "idx"
    first_half(path, vectors)
    for place in ("pread", "mmap"):
        field = Snapshot.open(path, storage=TokenStorage(place=place)).field("tokens")
        everything = [np.arange(field.n_total, dtype=np.int32)] * 2
        searcher = CentroidSearcher(field)
        wanted = [each.tobytes() for each in searcher.score(queries, everything)]
        if place == "pread":
            grow(path, vectors, compact=True)
        else:
            compact(path, vectors)
        kept = CentroidOptions(unreadable="keep")
        assert [each.tobytes() for each in searcher.score(queries, everything, options=kept)] == wanted
