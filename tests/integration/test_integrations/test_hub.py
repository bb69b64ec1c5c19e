"""Push and pull of indexes and models, with huggingface_hub itself and a local stub of the hub's HTTP interface."""

import json

import hub_stub
import pytest
from models import raw

from lexmax import IndexFormatError, IndexLockedError, RepresentationError, Retriever, StorageError, build_index
from lexmax.__main__ import main
from lexmax.index.collection import Collection
from lexmax.retrieval.integrations.hub import pull, push


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    with hub_stub.served() as hub:
        yield hub


@pytest.fixture
def index(tmp_path):
    build_index(documents=["cats purr", "dogs bark"], out=tmp_path / "index", encoders=["bm25"])
    return tmp_path / "index"


def test_an_index_is_pushed_and_pulled(hub, index, tmp_path, capsys):
    assert main(["push", str(index), "me/animals", "--private", "--endpoint", hub.url]) == 0
    assert hub.private == {"datasets/me/animals": True}
    assert "write.lock" not in hub.files("datasets/me/animals")
    assert main(["pull", "me/animals", "--out", str(tmp_path / "again"), "--endpoint", hub.url]) == 0
    for path in (index, tmp_path / "again"):
        assert [each.text for each in Retriever.open(path).search("dogs")] == ["dogs bark"]
    assert hub.commit_id("datasets/me/animals") in capsys.readouterr().err


def test_a_push_replaces_what_was_there_and_old_commits_stay(hub, index, tmp_path):
    first = push(index, "me/animals", endpoint=hub.url)
    old = set(hub.files("datasets/me/animals"))
    with Retriever.open(index) as retriever:
        retriever.delete(["0"])
    with Collection.open(index) as collection:
        collection.compact()
        collection.commit()
    push(index, "me/animals", endpoint=hub.url)
    assert set(hub.files("datasets/me/animals")) == {
        path.relative_to(index).as_posix() for path in index.rglob("*") if path.is_file() and path.name != "write.lock"
    }
    assert pull("me/animals", tmp_path / "old", kind="index", revision=first, endpoint=hub.url) == first
    assert len(Retriever.open(tmp_path / "old")) == 2
    assert {path.relative_to(tmp_path / "old").as_posix() for path in (tmp_path / "old").rglob("*") if path.is_file()} >= old


def test_a_model_is_pushed_and_pulled(hub, tmp_path):
    folder = raw(tmp_path / "model")
    push(folder, "me/model", endpoint=hub.url)
    pull("me/model", tmp_path / "again", kind="model", endpoint=hub.url)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    with pytest.raises(StorageError, match="the hub refuses"):
        pull("me/model", tmp_path / "index", kind="index", endpoint=hub.url)


@pytest.mark.parametrize("suffix", [".lex", "manifest.json"])
def test_files_that_differ_from_their_checksums_are_refused(hub, index, tmp_path, suffix):
    push(index, "me/animals", endpoint=hub.url)
    name, content = next(item for item in hub.files("datasets/me/animals").items() if item[0].endswith(suffix))
    hub.served = {name: content[:-1] + bytes([content[-1] ^ 1])}
    with pytest.raises(IndexFormatError, match="expected checksum"):
        pull("me/animals", tmp_path / "again", kind="index", endpoint=hub.url)
    assert not (tmp_path / "again").exists()
    assert not list(tmp_path.glob(".lexmax-*"))


@pytest.mark.parametrize("name", ["run.py", "weights.pkl", "../outside.json", "/etc/x.json", "a\\b.json"])
def test_files_of_other_kinds_and_places_are_never_taken(hub, index, tmp_path, name):
    push(index, "me/animals", endpoint=hub.url)
    hub.files("datasets/me/animals")[name] = b"{}"
    with pytest.raises(RepresentationError, match="is no file of index folders"):
        pull("me/animals", tmp_path / "again", kind="index", endpoint=hub.url)
    assert not any("resolve" in path for _, path in hub.requests)


def test_a_damaged_index_is_neither_pushed_nor_kept(hub, index, tmp_path):
    push(index, "me/animals", endpoint=hub.url)
    files = hub.files("datasets/me/animals")
    name = next(name for name in files if name.endswith("documents.lex"))
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    with pytest.raises(IndexFormatError):
        pull("me/animals", tmp_path / "again", kind="index", endpoint=hub.url)
    (index / name).write_bytes(files[name])
    with pytest.raises(IndexFormatError):
        push(index, "me/other", endpoint=hub.url)
    assert "datasets/me/other" not in hub.repositories


def test_what_cannot_be_done_is_told(hub, index, tmp_path, capsys):
    with pytest.raises(FileExistsError):
        pull("me/animals", index, kind="index", endpoint=hub.url)
    with pytest.raises(StorageError, match="the hub refuses"):
        pull("me/nothing", tmp_path / "again", kind="index", endpoint=hub.url)
    with pytest.raises(RepresentationError, match="neither an index nor a model"):
        push(tmp_path / "home", "me/animals", endpoint=hub.url)
    with Collection.open(index), pytest.raises(IndexLockedError):
        push(index, "me/animals", endpoint=hub.url)
    (raw(tmp_path / "model") / "pytorch_model.bin").write_bytes(b"x")
    assert main(["push", str(tmp_path / "model"), "me/model", "--endpoint", hub.url]) == 2
    assert "pytorch_model.bin is no file of model folders" in capsys.readouterr().err
    assert json.loads((tmp_path / "model" / "config.json").read_text())
