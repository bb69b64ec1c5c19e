"""Single bits in every array that is verified when it is read: noticed by whoever reads them, or no answer changes."""

import numpy as np
import pytest
from all_kinds import build, queries_of, use
from damage import flip

from lexmax import Collection, IndexFormatError
from lexmax.index.array_files import ArrayFile
from lexmax.index.check import check_index
from lexmax.index.preludes import PRELUDE_BYTES, parse_prelude
from lexmax.index.snapshot import Snapshot

N_FLIPS = 6


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """An index whose arrays have chunks of their own."""
    path = tmp_path_factory.mktemp("damaged") / "idx"
    build(path, n=4000, width=60, n_tokens=6, text_bytes=200, id_bytes=10)
    return path


@pytest.fixture(scope="module")
def queries():
    return queries_of(3, 100, exhaustive=False)


@pytest.fixture(scope="module")
def sound(path, queries):
    return use(path, queries)


def entries(file):
    kind = parse_prelude(file, file.read_bytes()[:PRELUDE_BYTES]).kind
    return ArrayFile(file, kind)._entries


def answers_or_damage(path, queries):
    try:
        return use(path, queries)
    except IndexFormatError as failure:
        return failure


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *(("field-splade-*/inverted.lex", name) for name in ("slots", "impacts", "dense", "columns", "forward")),
        *(("field-colbert-*/multivector.lex", name) for name in ("levels", "scalars", "codes", "list_documents")),
        *(("field-colbert-*/tokens.lex", name) for name in ("records", "slots", "starts", "checks")),
        *(("field-slim-*/sparse_tokens.lex", name) for name in ("ranks", "impacts", "indptr")),
        ("segment-*/documents.lex", "arrow"),
        ("segment-*/doc_ids.lex", "characters"),
    ],
)
def test_a_flipped_bit_is_noticed_or_harmless(path, queries, sound, file, name):
    chosen = min(path.glob(file))
    entry = entries(chosen)[name]
    rng = np.random.default_rng(len(name))
    noticed = 0
    for position in rng.integers(entry.offset, entry.end, N_FLIPS).tolist():
        flip(chosen, position, 3)
        found = answers_or_damage(path, queries)
        flip(chosen, position, 3)
        if isinstance(found, IndexFormatError):
            assert found.path == chosen
            assert name in str(found) or "documents" in str(found)
            noticed += 1
        else:
            assert found == sound
    assert noticed or name == "arrow"  # of which a search reads some batches
    assert use(path, queries) == sound


def test_damage_to_documents_is_told_where_they_are_read(path):
    """A filter reads columns, a search the batches of what it found, `check` all; other batches are served."""
    chosen = min(path.glob("segment-*/documents.lex"))
    file = ArrayFile(chosen, "documents")
    position = file._entries["arrow"].offset + int(file.array("batches", "int64", (None, 2))[1, 1]) - 100  # metadata
    flip(chosen, position, 0)
    message = r"documents\.lex: expected documents 1024 to 2047 of the segment, which have CRC-32 \w+ of bytes .* 'arrow'"
    try:
        snapshot = Snapshot.open(path)
        assert snapshot.get_many([1])[0].doc_id.startswith("d1")
        with pytest.raises(IndexFormatError, match=message):
            snapshot.masks("nested.a > 3")
        with pytest.raises(IndexFormatError, match=message):
            snapshot.get_many([1500])
        assert snapshot.get_many([2])[0].doc_id.startswith("d2")
        assert [chosen.name in problem for problem in check_index(path)] == [True]
        with pytest.raises(IndexFormatError, match=r"documents\.lex"), Collection.open(path) as collection:
            collection.compact()
    finally:
        flip(chosen, position, 0)
    assert check_index(path) == []


def test_frequencies_of_deleted_documents_are_read_verified(path):
    chosen = min(path.glob("field-bm25-*/inverted.lex"))
    entry = entries(chosen)["forward"]
    flip(chosen, entry.offset + 5, 0)  # the first document is deleted
    try:
        field = Snapshot.open(path).field("bm25")
        with pytest.raises(IndexFormatError, match="'forward'"):
            field.document_frequencies(np.array([3], np.int32))
    finally:
        flip(chosen, entry.offset + 5, 0)
