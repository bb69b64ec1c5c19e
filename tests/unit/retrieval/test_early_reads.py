"""Reads that run early change no score, whatever was guessed, and leave no session behind."""

import threading

import numpy as np
import pytest
from reading import Faults, faulty
from token_vectors import make_token_field, token_vectors

from lexmax import StorageError
from lexmax.index.reading import backends
from lexmax.index.reading.flight import Flight
from lexmax.index.reading.sessions import N_SESSIONS, PoolSession, Sessions
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers.centroid import CentroidSearcher
from lexmax.retrieval.searchers.early_reads import MOST_GUESSED, EarlyReads

N_DOCS, N_QUERIES = 700, 7


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("early") / "idx"
    make_token_field(folder, token_vectors(rng, rng.integers(0, 40, N_DOCS)), (300,))
    return folder


@pytest.fixture(scope="module")
def queries():
    return token_vectors(np.random.default_rng(2), [32, 4, 33, 8, 32, 0, 12])


@pytest.fixture(scope="module")
def candidates():
    rng = np.random.default_rng(3)
    return [rng.permutation(N_DOCS)[:n].astype(np.int32) for n in (100, 300, 50, 1, 200, 30, 0)]


@pytest.fixture(scope="module")
def sound(path, queries, candidates):
    return CentroidSearcher(Snapshot.open(path).field("tokens")).score(queries, candidates)


def searcher_of(path, place, sessions=None):
    """A searcher whose records are on disk, with sessions of its own if any are given."""
    field = Snapshot.open(path).field("tokens")
    for segment in field.segments:
        try:
            segment.part.store.put(place)
        except StorageError as failure:
            pytest.skip(f"{place} does not work here: {failure}")
        if sessions is not None:
            segment.part.store.reader.sessions = sessions
    return CentroidSearcher(field)


def same(found, wanted):
    return all(one.tobytes() == other.tobytes() for one, other in zip(found, wanted, strict=True))


GUESSES = {
    "right": lambda rng, numbers: numbers,
    "wrong": lambda rng, numbers: np.setdiff1d(np.arange(N_DOCS), numbers).astype(np.int32)[:60],
    "half": lambda rng, numbers: np.concatenate([numbers[::2], rng.integers(0, N_DOCS, 40)]).astype(np.int32),
    "none": lambda rng, numbers: numbers[:0],
}


@pytest.mark.parametrize("place", tuple(backends.BACKENDS))
@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_scores_are_the_same_bits_whatever_was_guessed(path, queries, candidates, sound, place, guess, n_threads):
    searcher = searcher_of(path, place)
    rng = np.random.default_rng(4)
    for rounds in (1, 2):  # the second guess asks for what the first did not
        early = searcher.early(N_QUERIES)
        for _ in range(rounds):
            for number, numbers in enumerate(candidates):
                early.guess(number, GUESSES[guess](rng, numbers))
        found = searcher.score(queries, candidates, n_threads=n_threads, early=early)
        assert same(found, sound)
        counts = found.reads
        assert 0 <= counts.n_hits <= counts.n_guessed <= counts.n_records
        if guess == "right":
            assert counts.n_hits == counts.n_guessed > 0
        if guess == "wrong":
            assert counts.n_hits == 0 < counts.n_guessed
        if guess == "none":
            assert counts.n_guessed == 0


@pytest.mark.parametrize("place", tuple(backends.BACKENDS))
@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_scores_are_the_same_bits_when_guesses_and_candidates_take_many_waves(
    path, queries, candidates, sound, place, guess, n_threads, monkeypatch
):  # fmt: skip
    monkeypatch.setattr("lexmax.index.reading.sessions.ARENA_BYTES", 1 << 15)
    waves, add = [], Flight.add
    monkeypatch.setattr(Flight, "add", lambda *given: waves.append(add(*given)) or waves[-1])
    searcher = searcher_of(path, place, Sessions(backends.BACKENDS[place]))
    for alone in (True, False):
        rng, waves[:] = np.random.default_rng(5), []
        if alone:
            found = []
            for number, numbers in enumerate(candidates):
                early = searcher.early(1)
                early.guess(0, GUESSES[guess](rng, numbers))
                found += searcher.score(queries.select(np.array([number])), [numbers], early=early)
        else:
            early = searcher.early(N_QUERIES)
            for number, numbers in enumerate(candidates):
                early.guess(number, GUESSES[guess](rng, numbers))
            found = searcher.score(queries, candidates, n_threads=n_threads, early=early)
        assert same(found, sound)
        assert len([wave for wave in waves if wave is not None]) > 3 * N_QUERIES


