"""How commands end: exit status, one line, and what stays when output, folder or process are taken away."""

import errno
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from failing import errors_told

from lexmax import Collection, StorageError
from lexmax.__main__ import main
from lexmax.index.check import check_index
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval import build
from lexmax.retrieval.encoders.lexical import LexicalEncoder

FULL = Path("/dev/full")


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text("".join(f'{{"id": "d{i}", "text": "cats purr {i}"}}\n' for i in range(40)))
    return str(path)


@pytest.fixture
def idx(tmp_path, corpus, capsys):
    assert main(["build", corpus, "--out", str(tmp_path / "idx"), "--encoder", "bm25"]) == 0
    capsys.readouterr()
    return str(tmp_path / "idx")


def told(capsys):
    return errors_told(capsys.readouterr().err)


# --- output ---


@pytest.mark.parametrize(
    "arguments", ["search {} cats", "search {} cats --json", "info {}", "info {} --json", "list {}", "get {} d1"]
)
def test_a_full_disk_under_stdout_is_told(idx, arguments, capsys, monkeypatch):
    with FULL.open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(arguments.format(idx).split()) == 2
    assert told(capsys) == ["lexmax: input or output: No space left on device"]


def test_the_version_on_a_full_disk(capsys, monkeypatch):
    with FULL.open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["--version"]) == 2
    assert told(capsys) == ["lexmax: input or output: No space left on device"]


def test_a_reader_that_leaves_ends_a_command_quietly(idx, capsys, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["list", idx]) == 0
    assert capsys.readouterr().err == ""


