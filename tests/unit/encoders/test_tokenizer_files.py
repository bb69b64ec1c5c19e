"""Token ids are those of transformers' own tokenizer, whatever the files beside a checkpoint state; or they are refused."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import models
import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram

from lexmax.index.errors import MissingDependencyError, RepresentationError
from lexmax.retrieval.encoders.checkpoints import tokenizer_files
from lexmax.retrieval.encoders.wordpieces import Wordpieces

VOCABULARY = [*models.VOCABULARY, "É", "é", "e", "中", "SUN", "Sun", "[unused0]", "[unused1]", "wxy"]
N = len(VOCABULARY)
TEXTS = [
    "Sun SUN sun, É é e 中sun", "[unused0] the weather", "[MASK]now [SEP] [sep]", "foo the foobar", "  sunny\tday\n ", "",
    "İstanbul", "the wxy Wxy", "<s> sun </s> <mask>",
]  # fmt: skip
ADDED = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True, "special": False}


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers") / "bert"
    models.tokenizer(VOCABULARY).save_pretrained(folder)
    models.write_json(folder / "config.json", {"model_type": "bert"})
    return folder


@pytest.fixture
def folder(bert, tmp_path) -> Path:
    return shutil.copytree(bert, tmp_path / "model")


def edit(path: Path, **changes) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    content.update({key: value for key, value in changes.items() if value is not ...})
    models.write_json(path, {key: value for key, value in content.items() if changes.get(key) is not ...})


def edit_tokenizer(folder: Path, **normalizer) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"].update(normalizer)
    models.write_json(folder / "tokenizer.json", content)


def only_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer.json").unlink()


def expected(folder: Path, max_length: int = 64) -> list[list[int]]:
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return made(TEXTS, truncation=True, max_length=max_length)["input_ids"]


def check(folder: Path) -> Wordpieces:
    """Ids equal those of transformers, cut or not, also apart from the special tokens."""
    pieces = Wordpieces(folder)
    for max_length in (64, 5):
        assert pieces.encode(TEXTS, max_length=max_length) == expected(folder, max_length)
    framed = [[*pieces.head, *ids, *pieces.tail] for ids in pieces.pieces(TEXTS)]
    assert framed == expected(folder)
    return pieces


@pytest.mark.parametrize("vocabulary_alone", [False, True])
@pytest.mark.parametrize("name", ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizerFast", ...])
@pytest.mark.parametrize(
    "options",
    [
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"do_lower_case": True, "strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"do_lower_case": ..., "strip_accents": ...},
    ],
)
def test_options_of_bert(folder, name, options, vocabulary_alone, monkeypatch):
    edit(folder / "tokenizer_config.json", tokenizer_class=name, **options)
    if vocabulary_alone:
        only_vocabulary(folder)
    check(folder)


@pytest.mark.parametrize("name", ["BertTokenizer", ..., "PreTrainedTokenizerFast", "TokenizersBackend"])
@pytest.mark.parametrize("stated", [True, False, ...])
def test_a_tokenizer_json_that_disagrees_with_the_settings_beside_it(folder, name, stated):
    edit_tokenizer(folder, lowercase=False)
    edit(folder / "tokenizer_config.json", tokenizer_class=name, do_lower_case=stated)
    check(folder)
    before = Wordpieces(folder).digest
    edit_tokenizer(folder, lowercase=True, strip_accents=False)
    check(folder)
    assert Wordpieces(folder).digest != before


def test_plain_tokenizers_are_read_without_transformers(folder, monkeypatch):
    def fail(folder):
        raise AssertionError("transformers was asked")

    monkeypatch.setattr(tokenizer_files, "_by_transformers", fail)
    check(folder)
    edit(folder / "tokenizer_config.json", do_lower_case=False, truncation_side="left", padding_side="left")
    check(folder)
    only_vocabulary(folder)
    check(folder)


def test_a_text_may_lose_its_beginning(folder):
    whole = Wordpieces(folder).terms("the sun in the city")
    edit(folder / "tokenizer_config.json", truncation_side="left")
    pieces = check(folder)
    assert pieces.terms("the sun in the city", max_length=2) == whole[-2:]
    assert pieces.cut([1, 2, 3], 5) == [1, 2, 3]
    right = Wordpieces(folder).digest
    edit(folder / "tokenizer_config.json", truncation_side="right")
    assert Wordpieces(folder).digest != right


def test_the_side_of_a_tokenizer_json_counts_where_no_other_is_stated(folder):
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.enable_truncation(7, direction="left")
    made.enable_padding(length=9)
    made.save(str(folder / "tokenizer.json"))
    edit(folder / "tokenizer_config.json", truncation_side=...)
    pieces = check(folder)
    assert pieces.terms("the sun in the city", max_length=1) == pieces.terms("city")


@pytest.mark.parametrize("vocabulary_alone", [False, True])
@pytest.mark.parametrize("special", [False, True])
def test_added_tokens_of_every_file(folder, vocabulary_alone, special):
    """added_tokens.json, added_tokens_decoder and special tokens that tokenizer.json does not have."""
    if vocabulary_alone:
        only_vocabulary(folder)
    other = shutil.copytree(folder, folder.with_name("decoder"))
    edit(folder / "tokenizer_config.json", added_tokens_decoder=...)
    edit(folder / "added_tokens.json", foo=N)
    assert check(folder).token_id("foo") == N
    plain = {**ADDED, "normalized": False, "special": True}
    decoder = {str(i): {**plain, "content": token} for i, token in enumerate(models.SPECIALS)}
    token = {**ADDED, "content": "foo", "special": special, "normalized": not special}
    edit(other / "tokenizer_config.json", added_tokens_decoder={**decoder, str(N): token})
    pieces = check(other)
    assert pieces.token_id("foo") == N
    assert (N in pieces.special_ids) == special
    assert (Wordpieces(other).digest != Wordpieces(folder).digest) == special


@pytest.mark.parametrize("key", ["additional_special_tokens", "extra_special_tokens", "my_token"])
def test_further_special_tokens(folder, key):
    edit(folder / "tokenizer_config.json", **{key: "[unused0]" if key == "my_token" else ["[unused0]"]})
    assert VOCABULARY.index("[unused0]") in check(folder).pieces(["[unused0] sun"])[0]


def test_an_added_token_of_another_id_than_the_file_states_is_refused(folder):
    edit(folder / "tokenizer_config.json", added_tokens_decoder=...)
    edit(folder / "added_tokens.json", foo=N + 5)
    with pytest.raises(
        RepresentationError, match=rf"added_tokens\.json: the added token 'foo' has the id {N + 5}, but .* {N}: put"
    ):
        Wordpieces(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}, "word_tokenizer_type is 'mecab'"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "transformers cannot read the BertJapaneseTokenizer"),
        ({"subword_tokenizer_type": "character"}, "subword_tokenizer_type is 'character'"),
        ({"never_split": ["SUN"]}, r"never_split is \['SUN'\]"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize is False"),
        ({"auto_map": {"AutoTokenizer": ["tokenization.Own", None]}}, "auto_map is"),
        ({"tokenizer_class": "BertweetTokenizer"}, "transformers cannot read the BertweetTokenizer|is no fast tokenizer"),
    ],
)
def test_settings_that_no_fast_tokenizer_obeys_are_refused_by_name(folder, changes, message):
    edit(folder / "tokenizer_config.json", **changes)
    with pytest.raises(RepresentationError, match=message):
        Wordpieces(folder)
    edit(
        folder / "tokenizer_config.json", **{**dict.fromkeys(changes, ...), "never_split": ["[SEP]"], "do_basic_tokenize": True}
    )
    check(folder)


def test_lower_casing_before_the_tokenizer_keeps_accents(folder):
    """As sentence-transformers does for do_lower_case: true of sentence_bert_config.json."""
    from sentence_transformers.base.modules import Transformer

    edit(folder / "tokenizer_config.json", do_lower_case=False)
    models.masked_lm(n_terms=N).bert.save_pretrained(folder)
    reference = Transformer(str(folder), do_lower_case=True)
    wanted = reference.preprocess(TEXTS)
    ids = [row[: sum(mask)] for row, mask in zip(wanted["input_ids"].tolist(), wanted["attention_mask"].tolist(), strict=True)]
    pieces = Wordpieces(folder, lowercase=True)
    assert pieces.encode(TEXTS, max_length=64) == ids
    assert pieces.terms("É") == [VOCABULARY.index("é")]
    assert pieces.digest != Wordpieces(folder).digest


def unigram(name: str, specials: list[str]) -> Any:
    import transformers

    pieces = ["▁sun", "▁the", "▁", "s", "u", "n", "t", "h", "e", "o", "f", "▁S", "▁weather", "é", "ny"]
    vocabulary = [*((token, 0.0) for token in specials), *((piece, -float(i + 1)) for i, piece in enumerate(pieces))]
    return getattr(transformers, name)(vocab=vocabulary)


def byte_pairs(name: str) -> Any:
    import transformers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *letters, "Ġs", "Ġsu", "Ġsun", "su", "sun", "th", "the", "<mask>"]
    merges = [("Ġ", "s"), ("Ġs", "u"), ("Ġsu", "n"), ("s", "u"), ("su", "n"), ("t", "h"), ("th", "e")]
    return getattr(transformers, name)(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)


OTHERS = {
    "xlm-roberta": lambda: unigram("XLMRobertaTokenizer", ["<s>", "<pad>", "</s>", "<unk>"]),
    "camembert": lambda: unigram("CamembertTokenizer", ["<s>", "<pad>", "</s>", "<unk>"]),
    "roberta": lambda: byte_pairs("RobertaTokenizer"),
    "longformer": lambda: byte_pairs("RobertaTokenizer"),
}


@pytest.mark.parametrize("family", OTHERS)
def test_sentencepiece_and_byte_pairs_are_read_by_transformers(family, tmp_path):
    OTHERS[family]().save_pretrained(tmp_path)
    models.write_json(tmp_path / "config.json", {"model_type": family})
    check(tmp_path)
    edit(tmp_path / "tokenizer_config.json", truncation_side="left")
    check(tmp_path)


def test_mpnet_with_its_vocabulary_alone(folder):
    words = ["<s>", "<pad>", "</s>", "[UNK]", *VOCABULARY[5:], "<mask>"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    models.write_json(folder / "config.json", {"model_type": "mpnet"})
    models.write_json(folder / "tokenizer_config.json", {"tokenizer_class": "MPNetTokenizer", "do_lower_case": True})
    pieces = check(folder)
    assert (pieces.head, pieces.tail) == ((0,), (2,))


def test_a_tokenizer_json_of_a_pipeline_of_its_own(tmp_path):
    """As ModernBERT has it: no BERT, no class of transformers."""
    made = Tokenizer(BPE({"a": 0, "b": 1, "ab": 2, "[UNK]": 3, "[CLS]": 4}, [("a", "b")], unk_token="[UNK]"))  # noqa: S106
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    made.add_special_tokens([AddedToken("[UNK]", normalized=False), AddedToken("[CLS]", normalized=False)])
    tmp_path.mkdir(exist_ok=True)
    made.save(str(tmp_path / "tokenizer.json"))
    stated = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "do_lower_case": False}
    models.write_json(tmp_path / "tokenizer_config.json", stated)
    models.write_json(tmp_path / "config.json", {"model_type": "modernbert"})
    assert check(tmp_path).pieces(["ABab b"]) == [[2, 2, 3, 1]]


def test_token_types_are_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["single"][1]["Sequence"]["type_id"] = 1
    models.write_json(folder / "tokenizer.json", content)
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    with pytest.raises(RepresentationError, match="token types other than 0"):
        Wordpieces(folder)


def test_what_takes_transformers_says_so_without_it(folder, monkeypatch):
    edit(folder / "added_tokens.json", foo=N)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match="transformers"):
        Wordpieces(folder)


def test_no_vocabulary_and_no_json_object(tmp_path, folder):
    with pytest.raises(RepresentationError, match=r"neither tokenizer\.json nor vocab\.txt"):
        Wordpieces(tmp_path / "nowhere")
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(RepresentationError, match=r"tokenizer_config\.json is not a JSON object: it holds a list"):
        Wordpieces(folder)


@pytest.mark.parametrize("changes", [{"never_split": 3}, {"added_tokens_decoder": ["a"]}, {"added_tokens_decoder": {"x": {}}}])
def test_settings_of_other_types_are_refused(folder, changes):
    edit(folder / "tokenizer_config.json", **changes)
    with pytest.raises(RepresentationError, match=r"the tokenizer's files are malformed|transformers cannot read"):
        Wordpieces(folder)


def test_a_tokenizer_that_does_not_know_the_letter_a(tmp_path):
    made = Tokenizer(BPE({"中": 0, "[CLS]": 1}, []))
    made.add_special_tokens([AddedToken("[CLS]", normalized=False)])
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    made.save(str(tmp_path / "tokenizer.json"))
    assert Wordpieces(tmp_path).encode(["中a中"], max_length=9) == [[1, 0, 0]]


def test_unigrams_that_are_no_words_have_no_terms(tmp_path):
    made = Tokenizer(Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)], unk_id=0))
    made.save(str(tmp_path / "tokenizer.json"))
    assert Wordpieces(tmp_path).pieces(["ab"]) == [[1, 2]]
