"""Documents by columns are the same documents."""

import pytest

from lexmax.index.document_buffer import DocumentBuffer, DocumentColumns
from lexmax.index.documents import BATCH_ROWS, Document, DocumentStore
from lexmax.index.errors import DatasetError

DOCUMENTS = [
    Document(doc_id="a", text="plain"),
    Document(doc_id="é", title="Ünïcode", text=""),
    Document(doc_id="c", text="東京", metadata={"year": 2020}),
]


def test_columns_are_a_sequence_of_their_documents():
    columns = DocumentColumns.of(DOCUMENTS)
    assert list(columns) == DOCUMENTS
    assert columns[2] == DOCUMENTS[2]
    assert columns[-1] == DOCUMENTS[-1]
    assert list(columns[1:]) == DOCUMENTS[1:]
    assert DocumentColumns.of(columns) is columns
    assert columns.contents == [document.content for document in DOCUMENTS]
    assert columns.n_chars == 5 + 7 + 2 + 8
    assert DocumentColumns.of(DOCUMENTS[:2]).metadata is None


def test_joined_columns_keep_the_metadata_of_those_that_have_any():
    parts = [DocumentColumns.of(DOCUMENTS[:2]), DocumentColumns.of(DOCUMENTS[2:])]
    assert list(DocumentColumns.joined(parts)) == DOCUMENTS
    assert DocumentColumns.joined(parts[:1]) is parts[0]


def test_what_is_no_document_is_refused():
    with pytest.raises(TypeError, match="a Document is expected, not str"):
        DocumentColumns.of(["text"])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (Document(doc_id="", text=""), "1 to 1024 bytes"),
        (Document(doc_id="x" * 1025, text=""), "1 to 1024 bytes"),
        (Document(doc_id="é" * 513, text=""), "1 to 1024 bytes"),
        (Document(doc_id="\ud800", text=""), "doc_id holds half of a surrogate"),
        (Document(doc_id="x", title="\ud800", text=""), "'x': the title holds half"),
        (Document(doc_id="x", text="\ud800"), "'x': the text holds half"),
    ],
)
def test_what_cannot_be_stored_is_told(document, message):
    DocumentColumns.of(DOCUMENTS).check()
    with pytest.raises(DatasetError, match=message):
        DocumentColumns.of([*DOCUMENTS, document]).check()


def test_the_buffer_writes_the_documents_in_equal_batches_however_they_came(tmp_path):
    rows = [Document(doc_id=str(i), text=f"text {i}", title="é" * (i % 2)) for i in range(2 * BATCH_ROWS + 5)]
    for step in (700, len(rows)):
        buffer, folder = DocumentBuffer({}), tmp_path / str(step)
        for first in range(0, len(rows), step):
            buffer.extend(rows[first : first + step], {})
        folder.mkdir()
        buffer.write(folder)
        store = DocumentStore(folder)
        assert [batch.num_rows for batch in store.batches()] == [BATCH_ROWS, BATCH_ROWS, 5]
        assert store.get_many(range(len(rows))) == rows
