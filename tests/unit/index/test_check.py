"""What `check_index` notices although every checksum and identity is right, and what it says when it could not look."""

import json
import zlib

import numpy as np
import pytest
from damage import recommit, rewrite
from several_fields import Fields

from lexmax import Collection, IndexFormatError, StorageError
from lexmax.index.check import check_index
from lexmax.index.snapshot import Snapshot


@pytest.fixture(scope="module")
def several():
    return Fields(40)


@pytest.fixture
def path(tmp_path, several):
    """An index of two segments and several fields with deleted documents."""
    path = tmp_path / "idx"
    with Collection.create(path, several.new) as collection:
        collection.add(*several.batch(*range(25)))
        collection.commit()
        collection.add(*several.batch(*range(25, 40)))
        collection.delete(["d3"])
        collection.commit()
    return path


def changed(at, value):
    def change(array):
        array[at] = value
        return array

    return change


def added(at):
    def change(array):
        array[at] += 1
        return array

    return change


def swapped(array):
    array[[0, 1]] = array[[1, 0]]
    return array


@pytest.mark.parametrize(
    ("file", "name", "change", "problem"),
    [
        ("field-splade-*/inverted.lex", "kth", added((2, 1)), "kth that follow"),
        ("field-splade-*/inverted.lex", "dense", added((0, 0)), "dense that follow"),
        ("field-splade-*/inverted.lex", "impacts", added(3), "impacts that follow"),
        ("field-splade-*/inverted.lex", "slots", added(3), "slots that follow"),
        ("field-bm25-*/inverted.lex", "lengths", added(2), "total_length"),
        ("field-colbert-*/multivector.lex", "list_documents", swapped, "lists that follow"),
        ("field-slim-*/sparse_tokens.lex", "impacts", added(0), "tokens whose maxima"),
        ("vocabulary-*.lex", "hashes", swapped, "hashes that follow"),
        ("vocabulary-*.lex", "order", swapped, "hashes that follow"),
        ("segment-*/doc_ids.lex", "hashes", swapped, "hashes that follow"),
        ("codec-*.lex", "rotation", changed((0, 0), 0.5), "a rotation"),
    ],
)
def test_arrays_that_only_a_reader_would_stumble_on(path, file, name, change, problem):
    chosen = min(path.glob(file))
    rewrite(chosen, {name: change})
    recommit(path)
    problems = check_index(path)
    assert len(problems) == 1, problems
    assert str(chosen) in problems[0] or chosen.parent.name in problems[0]
    assert problem in problems[0]


@pytest.mark.parametrize(
    ("segment", "part", "change", "problem"),
    [
        (0, None, {"n_deleted": 2}, "expected 2 deleted documents, found 1"),
        (0, "splade", {"n_postings": 1}, "expected n_postings 1, found"),
        (0, "colbert", {"n_tokens": 1}, "expected n_tokens 1, found"),
        (1, "bm25", {"total_length": 1}, "expected total_length 1, found"),
    ],
)
def test_counts_of_the_manifest(path, segment, part, change, problem):
    def change_body(body):
        record = body["segments"][segment]
        (record if part is None else record["parts"][part]).update(change)

    seal(path, change_body)
    assert any(problem in each for each in check_index(path))


