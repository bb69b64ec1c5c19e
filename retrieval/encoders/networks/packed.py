"""Packed weights: matrices in 8 bits a number, and heads that name the trunk they stand on.

A folder is packed when it holds ``packed.safetensors`` in place of model.safetensors. In that file a matrix ``X`` is::

    X         (rows, columns) int8      codes q, from -127 to 127
    X.scale   (rows,) float32           w = scale[row] * q, with scale = max |w| / 127 of the row

so that no number is off by more than half a scale. Rows that were rounded to multiples of one number before keep it for
their scale, and all they hold. Whatever is not in 8 bits stands under its own name, in float16 or float32. The metadata
says ``format`` and ``version`` and, of a head, ``trunk``: the folder beside it, as ``../NAME``, whose tensors, with
``trunk_prefix`` before their names, the head's own complete or override. A trunk has no trunk.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from ....index.errors import RepresentationError

if TYPE_CHECKING:
    from torch import Tensor

FILE = "packed.safetensors"
FORMAT = {"format": "lexmax-packed", "version": "1"}
SCALE = ".scale"
MAX_CODE = 127
BESIDE = re.compile(r"\.\./[\w-][\w.-]*")


def is_packed(folder: Path) -> bool:
    """Whether the folder's weights are packed."""
    return (folder / FILE).is_file()


def packed_files(folder: Path) -> list[Path]:
    """Files that hold the weights of a packed folder: its own and, of a head, the trunk's.

    Raises
    ------
    RepresentationError
        When a file is damaged or of another format, or the trunk is missing, has a trunk, or is not beside the folder.
    """
    trunk, _ = _trunk(folder)
    return [folder / FILE] if trunk is None else [folder / FILE, trunk / FILE]


def unpack(folder: Path, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Read the tensors of a packed folder, a head's trunk included.

    Parameters
    ----------
    folder : Path
        The packed folder.
    names : collection of str or None
        Tensors that are wanted, those of them that there are; None for all.

    Returns
    -------
    dict of str to Tensor
        All float32.

    Raises
    ------
    RepresentationError
        As of :func:`packed_files`, or when a matrix in 8 bits lacks its scales or has others than one a row.
    """
    trunk, prefix = _trunk(folder)
    tensors = {}
    if trunk is not None:
        wanted = None if names is None else {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        tensors = {prefix + name: tensor for name, tensor in _read(trunk / FILE, wanted).items()}
    return {**tensors, **_read(folder / FILE, names)}


def pack(
    tensors: Mapping[str, Tensor], path: Path, *, eight_bit: Collection[str], metadata: Mapping[str, str] | None = None
) -> None:  # fmt: skip
    """Write tensors as a packed file.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Floating-point numbers of any precision.
    path : Path
        The file.
    eight_bit : collection of str
        Matrices that are stored in 8 bits; of the others matrices take float16 and vectors float32.
    metadata : mapping of str to str, optional
        ``trunk`` and ``trunk_prefix`` of a head.

    Raises
    ------
    ValueError
        When a tensor has numbers that are not finite, or one that is no matrix was to be stored in 8 bits.
    """
    from safetensors.torch import save_file

    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stored.update(_stored(name, tensor, in_8_bits=name in eight_bit))
    save_file(stored, path, {**FORMAT, **(metadata or {})})
    path.chmod(0o644)  # safetensors makes files for their owner alone


def rounded(tensor: Tensor, *, in_8_bits: bool) -> Tensor:
    """Return what :func:`unpack` gives for a tensor that :func:`pack` stored, float32."""
    return _restored(Path(FILE), _stored("", tensor, in_8_bits=in_8_bits))[""]


def _trunk(folder: Path) -> tuple[Path | None, str]:
    """Folder of the trunk, None when there is none, and what stands before its names."""
    metadata = _metadata(folder / FILE)
    if "trunk" not in metadata:
        return None, ""
    if not BESIDE.fullmatch(metadata["trunk"]):
        raise RepresentationError(f"{folder / FILE}: names the trunk {metadata['trunk']!r}; expected ../NAME, a folder beside")
    trunk = folder.resolve().parent / metadata["trunk"].removeprefix("../")
    if not is_packed(trunk):
        raise RepresentationError(f"{folder}: its trunk is missing: put the packed folder {trunk.name} at {trunk}")
    if "trunk" in _metadata(trunk / FILE):
        raise RepresentationError(f"{folder}: its trunk {trunk} has a trunk itself; expected one that is whole")
    return trunk, metadata.get("trunk_prefix", "")


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "np") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise RepresentationError(f"{path}: cannot read the packed weights: {error}") from error
    found = {key: metadata.get(key) for key in FORMAT}
    if found != FORMAT:
        raise RepresentationError(f"{path}: expected {FORMAT}, found {found}; pack the model again with this lexmax")
    return metadata


def _read(path: Path, names: Collection[str] | None) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            held = set(file.keys())
            wanted = held if names is None else held & {*names, *(name + SCALE for name in names)}
            stored = {name: file.get_tensor(name) for name in sorted(wanted)}
    except (OSError, SafetensorError) as error:
        raise RepresentationError(f"{path}: cannot read the packed weights: {error}") from error
    return _restored(path, stored)


def _stored(name: str, tensor: Tensor, *, in_8_bits: bool) -> dict[str, Tensor]:
    """Tensors that stand for one in the file."""
    import torch

    tensor = tensor.detach().cpu().float().contiguous()
    if not tensor.isfinite().all():
        raise ValueError(f"{name} has numbers that are not finite")
    if in_8_bits:
        if tensor.ndim != 2:
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}: matrices alone are stored in 8 bits")
        scale = _scales(tensor)
        codes = (tensor / scale[:, None]).round().clamp(-MAX_CODE, MAX_CODE)
        return {name: codes.to(torch.int8), name + SCALE: scale}
    half = tensor.half()
    return {name: half if tensor.ndim == 2 and half.isfinite().all() else tensor}


def _scales(matrix: Tensor) -> Tensor:
    """Return the scale of each row, (rows,) float32 > 0."""
    import torch

    sizes = matrix.abs()
    largest = sizes.amax(1)
    # Weights that came from one scale for the whole matrix are multiples of it, and the smallest of so many is it.
    step = torch.where(sizes > 0, sizes, torch.inf).amin()
    multiples = ((matrix / step).round() * step == matrix).all(1) & (largest < (MAX_CODE + 0.5) * step)
    scale = torch.where(multiples, step, largest / MAX_CODE)
    return torch.where((scale > 0) & scale.isfinite(), scale, 1)


def _restored(path: Path, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that those of the file stand for, float32."""
    import torch

    codes = {name for name, tensor in stored.items() if tensor.dtype == torch.int8}
    tensors = {name: tensor.float() for name, tensor in stored.items()}
    for name in sorted(codes):
        matrix, scale = tensors[name], tensors.pop(name + SCALE, None)
        if scale is None or matrix.ndim != 2 or scale.shape != matrix.shape[:1]:
            found = "no scales" if scale is None else f"scales {tuple(scale.shape)}"
            raise RepresentationError(f"{path}: {name} has codes {tuple(matrix.shape)} and {found}; expected one scale a row")
        matrix *= scale[:, None]
    return tensors
