"""Click logs: what was logged is read, whatever crashes, and whoever writes at the same time."""

import contextlib
import json
import multiprocessing
import os
import resource
import zlib

import pytest
from click_writers import write_and_tell, write_many

from lexmax.index.errors import DatasetError, IndexFormatError, StorageError
from lexmax.retrieval.feedback.clicks import Impression
from lexmax.retrieval.feedback.log import ClickLog


def counted(log):
    return {query: (each.n_times, each.counts) for query, each in log.read().queries.items()}


def impression(number, **more):
    return Impression(query=f"query {number}", shown=["a", "b\nü", "c"], clicked=["c"], **more)


@pytest.fixture
def log(tmp_path):
    return ClickLog(tmp_path / "clicks.log", create=True)


def test_counts_by_query_document_and_rank(log):
    log.add([Impression(query=" vaccines ", shown=["a", "b"], clicked=["b"]), Impression(query="other", shown=["a"])])
    log.add([Impression(query="vaccines", shown=["b", "c"], clicked=["b", "c"], first_rank=2)])
    assert counted(log) == {
        "vaccines": (2, {("a", 1): (1, 0), ("b", 2): (2, 2), ("c", 3): (1, 1)}),
        "other": (1, {("a", 1): (1, 0)}),
    }


def test_readers_go_on_where_they_were(log):
    log.add([impression(1)])
    first = log.read()
    assert first.restarted
    log.add([impression(2)])
    second = log.read(first.position)
    assert list(second.queries) == ["query 2"]
    assert not second.restarted
    assert not log.read(second.position).queries


def test_every_truncation_keeps_the_lines_before_it_and_takes_new_ones(log):
    for number in range(3):
        log.add([impression(number), impression(number + 10)])
    whole, expected = log.path.read_bytes(), counted(log)
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(ends[0], len(whole) + 1):
        log.path.write_bytes(whole[:size])
        n_lines = sum(end <= size for end in ends) - 1
        kept = {query: each for query, each in expected.items() if int(query.split()[1]) % 10 < n_lines}
        assert counted(ClickLog(log.path)) == kept
        again = ClickLog(log.path)
        again.add([impression(99)])
        assert counted(again) == kept | {"query 99": (1, expected["query 0"][1])}


def test_a_hole_of_zeros_at_the_end_is_torn(log):
    log.add([impression(1)])
    sound = log.path.read_bytes()
    for tail in (bytes(50), bytes(50) + b"\n", b"00000000 [[" + bytes(9) + b"]]\n"):
        log.path.write_bytes(sound + tail)
        assert list(counted(ClickLog(log.path))) == ["query 1"]
        ClickLog(log.path).add([impression(2)])
        assert list(counted(log)) == ["query 1", "query 2"]


def test_flipped_bits_are_damage(log):
    for number in range(2):
        log.add([impression(number)])
    whole = log.path.read_bytes()
    first = whole.index(b"\n") + 1
    for at in range(first, len(whole) - 1, 7):
        if whole[at : at + 1] != b"\n":
            log.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(IndexFormatError, match=r"expected a sound line [23]"):
                log.read()
            with pytest.raises(IndexFormatError):
                ClickLog(log.path).add([impression(3)])
            assert len(log.path.read_bytes()) == len(whole)


@pytest.mark.parametrize(
    "value",
    [
        1, {}, [1], [["q", 1]], [["q", 0, []]], [["q", "1", []]], [[1, 1, []]], [["q", 1, [["a", 0, 1, 0]]]],
        [["q", 1, [["a", 1, 1, 2]]]], [["q", 1, [["a", 1, 2, 0]]]], [["q", 1, [[1, 1, 1, 0]]]], [["q", 1, [["a", 1.0, 1, 0]]]],
        [["q", 1, [["a", 1, True, 0]]]], [["q", 1, 3]], [["q", True, []]],
    ],
)  # fmt: skip
def test_lines_of_right_checksums_and_wrong_content_are_refused(value, log):
    text = json.dumps(value).encode()
    with log.path.open("ab") as file:
        file.write(b"%08x %s\n" % (zlib.crc32(text), text))
    with pytest.raises(IndexFormatError, match="sound line 2"):
        log.read()


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"some text\nof another file\n", b"00000000 {}\n", b"x" * 5000])
def test_other_files_are_refused_and_left_alone(content, tmp_path):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(IndexFormatError, match="expected a click log"):
        ClickLog(path, create=True)
    assert path.read_bytes() == content


def test_a_newer_version_is_refused(log):
    header = log.path.read_bytes()[9:-1].replace(b'"version":1', b'"version":2')
    log.path.write_bytes(b"%08x %s\n" % (zlib.crc32(header), header))
    with pytest.raises(IndexFormatError, match="upgrade lexmax"):
        log.read()


def test_a_log_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match="there is no click log here"):
        ClickLog(tmp_path / "clicks.log")
    with pytest.raises(StorageError):
        ClickLog(tmp_path / "no" / "clicks.log", create=True)
    assert not list(tmp_path.iterdir())