def seal(path, change):
    """Change the body of a manifest; its checksum is right."""
    record = json.loads((path / "manifest.json").read_text())
    change(record["body"])
    del record["crc32"]
    record["crc32"] = zlib.crc32(json.dumps(record, sort_keys=True).encode())
    (path / "manifest.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(generation="2"),
        lambda body: body.update(generation=-1),
        lambda body: body.update(generation=True),
        lambda body: body.update(build_id=None),
        lambda body: body.pop("build_id"),
        lambda body: body.update(build_id="0\0" * 16),
        lambda body: body.update(build_id="../elsewhere"),
        lambda body: body["identities"].update({"../elsewhere.lex": next(iter(body["identities"].values()))}),
        lambda body: body.update(segments={}),
        lambda body: body.update(extra=1),
        lambda body: body.pop("fields"),
        lambda body: body.update(metadata={"year": 3}),
        lambda body: body.update(metadata={"year": "x"}),
        lambda body: body["fields"]["colbert"]["state"].update(calibration=[1]),
        lambda body: body["fields"]["splade"]["state"].update(given={"scale": "1"}),
        lambda body: body["segments"][0].update(n_docs=0),
        lambda body: body["segments"][0].update(n_docs=10.5),
        lambda body: body["segments"][0].update(n_deleted=26),
        lambda body: body["segments"][0].update(name="../elsewhere"),
        lambda body: body["segments"][0].update(deletes=["x"]),
        lambda body: body["segments"][0]["parts"].pop("bm25"),
        lambda body: body["segments"][0]["parts"].update(other=body["segments"][0]["parts"]["bm25"]),
        lambda body: body["segments"][0]["parts"]["bm25"].update(folder="field-bm25/../../x"),
        lambda body: body["segments"][0]["parts"]["bm25"].update(error={"relative": "much"}),
        lambda body: body["fields"].update({"no name": body["fields"]["bm25"]}),
        lambda body: body["fields"]["bm25"].update(representation="dense"),
        lambda body: body["fields"]["bm25"].update(complete="yes"),
        lambda body: body["fields"]["bm25"].update(pieces=[{}]),
        lambda body: body["fields"]["bm25"]["state"].update(vocabulary="x"),
        lambda body: body["fields"]["bm25"]["state"].update(vocabulary=[3]),
        lambda body: body["fields"]["splade"]["state"].update(scale=0),
        lambda body: body["fields"]["splade"]["state"].update(scale="1"),
        lambda body: body["fields"]["splade"]["state"].update(scale=float("nan")),
        lambda body: body["fields"]["colbert"]["state"].update(codec=3),
        lambda body: body["fields"]["colbert"]["options"].update(nbits=3),
        lambda body: body["fields"]["colbert"]["options"].update(n_bits=2),
        lambda body: body["fields"]["bm25"]["options"].update(bm25={"k1": "1"}),
        lambda body: body["fields"]["bm25"].update(options=[]),
        lambda body: body["identities"].clear(),
        lambda body: body["identities"].update({min(body["identities"]): {"id": 3}}),
    ],
)
def test_a_manifest_that_no_commit_writes_is_refused(path, change):
    seal(path, change)
    with pytest.raises(IndexFormatError, match=r"manifest\.json|idx"):
        Snapshot.open(path)
    assert len(check_index(path)) >= 1


def test_files_that_were_exchanged_are_named(path, several, tmp_path):
    """Between segments, parts, generations and indexes; every file is sound by itself."""
    other = tmp_path / "other"
    with Collection.create(other, several.new) as collection:
        collection.add(*several.batch(*range(25)))
        collection.commit()
    kinds = ["doc_ids.lex", "documents.lex", "inverted.lex", "multivector.lex", "tokens.lex", "sparse_tokens.lex"]
    pairs = [sorted(path.rglob(kind))[:2] for kind in kinds]
    pairs += [[min(path.rglob(kind)), min(other.rglob(kind))] for kind in [*kinds, "codec-*.lex", "vocabulary-*.lex"]]
    for mine, theirs in pairs:
        whole = mine.read_bytes()
        mine.write_bytes(theirs.read_bytes())
        with pytest.raises(IndexFormatError, match="exchanged") as caught:
            Snapshot.open(path)
        assert caught.value.path == mine
        with pytest.raises(IndexFormatError, match="exchanged"):
            Collection.open(path)
        assert any(str(mine) in problem and "exchanged" in problem for problem in check_index(path))
        mine.write_bytes(whole)
    assert check_index(path) == []


def test_pieces_of_a_field_that_is_being_filled_are_checked(tmp_path, several):
    path = tmp_path / "idx"
    with Collection.create(path, {"bm25": several.new["bm25"]}) as collection:
        collection.add(*several.batch(*range(25), names=["bm25"]))
        collection.commit()
        collection.add_field("splade", several.new["splade"])
        collection._store.writers["splade"].extend(several.vectors["splade"].select(np.arange(10)))
        piece = collection._store.writers["splade"].flush(collection._store.next_name("field-splade"), [], more_to_come=True)
        record = collection._store.records["splade"]
        collection._store.records["splade"] = type(record)(**{**vars(record), "pieces": [piece]})
        collection.commit()
    assert check_index(path) == []
    file = path / piece.folder / "inverted.lex"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    assert any(str(file) in problem for problem in check_index(path))
    file.write_bytes(whole)
    rewrite(file, {"kth": added((0, 1))})
    recommit(path)
    (problem,) = check_index(path)
    assert "kth that follow" in problem


def test_what_could_not_be_looked_at_is_no_problem_of_the_index(path, monkeypatch, capsys):
    from lexmax.__main__ import main
    from lexmax.index import mapping

    target = str(min(path.rglob("inverted.lex")))
    real = mapping.os.open

    def refuse(name, *arguments, **keywords):
        if str(name) == target:
            raise PermissionError(13, "Permission denied", target)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(mapping.os, "open", refuse)
    with pytest.raises(StorageError, match=r"could not look at everything: .*Permission denied"):
        check_index(path)
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(["check", str(path)]))
    assert ended.value.code == 2
    assert "could not look" in capsys.readouterr().err
