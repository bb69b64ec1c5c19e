import pytest

from lexmax.index.documents import Document
from lexmax.retrieval.corpora.passages import passages_of


def fits(n_words):
    return lambda text: len(text.split()) <= n_words


def test_a_short_document_stays_itself():
    document = Document(doc_id="a", text="one two three", metadata={"year": 2020})
    assert list(passages_of(document, fits(3))) == [document]


def test_passages_keep_title_metadata_and_every_word():
    text = "One two three four. Five six seven. Eight nine ten eleven twelve? Thirteen!\nFourteen fifteen."
    document = Document(doc_id="a", title="T", text=text, metadata={"year": 2020})
    passages = list(passages_of(document, fits(6)))
    assert [p.doc_id for p in passages] == [f"a#{i}" for i in range(1, len(passages) + 1)]
    assert len(passages) > 1
    assert all(p.title == "T" and p.metadata == {"year": 2020, "parent": "a"} for p in passages)
    assert all(fits(6)(p.content) for p in passages)
    assert " ".join(p.text for p in passages).split() == text.split()


def test_cuts_are_at_sentences_where_there_are_any():
    text = "a b c. d e f. g h i. j k l."
    assert [p.text for p in passages_of(Document(doc_id="a", text=text), fits(6))] == ["a b c. d e f.", "g h i. j k l."]


@pytest.mark.parametrize("text", ["word", "word " * 5, "  word  "])
def test_what_cannot_be_cut_small_enough_stays_whole(text):
    passages = list(passages_of(Document(doc_id="a", text=text), lambda text: False))
    assert " ".join(p.text for p in passages).split() == text.split()
