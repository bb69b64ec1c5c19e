"""Sets of shards on object stores, by a folder's address: whole commits, verified, sent once."""

import json

import pytest

from lexmax import IndexFormatError, Retriever
from lexmax.__main__ import main
from lexmax.retrieval.shards.building import build_shards
from lexmax.retrieval.shards.changing import add_to_shards, compact_shards, delete_from_shards
from lexmax.retrieval.shards.remote import download, upload


@pytest.fixture
def folder(tmp_path):
    lines = [json.dumps({"_id": f"d{i}", "text": "wing flutter" + " of a jet" * (i % 3)}) for i in range(20)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    build_shards(tmp_path / "corpus.jsonl", tmp_path / "set", n_shards=2, encoders=["bm25"])
    return tmp_path / "set"


def found(path):
    with Retriever.open(path) as retriever:
        return [(each.doc_id, each.score) for each in retriever.search("jet propeller", 30)]


def files(path):
    return {str(each.relative_to(path)): each.stat().st_mtime_ns for each in path.rglob("*") if each.is_file()}


def test_commits_go_through_a_store_and_only_what_is_new(folder, tmp_path, capsys):
    store, copy = tmp_path / "store", tmp_path / "copy"
    address = store.as_uri()
    assert main(["shards", str(folder), "--upload", address]) == 0
    before = files(store)
    assert main(["shards", str(copy), "--download", address]) == 0
    assert "commit 1 of the set, 20 documents" in capsys.readouterr().err
    assert found(copy) == found(folder)
    assert main(["check", str(copy)]) == 0
    reading = Retriever.open(copy)
    add_to_shards(None, folder, documents=[{"id": "new", "text": "propeller"}])
    delete_from_shards(folder, ["d1"])
    upload(folder, address)
    changed = {name for name, time in files(store).items() if before.get(name) != time}
    assert "shards.json" in changed
    assert not changed & {name for name in before if name.endswith(".lex")}
    download(address, copy)
    assert len(reading.search("jet", 30)) == 13
    assert reading.reload()
    assert reading.search("propeller")[0].doc_id == "new"
    assert found(copy) == found(folder)
    compact_shards(folder)
    upload(folder, address)
    assert download(address, copy).generation == download(address, copy).generation
    assert found(copy) == found(folder)
    assert main(["check", str(copy)]) == 0


def test_what_is_damaged_on_the_way_changes_nothing(folder, tmp_path):
    address = (tmp_path / "store").as_uri()
    upload(folder, address)
    download(address, tmp_path / "copy")
    before = found(tmp_path / "copy")
    add_to_shards(None, folder, documents=[{"id": "new", "text": "propeller"}])
    known = files(tmp_path / "store")
    upload(folder, address)
    for name in sorted(set(files(tmp_path / "store")) - set(known)):
        path = tmp_path / "store" / name
        content = path.read_bytes()
        for damaged in (content[:-1], content[: len(content) // 2] + b"\0\xff" + content[len(content) // 2 + 2 :]):
            path.write_bytes(damaged)
            with pytest.raises(IndexFormatError):
                download(address, tmp_path / "copy")
            assert found(tmp_path / "copy") == before
        path.write_bytes(content)
    download(address, tmp_path / "copy")
    assert found(tmp_path / "copy") == found(folder)


def test_other_sets_addresses_and_folders_are_refused(folder, tmp_path, capsys):
    address = (tmp_path / "store").as_uri()
    upload(folder, address)
    build_shards(tmp_path / "corpus.jsonl", tmp_path / "other", n_shards=2, encoders=["bm25"])
    for arguments in (
        ["shards", str(tmp_path / "other"), "--upload", address],
        ["shards", str(tmp_path / "other"), "--download", address],
        ["shards", str(tmp_path), "--download", address],
        ["shards", str(tmp_path / "x"), "--download", (tmp_path / "nothing").as_uri()],
        ["shards", str(tmp_path / "x"), "--download", "nonsense://a:secret@b"],
        ["shards", str(tmp_path / "x"), "--upload", address],
    ):
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert told.startswith("lexmax: ")
        assert "secret" not in told
    assert not (tmp_path / "x").exists()
