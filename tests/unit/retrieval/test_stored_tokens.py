"""Scores are the same bits wherever records are, and never wrong whatever disks and kernels do."""

import multiprocessing
import os
import shutil
import threading

import numpy as np
import pytest
from reading import Faults, faulty
from token_vectors import make_token_field, make_token_index, token_vectors

from lexmax import IndexFormatError, StorageError
from lexmax.index.multivector.placement import PLACES, TokenStorage, place_tokens
from lexmax.index.reading import backends, rings, sessions
from lexmax.index.reading.sessions import N_SESSIONS, NO_READS, PoolSession, Sessions
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers.centroid import CentroidOptions, CentroidSearcher

N_DOCS = 900
READING = tuple(backends.BACKENDS)
KEEP = CentroidOptions(unreadable="keep")


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(1)
    widths = rng.integers(0, 60, N_DOCS)
    widths[7] = 700  # a record that is longer than an extent of several
    return token_vectors(rng, widths)


@pytest.fixture(scope="module")
def path(tmp_path_factory, vectors):
    folder = tmp_path_factory.mktemp("stored") / "idx"
    make_token_field(folder, vectors, (500,), deleted=(3, 600))
    return folder


@pytest.fixture
def field(path):
    """A field of its own for each test: its stores are put elsewhere."""
    return Snapshot.open(path).field("tokens")


@pytest.fixture(scope="module")
def queries():
    return token_vectors(np.random.default_rng(2), [1, 32, 33, 5, 64, 12])


@pytest.fixture(scope="module")
def candidates(queries):
    rng = np.random.default_rng(3)
    found = [rng.permutation(N_DOCS)[:n].astype(np.int32) for n in (N_DOCS, 400, 100, 1, 0)]
    return [*found, np.array([7, 5, 5, 899, 7, 3], np.int32)]


@pytest.fixture(scope="module")
def sound(path, queries, candidates):
    """Scores over the memory map."""
    return CentroidSearcher(Snapshot.open(path).field("tokens")).score(queries, candidates)


def put(field, place):
    for segment in field.segments:
        segment.part.store.put(place)
        assert segment.part.store.place == place


def works(field, place):
    """Put a field's records somewhere; whether the system has such a place."""
    try:
        put(field, place)
    except StorageError:
        return False
    return True


