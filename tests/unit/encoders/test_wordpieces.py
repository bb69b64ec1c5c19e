from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.wordpieces import Wordpieces


@pytest.fixture
def only_vocabulary(models, tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(models.VOCABULARY) + "\n", encoding="utf-8")
    return tmp_path


def test_ids_equal_those_of_transformers(raw, models):
    theirs = AutoTokenizer.from_pretrained(raw)
    assert len(theirs) == len(models.VOCABULARY)
    for length in (4, 9, 64):
        expected = theirs(models.TEXTS, truncation=True, max_length=length)["input_ids"]
        assert Wordpieces(raw).encode(models.TEXTS, max_length=length) == expected


def test_vocab_txt_alone_reads_like_tokenizer_json(raw, only_vocabulary, models):
    expected = Wordpieces(raw).encode(models.TEXTS, max_length=64)
    assert Wordpieces(only_vocabulary).encode(models.TEXTS, max_length=64) == expected


@pytest.mark.parametrize(("lower", "expected"), [(True, ["sun"]), (False, ["[UNK]"])])
def test_vocab_txt_follows_do_lower_case(only_vocabulary, lower, expected):
    (only_vocabulary / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    pieces = Wordpieces(only_vocabulary)
    ids = pieces.encode(["SUN"], max_length=8)[0]
    assert [pieces.tokens[number] for number in ids] == ["[CLS]", *expected, "[SEP]"]


def test_tokenizer_config_wins_over_tokenizer_json(raw, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "cased")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "do_lower_case": False}))
    assert Wordpieces(folder).terms("SUN") == []
    assert Wordpieces(folder).digest != Wordpieces(raw).digest
    assert Wordpieces(folder, lowercase=True).terms("SUN") == Wordpieces(raw).terms("SUN") != []


def test_padding_and_truncation_in_tokenizer_json_are_off(raw, tmp_path, models):
    folder = shutil.copytree(raw, tmp_path / "padded")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(content))
    expected = Wordpieces(raw).encode(models.TEXTS, max_length=64)
    assert Wordpieces(folder).encode(models.TEXTS, max_length=64) == expected


def test_special_tokens_are_no_terms_even_when_typed(raw, models):
    pieces = Wordpieces(raw)
    assert pieces.special_ids == set(range(5))
    assert pieces.terms("[CLS] sun [SEP] zzz") == [models.VOCABULARY.index("sun")]


def test_bags_count_repeats_once_and_cut(raw, models):
    pieces = Wordpieces(raw)
    weights = np.arange(len(models.VOCABULARY), dtype=np.float32)
    bag = pieces.bags(["the sun the weather", "the sun weather", ""], weights, max_length=3)
    the, weather, sun = (models.VOCABULARY.index(word) for word in ("the", "weather", "sun"))
    assert bag.row(0)[0].tolist() == [the, sun]
    assert bag.row(1)[0].tolist() == [the, weather, sun]
    assert bag.row(1)[1].tolist() == [the, weather, sun]
    assert bag.row(2)[0].tolist() == []


def test_vocabulary_names_spare_rows_and_refuses_another_models_size(raw, models):
    pieces, n = Wordpieces(raw), len(models.VOCABULARY)
    assert pieces.vocabulary(n) == models.VOCABULARY
    assert pieces.vocabulary(n + 2) == [*models.VOCABULARY, f"[id {n}]", f"[id {n + 1}]"]
    for wrong in (n - 1, 30522):
        with pytest.raises(RepresentationError, match=f"{n} tokens but the model {wrong}"):
            pieces.vocabulary(wrong)


def test_bad_tokenizer_files_are_refused(tmp_path):
    with pytest.raises(RepresentationError, match=r"neither tokenizer\.json nor vocab\.txt"):
        Wordpieces(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nsun\n")
    with pytest.raises(RepresentationError, match=r"lacks \[CLS\], \[SEP\], \[MASK\]"):
        Wordpieces(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nsun\nsun\n")
    with pytest.raises(RepresentationError, match="twice"):
        Wordpieces(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(RepresentationError, match="is not a tokenizer"):
        Wordpieces(tmp_path)