def test_a_full_log_takes_nothing_until_it_is_compacted(tmp_path):
    log = ClickLog(tmp_path / "clicks.log", create=True, max_bytes=1000)
    while log.path.stat().st_size < 900:
        log.add([impression(1)])
    with pytest.raises(StorageError, match=r"the click log is full, at [\d,]+ of 1,000 bytes: `lexmax feedback compact"):
        log.add([impression(1)] * 2)
    n_times = counted(log)["query 1"][0]
    before, after = log.compact()
    assert after < before <= 1000
    log.add([impression(1)])
    assert counted(log)["query 1"] == (n_times + 1, {
        ("a", 1): (n_times + 1, 0), ("b\nü", 2): (n_times + 1, 0), ("c", 3): (n_times + 1, n_times + 1)
    })  # fmt: skip


def test_compacting_loses_no_count_and_restarts_readers(log):
    for number in range(50):
        log.add([impression(number % 7), impression(number % 3, first_rank=11)])
    reader, writer = ClickLog(log.path), ClickLog(log.path)
    position, before = reader.read().position, counted(log)
    writer.add([impression(0)])
    log.compact()
    writer.add([impression(1)])
    news = reader.read(position)
    assert news.restarted
    assert sum(each.n_times for each in news.queries.values()) == 102
    assert set(news.queries) == set(before)
    assert [path.name for path in log.path.parent.iterdir()] == ["clicks.log"]


def no_space(*_):
    raise OSError(28, "No space left on device")


def refused_by(what, patch, log):
    """Let the system refuse to sync, or to write more than a few bytes."""
    if what == "fsync":
        patch.setattr(os, "fsync", no_space)
        return contextlib.nullcontext()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 20, hard))
    after = contextlib.ExitStack()
    after.callback(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
    return after


@pytest.mark.parametrize("what", ["fsync", "write"])
def test_what_the_disk_refuses_is_not_logged(what, log):
    log.add([impression(1)])
    before = log.path.read_bytes()
    with pytest.MonkeyPatch.context() as patch, refused_by(what, patch, log), pytest.raises(StorageError):
        log.add([impression(2)])
    assert log.path.read_bytes() == before
    log.add([impression(3)])
    assert list(counted(log)) == ["query 1", "query 3"]


def test_processes_write_and_compact_at_the_same_time(log):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(log.path, first)) for first in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        log.read()
    assert all(writer.exitcode == 0 for writer in writers)
    assert counted(log) == {f"q{n}": (3, {(f"d{i}", 1): (1, 1) for i in range(3)}) for n in range(100)}


@pytest.mark.parametrize("n_told", [1, 7, 40])
def test_a_killed_writer_loses_nothing_that_it_told(n_told, log):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    writer = context.Process(target=write_and_tell, args=(log.path, theirs))
    writer.start()
    theirs.close()  # a writer that dies early ends the wait
    told = [ours.recv() for _ in range(n_told)]
    writer.kill()
    writer.join()
    with contextlib.suppress(EOFError):
        while True:
            told.append(ours.recv())
    logged = list(counted(log))
    assert logged[: len(told)] == [f"q{number}" for number in told]
    assert len(logged) <= len(told) + 1
    log.add([impression(1)])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"query": " "}, ValueError, "the query has 1 characters"),
        ({"query": "x" * 20_001}, ValueError, "the query has 20,001 characters"),
        ({"query": 1}, TypeError, "a query is a string"),
        ({"query": "\ud800"}, ValueError, "half of a surrogate pair"),
        ({"shown": []}, ValueError, "0 documents shown"),
        ({"shown": [str(i) for i in range(1001)]}, ValueError, "1,001 documents shown"),
        ({"shown": ["a", "a"]}, ValueError, "a document is shown twice"),
        ({"shown": ["a", ""]}, ValueError, "doc_id '' must have 1 to 1024 bytes"),
        ({"shown": ["ü" * 600]}, ValueError, "must have 1 to 1024 bytes"),
        ({"shown": "a"}, TypeError, "shown are a sequence of strings"),
        ({"clicked": ["b"]}, ValueError, "a click on 'b', which was not shown"),
        ({"clicked": ["a", "a"]}, ValueError, "a document is clicked twice"),
        ({"first_rank": 0}, ValueError, "first_rank must be at least 1"),
        ({"first_rank": 10_001}, ValueError, "ranks end at 10,000"),
        ({"first_rank": "1"}, TypeError, "first_rank is a whole number"),
    ],
)
def test_wrong_impressions_are_refused(given, error, message):
    with pytest.raises(error) as caught:
        Impression(**({"query": "q", "shown": ["a"]} | given))
    assert message in str(caught.value)


def test_only_impressions_are_logged(log):
    with pytest.raises(TypeError, match="a click log takes impressions, not dict"):
        log.add([{"query": "q"}])
    log.add([])
    assert not counted(log)