def same(found, wanted):
    return all(one.tobytes() == other.tobytes() for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("exact", [True, False], ids=["8 bits", "2 bits"])
def test_answers_are_the_same_bits_in_every_place_with_every_number_of_threads(tmp_path, vectors, queries, candidates, exact):
    field = make_token_field(tmp_path / "idx", vectors, (500,), exact=exact)
    searcher = CentroidSearcher(field)
    wanted, best = searcher.score(queries, candidates), searcher.search(queries, 20)
    scored = int(sum((np.diff(vectors.offsets)[np.unique(numbers)] > 0).sum() for numbers in candidates))
    tried = []
    for place in ("memory", *READING, "mmap"):
        if not works(field, place):  # as where containers forbid io_uring; the pool works everywhere
            continue
        for n_threads in (1, 2, 7):
            found = searcher.score(queries, candidates, n_threads=n_threads)
            assert same(found, wanted), (place, n_threads)
            assert found.reads.n_records == (scored if place in READING else 0)
            hits = searcher.search(queries, 20, n_threads=n_threads)
            assert hits.doc_nums.tolist() == best.doc_nums.tolist()
            assert hits.scores.tobytes() == best.scores.tobytes()
        tried.append(place)
    assert {"memory", "pread", "mmap"} <= set(tried)


def test_neighbours_come_with_one_read(field, queries, candidates):
    put(field, "pread")
    reads = CentroidSearcher(field).score(queries, candidates).reads
    assert 0 < reads.n_reads < 0.1 * reads.n_records
    n_bytes = sum(segment.part.store.records.nbytes for segment in field.segments)
    assert reads.n_bytes <= len(candidates) * (n_bytes + (1 << 16))


def test_more_candidates_than_a_session_holds_come_in_waves(field, queries, candidates, sound, monkeypatch):
    monkeypatch.setattr("lexmax.index.reading.sessions.ARENA_BYTES", 1 << 16)
    put(field, "pread")
    for segment in field.segments:
        segment.part.store.reader.sessions = Sessions(PoolSession)
    found = CentroidSearcher(field).score(queries, candidates)
    assert same(found, sound)
    sessions = field.segments[0].part.store.reader.sessions._free
    assert sessions
    assert all(len(session.arena) < 700 * 36 + (3 << 16) for session in sessions)


def test_many_threads_share_few_sessions(field, queries, candidates, sound):
    put(field, "pread")
    made = []

    def make():
        made.append(PoolSession())
        return made[-1]

    sessions = Sessions(make)
    for segment in field.segments:
        segment.part.store.reader.sessions = sessions
    searcher, wrong = CentroidSearcher(field), []

    def work():
        for _ in range(5):
            if not same(searcher.score(queries, candidates), sound):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong
    assert 1 <= len(made) <= N_SESSIONS


def go_wrong(field, fault):
    put(field, "pread")
    for segment in field.segments:
        segment.part.store.reader.sessions = faulty(fault)


@pytest.mark.parametrize("fault", Faults.ends_well, ids=lambda fault: fault.__name__)
def test_what_a_disk_does_now_and_then_changes_nothing(field, queries, candidates, sound, fault):
    go_wrong(field, fault)
    for n_threads in (1, 3):
        assert same(CentroidSearcher(field).score(queries, candidates, n_threads=n_threads), sound)


@pytest.mark.parametrize("fault", Faults.ends_badly, ids=lambda fault: fault.__name__)
def test_records_that_cannot_be_read_are_an_error_or_flagged_and_never_scored_wrongly(field, queries, candidates, sound, fault):
    go_wrong(field, fault)
    searcher = CentroidSearcher(field)
    expected = (StorageError, "Input/output error") if fault.__name__ == "always_fails" else (IndexFormatError, "XXH64")
    for _ in range(2):  # sessions are whole afterwards
        with pytest.raises(expected[0], match=rf"tokens\.lex: .*{expected[1]}"):
            searcher.score(queries, candidates)
    found = searcher.score(queries, candidates, options=KEEP)
    lost = 0
    for numbers, scores, wanted in zip(candidates, found, sound, strict=True):
        unread = np.isnan(scores)
        assert np.array_equal(scores[~unread], wanted[~unread])
        assert not unread[np.isinf(wanted)].any()  # no tokens, nothing to read
        lost += len(np.unique(numbers[unread]))
    assert lost == found.reads.n_unreadable > 0
    with pytest.raises(expected[0]):
        searcher.search(queries, 5, options=KEEP)  # there is no stage before


def test_a_read_that_never_ends_is_an_error_and_its_session_is_not_used_again(field, queries, candidates, sound, monkeypatch):
    monkeypatch.setattr(sessions, "PATIENCE_S", 0.2)
    go_wrong(field, Faults.one_is_never_told)
    searcher, lent = CentroidSearcher(field), field.segments[0].part.store.reader.sessions
    for _ in range(N_SESSIONS + 1):
        with pytest.raises(StorageError, match=r"pread fails: Connection timed out"):
            searcher.score(queries, candidates)
        assert not lent._free
        assert lent._n_made == 0
    put(field, "mmap")
    assert same(searcher.score(queries, candidates), sound)


@pytest.mark.parametrize("place", ["io_uring", "libaio", "pread"])
def test_backends_wait_for_a_limited_time(field, place, monkeypatch):
    if not works(field, place):
        pytest.skip(f"{place} does not work here")
    monkeypatch.setattr(rings, "PATIENCE", (0, 100_000_000))
    monkeypatch.setattr(sessions, "PATIENCE_S", 0.1)
    session = backends.BACKENDS[place]()
    with pytest.raises(OSError, match="timed out"):
        session.exchange(-1, NO_READS, 1)


@pytest.mark.parametrize("place", ["mmap", "memory", *READING])
def test_a_flipped_bit_on_the_disk_costs_one_document(tmp_path, path, queries, candidates, sound, place):
    shutil.copytree(path, tmp_path / "idx")
    before = Snapshot.open(tmp_path / "idx").field("tokens")
    store = before.segments[0].part.store
    document = 11
    at = store.origin + int(store.places(np.array([document])).firsts[0]) * store.token_bytes + 5
    with store.file.path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 8]))
    field = Snapshot.open(tmp_path / "idx").field("tokens")
    if not works(field, place):
        pytest.skip(f"{place} does not work here")
    searcher = CentroidSearcher(field)
    with pytest.raises(IndexFormatError, match=f"document {document} of the segment"):
        searcher.score(queries, candidates)
    found = searcher.score(queries, candidates, options=KEEP)
    for numbers, scores, wanted in zip(candidates, found, sound, strict=True):
        assert np.array_equal(np.isnan(scores), numbers == document)
        assert np.array_equal(scores[numbers != document], wanted[numbers != document])


@pytest.mark.parametrize("place", READING)
def test_a_file_may_go_while_it_is_read_and_when_it_is_cut_short_that_is_told(
    tmp_path, path, queries, candidates, sound, place
):  # fmt: skip
    shutil.copytree(path, tmp_path / "idx")
    field = Snapshot.open(tmp_path / "idx").field("tokens")
    if not works(field, place):
        pytest.skip(f"{place} does not work here")
    searcher = CentroidSearcher(field)
    file = field.segments[1].part.store.file.path
    os.link(file, tmp_path / "kept")
    file.unlink()
    assert same(searcher.score(queries, candidates), sound)
    file.write_bytes(b"another file of the same name")
    assert same(searcher.score(queries, candidates), sound)
    os.truncate(tmp_path / "kept", 20_000)
    with pytest.raises(IndexFormatError, match=r"tokens\.lex: .*found the end of the file"):
        searcher.score(queries, candidates)
    found = searcher.score(queries, candidates, options=KEEP)
    lost = np.isnan(np.concatenate(found))
    n_lost = sum(len(np.unique(numbers[np.isnan(scores)])) for numbers, scores in zip(candidates, found, strict=True))
    assert 0 < n_lost == found.reads.n_unreadable
    assert np.array_equal(np.concatenate(found)[~lost], np.concatenate(sound)[~lost])


