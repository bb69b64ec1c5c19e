"""A checkpoint's JSON files, read without torch: what every layout's reader asks of them.

Every key of a file is obeyed, harmless, or refused by name (`check_keys`): an unknown setting may change vectors.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ....index.errors import RepresentationError

NO_LIMIT = 2**20
LIBRARIES = ("sentence_transformers", "pylate")


def read_json(path: Path) -> Any:
    """Content of a JSON file, an object; an empty dict when there is none.

    Raises
    ------
    RepresentationError
        When the file is not JSON, or holds no object.
    """
    content = _read(path)
    if not isinstance(content, dict):
        raise RepresentationError(f"{path} is not a JSON object: it holds a {type(content).__name__}")
    return content


def _read(path: Path) -> Any:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RepresentationError(f"{path} is not JSON: {error}") from error


def check_keys(path: Path, content: Any, known: Collection[str]) -> None:
    """Refuse a JSON file with a setting that is none of ``known`` and is not empty.

    Raises
    ------
    RepresentationError
        Names the file, the key and its value.
    """
    for key, value in content.items():
        if key not in known and value not in (None, "", [], {}):
            raise RepresentationError(
                f"{path}: {key!r} is {value!r}: lexmax does not know this setting, which may change vectors; "
                "take it out of the file if it does not"
            )


def whole_number(path: Path, content: Any, key: str) -> int | None:
    """A number >= 1 of a JSON file; None where the key is missing, null or 0.

    Raises
    ------
    RepresentationError
        When it is something else.
    """
    value = content.get(key)
    if not value:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RepresentationError(f"{path}: {key} is {value!r}: expected a whole number, 1 or more")
    return value


def modules(root: Path) -> list[tuple[str, Path]]:
    """Class and folder of each module that modules.json lists, in order; [] when there is no such file.

    Raises
    ------
    RepresentationError
        When the file is malformed, or names a class that is not of sentence-transformers or PyLate.
    """
    path = root / "modules.json"
    listed = _read(path) or []
    try:
        pairs = [(str(module["type"]), str(module["path"])) for module in listed]
    except (KeyError, TypeError) as error:
        raise RepresentationError(f"{path} is not a list of modules with a type and a path") from error
    for module in listed:
        check_keys(path, module, ("idx", "name", "path", "type", "kwargs"))
    return [(class_name(root, name), path_inside(root, root, folder)) for name, folder in pairs]


def path_inside(root: Path, folder: Path, relative: str) -> Path:
    """Join a path that a checkpoint's JSON names, refusing one that leaves the checkpoint."""
    path = folder / relative
    if ".." in Path(relative).parts or Path(relative).is_absolute():
        raise RepresentationError(f"{root}: names the file {relative!r}, outside of its own folder")
    return path


def class_name(root: Path, type_path: str) -> str:
    """Last part of a dotted name, as modules.json gives it; refuses classes of the checkpoint's own."""
    if type_path.partition(".")[0] not in LIBRARIES:
        raise RepresentationError(f"{root}: the module {type_path} is code of the checkpoint's own, which is never run")
    return type_path.rsplit(".", 1)[-1]


CARD_KEYS = ("__version__", "model_type", "prompts", "default_prompt_name", "similarity_fn_name", "requirements")


def read_card(root: Path, *known: str) -> Any:
    """config_sentence_transformers.json, in which no key but the common ones and ``known`` is stated.

    Raises
    ------
    RepresentationError
        As `check_keys`.
    """
    path = root / "config_sentence_transformers.json"
    card = read_json(path)
    check_keys(path, card, (*CARD_KEYS, *known))
    return card


def stated_prompts(card: Any) -> tuple[str, str]:
    """Prompts of documents and of queries in a config_sentence_transformers.json."""
    prompts = card.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise RepresentationError(f"prompts of a model card are {prompts!r}: expected texts by name")
    default = prompts.get(card.get("default_prompt_name"))
    named = [prompts[name] for name in ("document", "passage", "corpus") if name in prompts]
    return (named[0] if named else default) or "", prompts.get("query", default) or ""


def tokenizer_length(folder: Path) -> int | None:
    """Length stated by the tokenizer, under its new or its old name; transformers writes 1e30 for "none"."""
    stated = read_json(folder / "tokenizer_config.json")
    length = stated.get("model_max_length", stated.get("max_len"))
    return int(length) if isinstance(length, int | float) and 0 < length < NO_LIMIT else None
