import pytest

from lexmax import EncoderMismatchError, load_encoder
from lexmax.retrieval.encoders.lexical import LexicalEncoder
from lexmax.retrieval.encoders.registry import encoder_of
from lexmax.retrieval.fields import encoder_record


def bag(encoder, text):
    vectors = encoder.encode_documents([text])
    terms, counts = vectors.row(0)
    return {vectors.vocabulary[t]: int(c) for t, c in zip(terms.tolist(), counts.tolist(), strict=True)}


def test_words_are_lowered_stemmed_counted_and_stopped():
    assert bag(LexicalEncoder(), "The Cats and a cat's CAT, running: run!") == {"cat": 3, "run": 2}


def test_unicode_words_and_numbers():
    encoder = LexicalEncoder(stemmer="none", stop_words="none")
    assert bag(encoder, "Größe Ελλάδα COVID-19 x 日本語") == {
        "grösse": 1,
        "ελλάδα": 1,
        "covid": 1,
        "19": 1,
        "x": 1,
        **dict.fromkeys(["日", "本", "語", "日本", "本語"], 1),
    }


def test_two_words_of_one_stem_of_which_one_is_a_stop_word():
    assert bag(LexicalEncoder(), "its it") == bag(LexicalEncoder(), "its")


def test_batches_and_single_texts_agree():
    encoder, texts = LexicalEncoder(), ["one two three two", "", "three four"]
    batch = encoder.encode_documents(texts)
    for i, text in enumerate(texts):
        terms, counts = batch.row(i)
        assert {batch.vocabulary[t]: int(c) for t, c in zip(terms.tolist(), counts.tolist(), strict=True)} == bag(encoder, text)


def test_settings_make_the_same_encoder_and_others_are_told_apart():
    encoder = LexicalEncoder(k1=0.9, stemmer="german")
    record = encoder_record(encoder)
    assert encoder_of(record).fingerprint == encoder.fingerprint
    prints = {
        LexicalEncoder(**s).fingerprint for s in ({}, {"k1": 0.9}, {"b": 0.4}, {"stemmer": "none"}, {"stop_words": "none"})
    }
    assert len(prints) == 5
    with pytest.raises(EncoderMismatchError, match="bm25:"):
        encoder_of(record, b=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "bm25", "model": "x"}, "no model"),
        ({"kind": "nonsense"}, "unknown encoder"),
        ({"kind": "slim"}, "needs a model"),
        ({"kind": "bm25", "stemmer": "klingon"}, "unknown stemmer"),
        ({"kind": "bm25", "stop_words": "french"}, "stop words"),
    ],
)
def test_wrong_arguments_say_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(**arguments)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError):
        load_encoder("bm25", k2=1)
