"""The tokenizer that a checkpoint's files describe: the ids are those that transformers' own reader gives.

Two kinds of folders are read here, without transformers: a plain BERT (tokenizer.json or vocab.txt, settings in
tokenizer_config.json), and a tokenizer.json that stands for itself. Every other one (SentencePiece, BPE, added tokens, settings
that are not known here) is read by transformers. What transformers would ignore, and what it has no fast tokenizer for, is
refused by name.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, BertWordPieceTokenizer, Tokenizer, models, normalizers, pre_tokenizers

from ....index.errors import MissingDependencyError, RepresentationError
from .files import read_json

BERT_SPECIALS = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip
SPECIALS = (*BERT_SPECIALS, "bos_token", "eos_token")
BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer")
GENERIC_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")
# Options of tokenizer_config.json that decide how BERT reads text: their names in a BertNormalizer, and BERT's defaults.
BERT_OPTIONS: dict[str, tuple[str, bool | None]] = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}
# Settings that change no id of a text that is neither padded nor cut by the tokenizer, or that are read apart.
HARMLESS = {
    "additional_special_tokens", "added_tokens_decoder", "backend", "clean_up_tokenization_spaces",
    "do_basic_tokenize", "extra_special_tokens", "full_tokenizer_file", "is_local", "local_files_only", "max_len", "max_length",
    "model_input_names", "model_max_length", "name_or_path", "never_split", "pad_to_multiple_of", "pad_token_type_id",
    "padding_side", "processor_class", "special_tokens_map_file", "stride", "tokenizer_class", "tokenizer_file",
    "truncation_side", "truncation_strategy", "use_fast",
}  # fmt: skip
FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer as it was read.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
        Without padding and truncation.
    cuts_left : bool
        Whether a text that is too long loses its beginning, not its end.
    digest : str
        Hash of whatever changes the ids.
    """

    tokenizer: Tokenizer
    cuts_left: bool
    digest: str


def has_tokenizer(folder: Path) -> bool:
    """Tell whether the folder holds tokenizer files."""
    return any((folder / name).is_file() for name in FILES)


def read_tokenizer(folder: Path, *, lowercase: bool = False) -> TokenizerFiles:
    """Read the tokenizer in a folder.

    Parameters
    ----------
    folder : Path
        Holds tokenizer.json, or a vocabulary, with tokenizer_config.json beside it if there is one.
    lowercase : bool
        Lower-case the text before the tokenizer does its own.

    Raises
    ------
    RepresentationError
        When no tokenizer is there, it cannot be read, or ids would not be those that its files state.
    MissingDependencyError
        When it takes transformers to read it, and that is not installed.
    """
    if not has_tokenizer(folder):
        raise RepresentationError(
            f"{folder} holds neither tokenizer.json nor vocab.txt, nor another vocabulary; save the model's tokenizer there "
            "(AutoTokenizer.from_pretrained(...).save_pretrained(folder))"
        )
    try:
        return _read(folder, lowercase=lowercase)
    except (AttributeError, TypeError, ValueError) as error:
        raise RepresentationError(f"{folder}: the tokenizer's files are malformed: {error}") from error


def _read(folder: Path, *, lowercase: bool) -> TokenizerFiles:
    stated = read_json(folder / "tokenizer_config.json")
    _refuse_settings(folder, stated)
    tokenizer, source, options = _plain(folder, stated) or _by_transformers(folder)
    _check_added(folder, tokenizer, stated)
    options["lowercase"] = lowercase and _lowercase_first(tokenizer)
    truncation = tokenizer.truncation or {}
    side = str(stated.get("truncation_side") or truncation.get("direction") or "right").lower()
    tokenizer.no_truncation()
    cuts_left = side == "left"
    if any(tokenizer.encode("a", add_special_tokens=True).type_ids):
        raise RepresentationError(
            f"{folder}: the tokenizer gives texts token types other than 0, which lexmax does not pass on"
        )
    facts = json.dumps(options).encode() + b"left" * cuts_left
    return TokenizerFiles(tokenizer, cuts_left, hashlib.sha256(source + facts).hexdigest())


