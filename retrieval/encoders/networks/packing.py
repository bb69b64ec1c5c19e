"""Make a packed folder of an ordinary checkpoint (:mod:`.packed`): about a quarter of its size, or a head on a trunk.

Tensors go by the names that they have in the checkpoint's files. What is not weights of the network in the root is copied:
JSON, tokenizer, and modules in folders of their own. A tied decoder is in no file that transformers wrote, and in none here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .loading import read_tensors, weight_files
from .packed import FILE, is_packed, pack, packed_files, rounded, unpack

if TYPE_CHECKING:
    from torch import Tensor

# Small, and all that follows is what they make: token types, projections, classifiers, and what precedes an MLM's decoder.
KEPT = (
    r"(^|\.)(token_type_embeddings|linear|residual|classifier|vocab_transform|lm_head\.dense|predictions\.transform\.dense)"
    r"\.weight$"
)
COPIED = (".json", ".md", ".txt", ".metadata")
WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What packing did.

    Attributes
    ----------
    n_bytes, n_bytes_packed : int
        Sizes of the weight files before and after, a trunk's not counted.
    n_stored, n_shared : int
        Tensors that were stored, and that the trunk has.
    error : float
        The largest relative error of a stored tensor, |w - stored| / |w|.
    worst : str
        The tensor that has it.
    """

    n_bytes: int
    n_bytes_packed: int
    n_stored: int
    n_shared: int
    error: float
    worst: str


def pack_folder(source: Path, out: Path, *, trunk: Path | None = None, keep: Sequence[str] = ()) -> Packing:
    """Pack a checkpoint's weights, and copy its other files.

    Parameters
    ----------
    source : Path
        A folder with the network in its root: a transformers model, a Stanford ColBERT or a model of sentence-transformers.
    out : Path
        The folder to make.
    trunk : Path or None
        A packed folder beside ``out``: tensors equal to its, or equal once they are packed, are not stored again.
    keep : sequence of str
        Regular expressions, searched for in names: matrices that stay in float16, besides projections and MLM transforms.

    Raises
    ------
    FileExistsError
        When ``out`` exists.
    ValueError
        When the trunk is not beside ``out``, or has nothing in common with the checkpoint; a number is not finite; or
        ``keep`` is no regular expression.
    RepresentationError
        When weights cannot be read.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists: remove it, or choose another folder")
    # What is no floating-point number is a buffer that networks make themselves, such as position_ids.
    tensors = {name: tensor.float() for name, tensor in read_tensors(source).items() if tensor.is_floating_point()}
    kept = _pattern(keep)
    eight_bit = {name for name, tensor in tensors.items() if tensor.ndim == 2 and not kept.search(name)}
    as_stored = {name: rounded(tensor, in_8_bits=name in eight_bit) for name, tensor in tensors.items()}
    shared, metadata = set[str](), dict[str, str]()
    if trunk is not None:
        shared, metadata = _shared(source, out, trunk, tensors, as_stored)
    own = {name: tensor for name, tensor in tensors.items() if name not in shared}
    errors = {name: _relative_error(tensor, as_stored[name]) for name, tensor in own.items()}
    worst = max(errors, key=errors.__getitem__, default="")
    n_bytes, files = sum(path.stat().st_size for path in weight_files(source)), list(_other_files(source))
    out.mkdir(parents=True)
    pack(own, out / FILE, eight_bit=eight_bit, metadata=metadata)
    for path in files:
        copy = out / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return Packing(
        n_bytes=n_bytes,
        n_bytes_packed=(out / FILE).stat().st_size,
        n_stored=len(own),
        n_shared=len(shared),
        error=errors.get(worst, 0.0),
        worst=worst,
    )


def _pattern(keep: Sequence[str]) -> re.Pattern[str]:
    try:
        return re.compile("|".join((KEPT, *keep)))
    except re.error as error:
        raise ValueError(f"{' '.join(keep)} is no regular expression: {error}") from error


def _shared(
    source: Path, out: Path, trunk: Path, tensors: Mapping[str, Tensor], as_stored: Mapping[str, Tensor]
) -> tuple[set[str], dict[str, str]]:  # fmt: skip
    """Names of the tensors that the trunk has, and the metadata that makes readers find them there."""
    if not is_packed(trunk) or len(packed_files(trunk)) > 1:
        raise ValueError(f"{trunk} is no trunk: it must be a packed folder that stands on no other")
    if trunk.resolve().parent != out.resolve().parent:
        raise ValueError(f"the trunk {trunk} must be beside {out}, where the head will look for it")
    theirs = unpack(trunk)
    prefix = _prefix(tensors, theirs)
    shared = {
        prefix + name for name, tensor in theirs.items()
        if prefix + name in tensors and (tensor.equal(tensors[prefix + name]) or tensor.equal(as_stored[prefix + name]))
    }  # fmt: skip
    if not shared:
        raise ValueError(f"{source} has no tensor of the trunk {trunk}: pack it without one")
    return shared, {"trunk": f"../{trunk.resolve().name}", "trunk_prefix": prefix}


def _prefix(names: Collection[str], trunk_names: Collection[str]) -> str:
    """What stands before the trunk's names in the head; the longest name of all is no other's end."""
    anchor = max(trunk_names, key=len)
    return next((name.removesuffix(anchor) for name in names if name.endswith(anchor)), "")


def _relative_error(tensor: Tensor, stored: Tensor) -> float:
    return float((tensor - stored).norm() / tensor.norm().clamp(min=1e-30))


def _other_files(source: Path) -> Iterator[Path]:
    """Files to copy; of tokenizers, those that readers want."""
    for path in sorted(source.rglob("*")):
        at = path.relative_to(source)
        nested = len(at.parts) > 1
        if not path.is_file() or any(part.startswith(".") for part in at.parts):
            continue
        if path.suffix not in (*COPIED, *(WEIGHTS if nested else ())) or (not nested and path.name.endswith(".index.json")):
            continue
        if path.name == "vocab.txt" and (path.parent / "tokenizer.json").is_file():
            continue  # tokenizer.json says it all
        yield path
