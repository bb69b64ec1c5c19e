"""Words of texts in many scripts: a table of what is expected, and each text found again through an index."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmax import Retriever, build_index
from lexmax.retrieval.encoders.lexical import LexicalEncoder
from lexmax.retrieval.encoders.words import find_words, is_latin, normalized

WORDS = {
    "हिन्दी में किताब": "हिन्दी में किताब",
    "क्षेत्र १२": "क्षेत्र 12",
    "தமிழ் மொழி": "தமிழ் மொழி",
    "नेपाली भाषा": "नेपाली भाषा",
    "مكتبة كـــتاب، ٣٤": "مكتبة كتاب 34",
    "مُحَمَّد": "مُحَمَّد",
    "שלום עולם": "שלום עולם",
    "می\u200cخواهم": "میخواهم",
    "Ἀθῆναι ΟΔΟΣ οδός": "ἀθῆναι οδοσ οδόσ",
    "Россия ЁЛКА": "россия ёлка",
    "İstanbul ISTANBUL Isparta ısparta": "istanbul istanbul isparta isparta",
    "Häuser Ha\u0308user HÄUSER": "häuser häuser häuser",
    "Straße STRASSE": "strasse strasse",
    "Tiếng Việt Đường": "tiếng việt đường",
    "nai\u0308ve naïve": "naïve naïve",
    "ｆｕｌｌ ﬁne ①": "full fine 1",
    "m² CO₂": "m2 co2",
    "Windows™ co\u00adop": "windows coop",
    "don't it’s the cats' O'Brien l'été they'll": "don it the cats o brien l été they",
    "'s'": "s",
    "state-of-the-art COVID-19": "state of the art covid 19",
    "https://example.org/a_b?x=é": "https example org a b x é",
    "3.14 1,000 5": "3 14 1 000 5",
    "C, R and C++": "c r and c",
    "I ❤️ 🍕 👩🏽\u200d💻!": "i ❤ 🍕 👩 💻",
    "-- !? \u0301": "",
    "猫": "猫",
    "東京都": "東 京 都 東京 京都",
    "ｶﾞｷﾞ": "ガ ギ ガギ",
    "iPhone手机16版": "iphone 手 机 手机 16 版",
    "학교에서 책": "학 교 에 서 학교 교에 에서 책",
    "นี่คือ": "นี่ คื อ นี่คื คือ",
    "ខ្មែរ": "ខ្ មែ រ ខ្មែ មែរ",
    "ພາສາ": "ພ າ ສ າ ພາ າສ ສາ",
}


@pytest.mark.parametrize(("text", "words"), WORDS.items(), ids=range(len(WORDS)))
def test_words_of_many_scripts(text, words):
    assert find_words(text) == words.split()


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_normal_forms_have_the_same_words(form):
    for text in WORDS:
        assert find_words(unicodedata.normalize(form, text.replace("™", ""))) == find_words(text.replace("™", ""))


@given(st.text(max_size=60))
def test_any_text_has_the_words_of_its_decomposed_form(text):
    """Except compatibility characters whose decomposition has spaces or other words inside, which NFKD would show."""
    assert find_words(unicodedata.normalize("NFD", text)) == find_words(text)


def test_a_query_has_pairs_alone_where_there_are_two_characters():
    assert find_words("東京都 猫 C", query=True) == ["東京", "京都", "猫", "c"]


def test_accents_are_folded_on_request():
    texts = "Häuser Ångström Łódź ĐƯỜNG ΟΔΌΣ Ёлка مُحَمَّد שָׁלוֹם"
    assert find_words(texts, fold=True) == ["hauser", "angstrom", "lodz", "duong", "οδοσ", "елка", "محمد", "שלום"]
    assert find_words("がっこう हिन्दी", fold=True) == find_words("がっこう हिन्दी")  # their marks are no accents


def test_turkish_lowers_its_own_letters():
    assert find_words("ISPARTA İSTANBUL ı i", turkish=True) == ["ısparta", "istanbul", "ı", "i"]


FINDS = [
    ("हिन्दी में किताब", "किताब"),
    ("தமிழ் மொழி", "மொழி"),
    ("नेपाली भाषा", "भाषा"),
    ("مكتبة المدينة", "مكتبة"),
    ("ภาษาไทยง่ายนิดเดียว", "ไทย"),
    ("我爱北京天安门", "北京"),
    ("我爱北京天安门", "爱"),
    ("東京都に行く猫", "猫"),
    ("オープンソース", "ソース"),
    ("안녕하세요 학교에서", "학교"),
    ("İstanbul'da", "istanbul"),
    ("die HÄUSER", "ha\u0308user"),
    ("die Straße", "STRASSE"),
    ("ΟΔΥΣΣΕΎΣ", "οδυσσεύς"),
    ("Tiếng Việt", unicodedata.normalize("NFD", "tiếng việt")),
    ("the language C", "C"),
    ("the language R", "r"),
    ("chromosome X", "X"),
    ("good 🍕 here", "🍕"),
    ("the cat's nose", "cat"),
    ("l'été dernier", "été"),
    ("vitamin B 6", "6"),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "idx"
    texts = [*dict.fromkeys(text for text, _ in FINDS), *(f"other number {i + 10}" for i in range(30))]
    build_index(out=path, documents=[{"id": text, "text": text} for text in texts], encoders=["bm25"])
    return path


@pytest.mark.parametrize(("text", "query"), FINDS, ids=range(len(FINDS)))
def test_text_is_found_in_any_script(index, text, query):
    with Retriever.open(index) as retriever:
        assert text in [hit.doc_id for hit in retriever.search(query)]


def test_accents_join_words_end_to_end_when_they_are_folded(tmp_path):
    documents = [{"id": "a", "text": "Häuser"}, {"id": "b", "text": "Hauser"}]
    build_index(out=tmp_path / "folded", documents=documents, encoders=["bm25,fold_accents=true,stemmer=none"])
    build_index(out=tmp_path / "kept", documents=documents, encoders=["bm25,stemmer=none"])
    with Retriever.open(tmp_path / "folded") as folded, Retriever.open(tmp_path / "kept") as kept:
        assert {hit.doc_id for hit in folded.search("häuser")} == {"a", "b"}
        assert {hit.doc_id for hit in kept.search("häuser")} == {"a"}


TEXTS = st.lists(
    st.text(st.sampled_from("aAbzZ019 _-'\u2019stéÉ\u0301\u00a0\u0085\n\x1c\x00東京İı😀"), max_size=30), max_size=8
)


@pytest.mark.parametrize("tokenizer", ["words", "whitespace"])
@settings(deadline=None)  # the first example loads kernels
@given(texts=TEXTS)
def test_counts_of_documents_are_those_of_their_words(tokenizer, texts):
    encoder = LexicalEncoder(tokenizer=tokenizer, stemmer="none", stop_words="none")
    found = encoder.encode_documents(texts)
    words = [find_words(text) if tokenizer == "words" else normalized(text).split() for text in texts]
    assert found.vocabulary == list(dict.fromkeys(word for each in words for word in each))
    for i, each in enumerate(words):
        terms, counts = found.row(i)
        assert dict(zip((found.vocabulary[term] for term in terms), counts.tolist(), strict=True)) == Counter(each)


@pytest.mark.parametrize(
    "chosen", [{}, {"tokenizer": "whitespace"}, {"stemmer": "turkish"}, {"min_length": 2, "stop_words": ["st"]}]
)
@settings(deadline=None)
@given(texts=TEXTS)
def test_lists_of_words_are_counted_as_their_text(chosen, texts):
    encoder = LexicalEncoder(**chosen)
    lists = [text.split(" ") for text in texts]
    found, expected = encoder.encode_tokens(iter(lists)), encoder.encode_documents(texts)
    assert found.vocabulary == expected.vocabulary
    for name in ("indptr", "terms", "weights"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


@pytest.mark.parametrize(
    ("lists", "error", "message"),
    [
        ("cats purr", TypeError, "not str"),
        (["cats", "purr"], TypeError, "one of them is str"),
        ([["cats"], None], TypeError, "one of them is NoneType"),
        ([["cats", 3]], TypeError, r"words of token_lists\[1\] is int"),
        ([["cats", ["purr"]]], TypeError, "lists of words"),
        ([["cats", "\ud800"]], ValueError, "surrogate"),
    ],
)
def test_what_is_no_list_of_words_is_refused(lists, error, message):
    with pytest.raises(error, match=message):
        LexicalEncoder().encode_tokens(lists)


def test_a_batch_of_many_distinct_words_is_numbered_in_their_order():
    words = [f"w{i}" for i in range(30_000)]
    found = LexicalEncoder(stemmer="none").encode_documents([" ".join(words), " ".join(words[::-1])])
    assert found.vocabulary == words
    assert found.terms.tolist() == 2 * list(range(30_000))
    assert (found.weights == 1).all()


def test_texts_that_another_tool_has_cut():
    encoder = LexicalEncoder(tokenizer="whitespace", stemmer="none", stop_words="none")
    assert encoder.encode_documents(["我 爱 北京 天安门 C++"]).vocabulary == ["我", "爱", "北京", "天安门", "c++"]


def test_stop_words_of_a_file_are_part_of_the_encoder(tmp_path):
    file = tmp_path / "stop.txt"
    file.write_text("der\ndie das\nÜBER\n")
    encoder = LexicalEncoder(stop_words=str(file), stemmer="none")
    assert encoder.encode_documents(["der Hund über die Katze the"]).vocabulary == ["hund", "katze", "the"]
    file.unlink()
    again = LexicalEncoder(**encoder.settings)
    assert again.fingerprint == encoder.fingerprint != LexicalEncoder(stemmer="none").fingerprint
    with pytest.raises(ValueError, match="a file of words"):
        LexicalEncoder(stop_words=str(file))


def test_every_setting_is_in_the_fingerprint():
    changes = [
        {"min_length": 2},
        {"fold_accents": True},
        {"tokenizer": "whitespace"},
        {"stop_words": ["x"]},
        {"stemmer": "none"},
    ]
    assert len({LexicalEncoder(**change).fingerprint for change in [{}, *changes]}) == 6
    assert LexicalEncoder(min_length=2).encode_documents(["C cat"]).vocabulary == ["cat"]
    for wrong, message in [
        ({"min_length": 0}, "min_length"),
        ({"tokenizer": "jieba"}, "whitespace"),
        ({"stop_words": 5}, "list"),
    ]:
        with pytest.raises(ValueError, match=message):
            LexicalEncoder(**wrong)


def test_texts_that_are_not_in_latin_letters_are_noticed(tmp_path):
    assert all(is_latin(text) for text in ("plain", "", "123 !", "naïve “quotes”", "a little 東京"))
    assert not any(is_latin(text) for text in ("日本語です", "Москва 2020"))
    documents = [{"id": str(i), "text": "東京都に行く"} for i in range(3)] + [{"id": "e", "text": "english"}]
    report = build_index(out=tmp_path / "a", documents=documents, encoders=["bm25", "lexmax-inference-free"])
    assert report.foreign == ("inference-free",)
    assert build_index(out=tmp_path / "b", documents=documents, encoders=["bm25"]).foreign == ()