def _refuse_settings(folder: Path, stated: Any) -> None:
    """Refuse settings that slow tokenizers obeyed and transformers ignores today, and code of the checkpoint's own."""
    specials = {*BERT_SPECIALS.values(), *(_content(stated.get(name)) for name in SPECIALS)}
    problems = {
        "never_split": set(stated.get("never_split") or ()) - specials,
        "do_basic_tokenize": stated.get("do_basic_tokenize", True) is False,
        "auto_map": "AutoTokenizer" in (stated.get("auto_map") or {}),
        "word_tokenizer_type": stated.get("word_tokenizer_type") not in (None, "basic"),
        "subword_tokenizer_type": stated.get("subword_tokenizer_type") not in (None, "wordpiece"),
    }
    for name, problem in problems.items():
        if problem:
            raise RepresentationError(
                f"{folder / 'tokenizer_config.json'}: {name} is {stated[name]!r}, which fast tokenizers do not know: token ids "
                "would not be those of the model's training; convert the tokenizer to a tokenizer.json, or take another model"
            )


def _plain(folder: Path, stated: Any) -> tuple[Tokenizer, bytes, dict[str, Any]] | None:
    """Tokenizer, and what to hash (bytes and options), of a folder that needs no transformers; None for another."""
    named = stated.get("tokenizer_class") or read_json(folder / "config.json").get("tokenizer_class")
    kind = {"bert": "BertTokenizer", "distilbert": "BertTokenizer"}.get(read_json(folder / "config.json").get("model_type"))
    kind = str(named).removesuffix("Fast") if named else kind
    whole, bare = folder / "tokenizer.json", folder / "vocab.txt"
    if set(stated) - HARMLESS - set(SPECIALS) - set(BERT_OPTIONS) or kind not in (*BERT_CLASSES, *GENERIC_CLASSES, None):
        return None
    if whole.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(whole))
        except Exception as error:  # the library raises bare Exception for a malformed file
            raise RepresentationError(f"{whole} is not a tokenizer: {error}") from error
    elif bare.is_file() and kind not in GENERIC_CLASSES:
        tokenizer = _bert(bare)
    else:
        return None
    tokenizer.no_padding()
    if not _knows_added(tokenizer, folder, stated):
        return None
    options = {name: stated[name] for name in BERT_OPTIONS if name in stated}
    if kind in BERT_CLASSES and not _is_bert(tokenizer, stated):
        return None
    if kind not in GENERIC_CLASSES and isinstance(tokenizer.normalizer, normalizers.BertNormalizer):
        defaults = {name: default for name, (_, default) in BERT_OPTIONS.items() if kind is not None}
        unstated = _set_options(tokenizer.normalizer, {**defaults, **options}) - set(options)
        options |= {name: defaults[name] for name in sorted(unstated)}
    return tokenizer, (whole if whole.is_file() else bare).read_bytes(), dict(options)


def _bert(path: Path) -> Tokenizer:
    """Tokenizer of a BERT's vocab.txt."""
    tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    missing = [token for token in BERT_SPECIALS.values() if token not in vocabulary]
    if missing or len(vocabulary) < len(tokens):
        problem = f"lacks {', '.join(missing)}" if missing else "names a token twice"
        raise RepresentationError(f"{path} is not a BERT vocabulary: it {problem}")
    return Tokenizer.from_str(BertWordPieceTokenizer(vocab=vocabulary).to_str())


def _is_bert(tokenizer: Tokenizer, stated: Any) -> bool:
    """Whether transformers' BertTokenizer, which takes the vocabulary alone, would do what this tokenizer does."""
    model, normalizer = tokenizer.model, tokenizer.normalizer
    if not isinstance(model, models.WordPiece) or not isinstance(normalizer, normalizers.BertNormalizer):
        return False
    framed = tokenizer.encode("", add_special_tokens=True).tokens
    usual = all(_content(stated.get(name, token)) == token for name, token in BERT_SPECIALS.items())
    return (
        usual and framed == ["[CLS]", "[SEP]"] and normalizer.clean_text
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and (model.continuing_subword_prefix, model.max_input_chars_per_word, model.unk_token) == ("##", 100, "[UNK]")
    )  # fmt: skip