def test_a_closed_stdout_is_told_and_a_closed_stderr_ends_nothing(idx, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert main(["search", idx, "cats"]) == 2
    assert told(capsys) == ["lexmax: standard output: closed"]
    with suppress(OSError), monkeypatch.context() as patch, FULL.open("w") as full:  # closing it fails
        patch.setattr(sys, "stderr", None)
        assert main(["delete", idx, "d1"]) == 0
        patch.setattr(sys, "stderr", full)
        assert main(["delete", idx, "d2"]) == 0
    assert Snapshot.open(idx).n_docs == 38


def test_run_files_that_cannot_be_written_are_told(idx, tmp_path, capsys):
    (tmp_path / "q.tsv").write_text("1\tcats\n")
    for target, reason in (
        ("/dev/full", "No space left"),
        (str(tmp_path), "Is a directory"),
        (f"{tmp_path}/no/run", "No such file"),
    ):
        assert main(["search", idx, "--queries", str(tmp_path / "q.tsv"), "--run-out", target]) == 2
        (line,) = told(capsys)
        assert reason in line


# --- the folder of a new index ---


def build_to(out, corpus, *options):
    return main(["build", corpus, "--out", str(out), "--encoder", "bm25", *options])


def test_an_index_takes_the_place_of_no_file(tmp_path, corpus, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        assert build_to(tmp_path / name, corpus) == 2
        assert told(capsys) == [f"lexmax: {tmp_path}/{name} is no folder: an index is a folder of its own, choose another name"]
    assert build_to(tmp_path / "file" / "idx", corpus) == 2
    (line,) = told(capsys)
    assert line == f"lexmax: {tmp_path}/file/idx: Not a directory; run the same command again to continue"
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_an_index_is_built_in_a_folder_behind_a_link_and_beside_other_files(tmp_path, corpus):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to("real")
    assert build_to(tmp_path / "link", corpus) == 0
    assert Snapshot.open(tmp_path / "real").n_docs == 40
    assert (tmp_path / "real" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("bad", ["{tmp}/none.jsonl", "{tmp}/bad.jsonl", "{tmp}/twice.jsonl"])
def test_a_build_that_fails_leaves_neither_lock_nor_folders(tmp_path, capsys, bad):
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "text": "x"}\nno json\n')
    (tmp_path / "twice.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n')
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for out in ("new", "a/b/c", "mine", "mine/sub"):
        assert build_to(tmp_path / out, bad.format(tmp=tmp_path)) == 2
        assert len(told(capsys)) == 1
    assert sorted(tmp_path.rglob("*")) == before


# --- ended by a signal ---


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_a_build_in_order_and_it_goes_on(tmp_path, corpus, capsys, monkeypatch, number, status, word):
    real = LexicalEncoder.encode_documents
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without
    with monkeypatch.context() as patch:
        patch.setattr(LexicalEncoder, "encode_documents", lambda *_: os.kill(os.getpid(), number))
        assert build_to(tmp_path / "a" / "idx", corpus) == status
    assert told(capsys) == [f"lexmax: {word}; run the same command again to continue"]
    assert not (tmp_path / "a").exists()

    calls = []

    def encode(self, texts):
        calls.append(len(texts))
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return real(self, texts)

    with monkeypatch.context() as patch:
        patch.setattr(LexicalEncoder, "encode_documents", encode)
        patch.setattr(build, "MAX_BATCH", 16)
        assert build_to(tmp_path / "idx", corpus) == status
    assert Snapshot.open(tmp_path / "idx").n_docs == 32  # two whole batches of 16
    assert build_to(tmp_path / "idx", corpus) == 0
    assert "8 documents, 32 from an earlier run" in capsys.readouterr().err
    assert check_index(tmp_path / "idx") == []


@pytest.mark.parametrize("command", ["delete {idx} d1", "compact {idx}", "field add {idx} other=bm25,b=0.1"])
def test_a_signal_during_a_commit_leaves_the_index_as_it_was(idx, capsys, monkeypatch, command):
    before = sorted(Path(idx).iterdir())
    monkeypatch.setattr("lexmax.index.segment_store.publish", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert main(command.format(idx=idx).split()) == 143
    assert told(capsys)[0].startswith("lexmax: terminated")
    assert sorted(Path(idx).iterdir()) == before
    assert Snapshot.open(idx).n_docs == 40
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# --- run again ---


def kill_after_the_last_commit(*_):
    raise SystemExit(9)


def test_a_build_that_was_killed_after_its_last_commit_is_finished(tmp_path, corpus, capsys, monkeypatch):
    monkeypatch.setattr(Collection, "close", kill_after_the_last_commit)
    with pytest.raises(SystemExit):
        build_to(tmp_path / "idx", corpus)
    monkeypatch.undo()
    assert build_to(tmp_path / "idx", corpus) == 0
    assert "is finished already: 40 documents" in capsys.readouterr().err
    assert main(["build", corpus, "--out", str(tmp_path / "idx"), "--encoder", "bm25,b=0.1"]) == 2
    assert "holds an index already" in capsys.readouterr().err


def test_a_field_that_was_filled_by_a_killed_run_is_finished(idx, capsys, monkeypatch):
    """The default search, which comes with the last commit, is set by the second run."""
    real, n_commits = Collection.commit, []

    def commit(self):
        if self.search == "bm25 + other":
            raise SystemExit(9)
        n_commits.append(1)
        return real(self)

    arguments = ["field", "add", idx, "other=bm25,b=0.1", "--search", "bm25 + other"]
    monkeypatch.setattr(Collection, "commit", commit)
    with pytest.raises(SystemExit):
        main(arguments)
    monkeypatch.undo()
    assert n_commits
    assert Snapshot.open(idx).manifest.search == "bm25"
    assert main(arguments) == 0
    assert "has the field other: nothing was left to encode" in capsys.readouterr().err
    assert Snapshot.open(idx).manifest.search == "bm25 + other"
    assert main(arguments) == 0


# --- what the system refuses ---


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/x/a.lex"), "/x/a.lex: Too many open files"),
        (MemoryError(), "out of memory"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (EOFError("Compressed file ended"), "Compressed file ended"),
    ],
)
def test_refusals_of_the_system_are_storage_errors(idx, capsys, monkeypatch, refusal, reason):
    def refuse(*_, **__):
        raise refusal

    with monkeypatch.context() as patch:
        patch.setattr("lexmax.index.segment_store.sync_folder", refuse)
        with Collection.open(idx) as collection:
            collection.delete(["d1"])
            with pytest.raises(StorageError, match=reason) as caught:
                collection.commit()
        assert not caught.value.committed
        assert main(["delete", idx, "d1"]) == 2
    assert told(capsys) == [f"lexmax: {idx}: {reason}"]
    with monkeypatch.context() as patch:
        patch.setattr("lexmax.index.snapshot.open_segments", refuse)
        with pytest.raises(StorageError, match=reason):
            Snapshot.open(idx)
        assert main(["search", idx, "cats"]) == 2
    assert told(capsys) == [f"lexmax: {idx}: {reason}"]


def test_an_error_of_lexmax_itself_is_one_line_too(idx, capsys, monkeypatch):
    def fail(*_, **__):
        raise KeyError("x")

    monkeypatch.setattr("lexmax.index.snapshot.open_segments", fail)
    assert main(["info", idx]) == 2
    assert told(capsys) == [
        "lexmax: an error of its own, KeyError: 'x' (`python -X dev -m lexmax` shows where; please report it)"
    ]
