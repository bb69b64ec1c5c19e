"""Whatever system call fails: the index is old or new, the error says which, and nothing is left behind.

A few of the calls that ``tests/stress/failing_calls.py`` lets fail one by one.
"""

import errno
import os
import shutil

import pytest
from failing import FailingCalls, Trials, errors_told, scenarios

from lexmax import Collection, StorageError
from lexmax.__main__ import main
from lexmax.index.check import check_index
from lexmax.index.snapshot import Snapshot


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failing")
    by_name = {each.name: each for each in scenarios(folder)}
    made = {}

    def of(name):
        if name not in made:
            made[name] = Trials(by_name[name], folder / name)
        return made[name]

    return of


@pytest.mark.parametrize(
    ("name", "how", "kinds", "step"),
    [
        ("create", "once", ("rename", "mkdir", "unlink", "rmdir", "list"), 5),
        ("create", "lasting", ("write",), 9),
        ("change", "once", ("fsync",), 25),
        ("change", "memory", ("mmap", "open"), 40),
        ("fill on", "interrupt", ("write", "rename", "fsync"), 90),
        ("build", "lasting", ("fsync", "open"), 40),
        ("build", "memory", ("open",), 40),
        ("build on", "once", ("rename", "fsync", "unlink"), 30),
    ],
)
def test_the_index_is_old_or_new(trials, name, how, kinds, step):
    n_failed, n = 0, 1
    while True:
        call, problems = trials(name).trial(n, how, kinds)
        if call is None:
            break
        assert problems == [], call
        n_failed, n = n_failed + 1, n + step
    assert n_failed >= 2


def test_pieces_of_a_field_that_is_half_filled_and_cannot_be_mapped(trials):
    filling = trials("fill on")
    filling.fresh()
    with FailingCalls(filling.path, kinds=("mmap",)) as counted:
        filling.scenario.act(filling.path)
    numbers = [n for n, call in enumerate(counted.calls, 1) if "field-splade" in call]
    for number in numbers[:3]:  # a part, the piece, and what is written next
        call, problems = filling.trial(number, "memory", ("mmap",))
        assert "field-splade" in call
        assert problems == []


@pytest.fixture
def idx(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"id": "a", "text": "cats purr"}\n{"id": "b", "text": "dogs bark"}\n')
    assert main(["build", str(tmp_path / "c.jsonl"), "--out", str(tmp_path / "idx"), "--encoder", "bm25"]) == 0
    return tmp_path / "idx"


def refuse_syncs_after_renaming(monkeypatch):
    """Let every fsync fail once a file was renamed."""
    real, renamed = os.replace, []

    def replace(source, target):
        real(source, target)
        renamed.append(target)

    def fsync(descriptor, real_fsync=os.fsync):
        if renamed:
            raise OSError(errno.EIO, "Input/output error")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)


def test_a_commit_that_is_published_but_not_synced_says_so(idx, monkeypatch):
    before = set(idx.iterdir())
    with Collection.open(idx) as collection:
        collection.delete(["a"])
        with monkeypatch.context() as patch:
            refuse_syncs_after_renaming(patch)
            with pytest.raises(StorageError, match=r"manifest\.json is published, but may not survive a power cut") as caught:
                collection.commit()
        assert caught.value.committed
        assert collection.manifest.generation == 2
        assert Snapshot.open(idx).n_docs == 1
        assert before <= set(idx.iterdir())  # after a power cut the commit before it would need its files
        with pytest.raises(StorageError, match="failed in the middle of a change: open the index again") as caught:
            collection.delete(["b"])
        assert not caught.value.committed
    with Collection.open(idx) as collection:
        assert collection.manifest.n_docs == 1
    assert check_index(idx) == []


def test_a_commit_that_fails_before_the_renaming_is_not_there(idx, monkeypatch):
    before = sorted(idx.iterdir())
    with Collection.open(idx) as collection:
        collection.delete(["a"])
        with FailingCalls(idx, 1, kinds=("rename",)), pytest.raises(StorageError, match=r"manifest\.json: ") as caught:
            collection.commit()
        assert not caught.value.committed
        with pytest.raises(StorageError, match="what was committed is safe"):
            collection.commit()
    assert sorted(idx.iterdir()) == before
    assert Snapshot.open(idx).n_docs == 2


def test_a_closed_collection_takes_nothing(idx):
    collection = Collection.open(idx)
    collection.close()
    with pytest.raises(StorageError, match="is closed"):
        collection.delete(["a"])
    with pytest.raises(StorageError, match="is closed"):
        collection.commit()


COMMANDS = [
    "build {tmp}/c.jsonl --out {tmp}/new --encoder bm25",
    "add {work} {tmp}/more.jsonl",
    "delete {work} a",
    "compact {work} --reorder",
    "field add {work} other=bm25,b=0.1",
    "field drop {work} other",
    "search {work} cats",
    "info {work}",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_end_in_one_line(idx, tmp_path, capsys, command):
    """Whichever call on the index fails, the exit status is 2, with one line, and the index is whole."""
    (tmp_path / "more.jsonl").write_text('{"id": "c", "text": "cows"}\n')
    if "drop" in command:
        assert main(["field", "add", str(idx), "other=bm25,b=0.1"]) == 0
    n_refused, work, arguments = 0, tmp_path / "work", command.format(tmp=tmp_path, work=tmp_path / "work").split()
    folder = tmp_path / "new" if "--out" in command else work
    for n in range(1, 60, 4):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(idx, work, dirs_exist_ok=True)
        capsys.readouterr()
        with FailingCalls(folder, n, kinds=("open", "write", "mkdir", "fsync", "rename", "mmap")) as failing:
            status = main(arguments)
        if not failing.failed:
            break
        assert check_index(work) == []
        if status:  # not a call of the cleaning up after the commit
            n_refused += 1
            told = errors_told(capsys.readouterr().err)
            assert (status, len(told)) == (2, 1)
            assert folder.name in told[0]
            assert folder is work or "is published" in told[0] or not folder.exists()
    assert n_refused > 1