@pytest.mark.parametrize("place", READING)
def test_a_file_that_was_exchanged_before_it_is_opened_is_refused(tmp_path, path, place):
    shutil.copytree(path, tmp_path / "idx")
    field = Snapshot.open(tmp_path / "idx").field("tokens")
    first, second = (segment.part.store.file.path for segment in field.segments)
    shutil.copy(first, tmp_path / "first")
    second.replace(first)
    with pytest.raises((IndexFormatError, StorageError), match=r"tokens\.lex"):
        field.segments[0].part.store.put(place)
    first.unlink()
    with pytest.raises(IndexFormatError, match="nothing there"):
        field.segments[0].part.store.put("memory")


def _scores_in_a_child(searcher, queries, candidates, pipe):
    pipe.send([scores.tobytes() for scores in searcher.score(queries, candidates, n_threads=2)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("place", READING)
def test_a_forked_child_reads_for_itself(field, queries, candidates, sound, place):
    if not works(field, place):
        pytest.skip(f"{place} does not work here")
    searcher = CentroidSearcher(field)
    assert same(searcher.score(queries, candidates), sound)
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_scores_in_a_child, args=(searcher, queries, candidates, there))
    child.start()
    for _ in range(3):
        assert same(searcher.score(queries, candidates), sound)
    assert here.poll(60)
    assert here.recv() == [scores.tobytes() for scores in sound]
    child.join(60)
    assert child.exitcode == 0


def refusing(code):
    def make():
        raise OSError(code, os.strerror(code))

    return Sessions(make)


@pytest.mark.parametrize("code", [1, 12, 38], ids=["EPERM", "ENOMEM", "ENOSYS"])
def test_a_backend_that_the_system_refuses_is_passed_over_or_told(field, queries, candidates, sound, monkeypatch, code):
    monkeypatch.setitem(backends._sessions, "io_uring", refusing(code))
    monkeypatch.setitem(backends._sessions, "libaio", refusing(code))
    store = field.segments[0].part.store
    with pytest.raises(StorageError, match=rf"io_uring: {os.strerror(code)}; the others are libaio, pread"):
        store.put("io_uring")
    store.put(None)
    assert store.place == "pread"
    assert same(CentroidSearcher(field).score(queries, candidates), sound)


def test_a_backend_that_brings_other_bytes_is_passed_over(field, monkeypatch):
    for name in ("io_uring", "libaio", "pread"):
        monkeypatch.setitem(backends._sessions, name, faulty(Faults.a_bit_flips))
    store = field.segments[0].part.store
    with pytest.raises(StorageError, match="other bytes than the file has"):
        store.put("pread")
    store.put(None)
    assert store.place == "willneed"


def test_a_budget_is_used_up_and_the_rest_is_read(tmp_path, vectors, caplog):
    field = make_token_index(tmp_path / "idx", vectors, (300, 600)).field("tokens")
    sizes = [segment.part.store.records.nbytes for segment in field.segments]
    caplog.set_level("INFO")
    for budget, wanted in ((sum(sizes), 3), (sizes[0] + sizes[1], 2), (0, 0)):
        place_tokens([field], TokenStorage(place="pread", memory_budget=budget))
        assert [segment.part.store.place for segment in field.segments] == ["memory"] * wanted + ["pread"] * (3 - wanted)
        assert field.info()["records"].get("memory", 0) == sum(sizes[:wanted])
    assert f"{sum(sizes):,} bytes by pread" in caplog.text
    place_tokens([field], TokenStorage())
    assert field.info()["records"] == {"mmap": sum(sizes)}


def test_records_are_read_from_disk_where_memory_is_short(field, monkeypatch):
    n_bytes = sum(segment.part.store.records.nbytes for segment in field.segments)
    for free, mapped in ((2 * n_bytes, True), (2 * n_bytes - 1, False)):
        monkeypatch.setattr("lexmax.index.multivector.placement.free_memory", lambda free=free: free)
        place_tokens([field], TokenStorage())
        (place,) = field.places()
        assert (place == "mmap") == mapped
        assert mapped or place in READING


def test_a_later_snapshot_keeps_the_open_files(path):
    storage = TokenStorage(place="pread")
    first = Snapshot.open(path, storage=storage)
    second = Snapshot.open(path, previous=first, storage=storage)
    readers = [[segment.part.store.reader for segment in each.field("tokens").segments] for each in (first, second)]
    assert readers[0] == readers[1]
    assert all(reader is not None for reader in readers[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [({"place": "disk"}, "must be one of auto, memory"), ({"memory_budget": -1}, "at least 0"),
     ({"place": "mmap", "memory_budget": 5}, "goes with reading from disk")],
)  # fmt: skip
def test_wrong_storage_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        TokenStorage(**given)
    assert "auto" in PLACES