def test_of_one_query_all_that_is_guessed_is_read_and_counted(path, queries, candidates, sound):
    searcher = searcher_of(path, "pread")
    early = searcher.early(1)
    guessed = np.concatenate([candidates[0][:40], np.setdiff1d(np.arange(N_DOCS), candidates[0])[:10]]).astype(np.int32)
    early.guess(0, np.concatenate([guessed, candidates[0][40:90]]))  # the better half is read
    found = searcher.score(queries.select(np.array([0])), candidates[:1], early=early)
    assert same(found, sound[:1])
    n_tokens = np.concatenate([np.diff(segment.part.offsets) for segment in searcher.field.segments])
    assert found.reads.n_guessed == np.count_nonzero(n_tokens[guessed])
    assert found.reads.n_hits == np.count_nonzero(n_tokens[guessed[:40]])
    wanted = np.union1d(guessed, candidates[0])
    assert found.reads.n_records == np.count_nonzero(n_tokens[wanted])


def test_guesses_are_few(path, queries):
    searcher = searcher_of(path, "pread")
    everything = np.arange(N_DOCS, dtype=np.int32)
    early = searcher.early(1)
    early.guess(0, everything)
    counts = searcher.score(queries.select(np.array([0])), [everything], early=early).reads
    assert 0 < counts.n_guessed <= MOST_GUESSED


def test_reads_that_nobody_wants_give_their_sessions_back(path, queries, candidates, sound):
    made = []

    def make():
        made.append(PoolSession())
        return made[-1]

    sessions = Sessions(make)
    searcher = searcher_of(path, "pread", sessions)
    for _ in range(3):
        early = searcher.early(N_QUERIES)
        for number, numbers in enumerate(candidates):
            early.guess(number, numbers)  # more queries than there are sessions: the last go without
        early.close()
        early.close()
    assert len(made) == len(sessions._free) == N_SESSIONS
    assert not any(session.n_flying for session in made)
    assert same(searcher.score(queries, candidates), sound)


def test_threads_whose_guesses_hold_all_sessions_do_not_wait_for_each_other(path, queries, candidates, sound):
    searcher, wrong = searcher_of(path, "pread", Sessions(PoolSession)), []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(8):
            early = searcher.early(N_QUERIES)
            for number in rng.permutation(N_QUERIES)[:5].tolist():
                early.guess(number, candidates[number])
            if not same(searcher.score(queries, candidates, n_threads=2, early=early), sound):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(120)
    assert not any(each.is_alive() for each in threads)
    assert not wrong


def test_reads_that_fail_early_fail_the_reranking_and_end(path, queries, candidates):
    sessions = faulty(Faults.always_fails)
    searcher = searcher_of(path, "pread", sessions)
    for _ in range(2 * N_SESSIONS):
        early = searcher.early(N_QUERIES)
        for number, numbers in enumerate(candidates):
            early.guess(number, numbers)
        with pytest.raises(StorageError, match="Input/output error"):
            searcher.score(queries, candidates, n_threads=2, early=early)
    assert len(sessions._free) == sessions._n_made <= N_SESSIONS


def test_nothing_is_read_early_where_nothing_is_read(path):
    assert CentroidSearcher(Snapshot.open(path).field("tokens")).early(3) is None
    assert isinstance(searcher_of(path, "pread").early(3), EarlyReads)
