"""Writes ColBERT students in the layout that they came from, so that whatever their files state is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from ...encoders.checkpoints.colbert import colbert_family
from ...encoders.checkpoints.files import modules, read_json
from ...encoders.networks.loading import quiet_transformers
from .folders import copy_tokenizer, write_json

if TYPE_CHECKING:
    from .colbert import ColbertStudent

QUERY_MARKER, DOCUMENT_MARKER = "[unused0]", "[unused1]"
STANFORD = {
    "query_token_id": QUERY_MARKER, "doc_token_id": DOCUMENT_MARKER, "query_token": "[Q]", "doc_token": "[D]",
    "attend_to_mask_tokens": False, "similarity": "cosine",
}  # fmt: skip
CARD, OPTIONS = "config_sentence_transformers.json", "sentence_bert_config.json"


def save_colbert(student: ColbertStudent, folder: Path) -> None:
    """Write a student: a checkpoint's family, Stanford's for a student of a plain transformer."""
    family = None if student.has_new_projection else colbert_family(student.root)
    if family in (None, "stanford"):
        _save_stanford(student, folder)
    else:
        _save_modules(student, folder)
        _restate(student, folder, pylate=family == "pylate")


def _save_stanford(student: ColbertStudent, folder: Path) -> None:
    """A trunk under its prefix, ``linear.weight`` and artifact.metadata."""
    copy_tokenizer(student.tokenizer, folder)
    prefix = student.trunk.base_model_prefix
    tensors = {f"{prefix}.{name}": tensor.contiguous().cpu() for name, tensor in student.trunk.state_dict().items()}
    save_file({**tensors, **student.layers[0].tensors}, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", {**student.trunk.config.to_dict(), "architectures": ["HF_ColBERT"]})
    stated = {} if student.has_new_projection else read_json(student.root / "artifact.metadata")
    config = student.config
    settings: dict[str, Any] = {"dim": config.dim, "query_maxlen": config.query_length, "doc_maxlen": config.document_length}
    write_json(
        folder / "artifact.metadata", {**STANFORD, **stated, **settings, "mask_punctuation": bool(student.layout.skipped)}
    )
    if student.lowercase:
        write_json(folder / OPTIONS, {"do_lower_case": True})


def _save_modules(student: ColbertStudent, folder: Path) -> None:
    """The files of all modules, with the weights that were learnt."""
    root = student.root
    for place in dict.fromkeys([root, *(place for _, place in modules(root))]):
        target = folder / place.relative_to(root)
        target.mkdir(parents=True, exist_ok=True)
        for path in place.iterdir():
            if path.suffix in (".json", ".txt", ".model") and not path.name.endswith(".index.json"):
                shutil.copyfile(path, target / path.name)
    with quiet_transformers():
        student.trunk.save_pretrained(folder / student.folder.relative_to(root))
    for layer in student.layers:
        save_file(layer.tensors, folder / layer.files.folder.relative_to(root) / "model.safetensors", {"format": "pt"})


def _restate(student: ColbertStudent, folder: Path, *, pylate: bool) -> None:
    """Write lengths and skipped tokens where the student's are not the checkpoint's."""
    config, layout = student.config, student.layout
    changed: dict[str, Any] = {}
    for side, length in (("query", config.query_length), ("document", config.document_length)):
        if length != getattr(layout, side).max_length:
            changed[f"{side}_length"] = length
    place = folder if pylate else folder / student.folder.relative_to(student.root)
    options = read_json(place / (CARD if pylate else OPTIONS))
    if not pylate and "query_length" in changed and options.get("query_expansion"):
        width = layout.expand_to
        fixed = width == layout.query.max_length  # as `ColbertEncoder` has it
        length = config.query_length if fixed else min(width, config.query_length)
        changed["query_expansion"] = {**options["query_expansion"], "length": length}
    if changed:
        write_json(place / (CARD if pylate else OPTIONS), {**options, **changed})
    if student.config.mask_punctuation is not None:
        masks = [folder] if pylate else [folder / p.relative_to(student.root) for name, p in modules(student.root)
                                         if name == "MultiVectorMask"]  # fmt: skip
        path = masks[0] / (CARD if pylate else "config.json")
        write_json(path, {**json.loads(path.read_text(encoding="utf-8")), "skiplist_words": list(layout.skipped)})