def _set_options(normalizer: Any, options: dict[str, bool | None]) -> set[str]:
    """Set a BertNormalizer; returns the names of the options that this changed."""
    changed = set()
    for name, value in options.items():
        attribute = BERT_OPTIONS[name][0]
        if getattr(normalizer, attribute) != value:
            setattr(normalizer, attribute, value)
            changed.add(name)
    return changed


def _knows_added(tokenizer: Tokenizer, folder: Path, stated: Any) -> bool:
    """Whether the tokenizer has every added and special token that the other files name, as they name it."""
    held = {str(token.content): token for token in tokenizer.get_added_tokens_decoder().values()}
    named = {**read_json(folder / "special_tokens_map.json"), **stated}
    wanted = {_content(named[name]) for name in SPECIALS if named.get(name)}
    for name in ("additional_special_tokens", "extra_special_tokens"):
        more = named.get(name) or ()
        wanted |= {_content(token) for token in (more.values() if isinstance(more, dict) else more)}
    decoder = stated.get("added_tokens_decoder") or {}
    same = all(
        isinstance(token, dict) and token.get("content") in held and _flags(token) == _flags(held[token["content"]])
        for token in decoder.values()
    )  # fmt: skip
    listed = {_content(token) for token in decoder.values()}
    foreign = [token for token in held.values() if decoder and str(token.content) not in listed]
    return (
        same and all(token in held and held[token].special for token in wanted)
        and all(token.special for token in foreign)  # such as markers that tokenizer.json alone knows
        and set(read_json(folder / "added_tokens.json")) <= set(held)
    )  # fmt: skip


def _check_added(folder: Path, tokenizer: Tokenizer, stated: Any) -> None:
    """Refuse a tokenizer that gives added tokens other ids than the files state, as transformers does without a word."""
    for name, entries in (
        ("tokenizer_config.json", {_content(token): int(i) for i, token in (stated.get("added_tokens_decoder") or {}).items()}),
        ("added_tokens.json", read_json(folder / "added_tokens.json")),
    ):
        for token, number in entries.items():
            found = tokenizer.token_to_id(token)
            if found != number:
                raise RepresentationError(
                    f"{folder / name}: the added token {token!r} has the id {number}, but the vocabulary beside it gives "
                    f"{found}: put the tokenizer files of one model together"
                )


def _by_transformers(folder: Path) -> tuple[Tokenizer, bytes, dict[str, Any]]:
    """Tokenizer, and what to hash, as transformers reads the folder."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError("transformers", "encode", f"the tokenizer in {folder}") from error
    from ..networks.loading import quiet_transformers

    advice = "save it as a tokenizer.json (AutoTokenizer.from_pretrained(...).save_pretrained(folder))"
    try:
        with quiet_transformers():
            made: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers, sentencepiece and tokenizers raise a dozen unrelated kinds here
        named = read_json(folder / "tokenizer_config.json").get("tokenizer_class") or "tokenizer"
        raise RepresentationError(f"{folder}: transformers cannot read the {named}: {error}; {advice}") from error
    if not made.is_fast:
        raise RepresentationError(f"{folder}: {type(made).__name__} is no fast tokenizer; {advice}, or take another model")
    tokenizer: Tokenizer = made.backend_tokenizer
    if made.truncation_side == "left":
        tokenizer.enable_truncation(1 << 20, direction="left")
    else:
        tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, tokenizer.to_str().encode(), {"splits_specials": tokenizer.encode_special_tokens}


def _lowercase_first(tokenizer: Tokenizer) -> bool | str:
    """Lower-case before whatever the tokenizer does, as sentence-transformers does; returns what to hash of it."""
    normalizer = tokenizer.normalizer
    is_bert = isinstance(normalizer, normalizers.BertNormalizer)
    if is_bert and normalizer.lowercase:
        return True
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([] if normalizer is None else [normalizer])])
    return "accents kept" if is_bert else True


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _flags(token: Any) -> tuple[bool, ...]:
    """What an added token does to the text around it, of its JSON or of a tokenizers.AddedToken."""
    names = ("lstrip", "rstrip", "single_word", "normalized", "special")
    if isinstance(token, AddedToken):
        return tuple(bool(getattr(token, name)) for name in names)
    return tuple(bool(token.get(name, False)) for name in names)
