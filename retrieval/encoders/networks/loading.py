"""Networks in checkpoint folders: their weight files, a hash of them, and the one place that loads with transformers.

A folder holds config.json and model.safetensors (or its shards), an old pytorch_model.bin, which is read without
unpickling code, or packed weights (:mod:`.packed`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ....index.errors import MissingDependencyError, RepresentationError
from .packed import is_packed, packed_files, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

# Keys of config.json that say who wrote it, not what it computes.
VOLATILE = (
    "_name_or_path",
    "dtype",
    "output_hidden_states",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)


# Tensors of old checkpoints that networks make themselves.
BUFFERS = ("position_ids", "token_type_ids", "inv_freq")


def fastest_dtype(device: str) -> Literal["float32", "bfloat16", "int8"]:
    """Precision in which a device runs a BERT fastest: int8 or bfloat16 where it multiplies such numbers itself."""
    import torch

    if not device.startswith("cpu"):
        return "bfloat16"
    from ....index.kernels.dot_emitters import LEVEL  # with Numba

    if LEVEL != "plain":
        return "int8"
    found: Mapping[str, Any] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bfloat16" if found.get("avx512_bf16") or found.get("amx_bf16") else "float32"


def place(network: Any, folder: Path, *, device: str, dtype: str) -> Any:
    """Bring a network to a device and a precision.

    Parameters
    ----------
    network : transformers model
        In float32.
    folder : Path
        Where it is from, for messages.
    device : str
        As torch names it.
    dtype : {"float32", "bfloat16", "int8"}
        Of weights and activations. int8 is for BERT encoders on the CPU and leaves heads in float32; see `.integer_bert`.

    Raises
    ------
    RepresentationError
        int8 for another device or another network.
    """
    import torch

    if dtype != "int8":
        return network.to(device=device, dtype=getattr(torch, dtype))
    if torch.device(device).type != "cpu":
        raise RepresentationError(f"{folder}: dtype int8 is for the CPU, not for device {device}: use bfloat16")
    from .integer_bert import in_integers

    return in_integers(network, folder)


def weights_digest(folder: Path) -> str:
    """Hash of the weight files and of what config.json says about the computation.

    Raises
    ------
    RepresentationError
        When the folder holds no weights.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(json.dumps({k: v for k, v in config.items() if k not in VOLATILE}, sort_keys=True).encode())
    for path in weight_files(folder):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """Files that hold the weights: one, or the shards that an index names, or packed ones; safetensors before .bin.

    Raises
    ------
    RepresentationError
        When there are none, or packed ones are damaged.
    """
    if is_packed(folder):
        return packed_files(folder)
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            index = json.loads((folder / f"{name}.index.json").read_text(encoding="utf-8"))
            return [folder / shard for shard in sorted(set(index["weight_map"].values()))]
    raise RepresentationError(f"{folder}: no weights: expected model.safetensors (or an old pytorch_model.bin)")


def read_tensors(folder: Path, names: Collection[str] | None = None) -> dict[str, torch.Tensor]:
    """Read tensors by the names that they have in the files.

    Parameters
    ----------
    folder : Path
        As the module says; it needs no config.json.
    names : collection of str or None
        Tensors that are wanted, those of them that there are; None for all.

    Raises
    ------
    RepresentationError
        When there are no weights, or they cannot be read.
    """
    if is_packed(folder):
        return unpack(folder, names)
    tensors: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        try:
            tensors.update(_file_tensors(path, names))
        except Exception as error:  # safetensors, torch and pickle raise unrelated kinds here
            raise RepresentationError(f"{path}: cannot read the weights: {error}") from error
    return tensors


def _file_tensors(path: Path, names: Collection[str] | None) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            held = set(file.keys())
            return {name: file.get_tensor(name) for name in sorted(held if names is None else held & set(names))}
    import torch

    tensors = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor for name, tensor in tensors.items() if names is None or name in names}


def load_network(
    folder: Path, auto_class: str, *, may_lack: Sequence[str] = (), hint: str = "take a checkpoint that has them"
) -> Any:
    """Read a network in float32, and make sure that every parameter came from the files.

    Parameters
    ----------
    folder : Path
        As the module says.
    auto_class : str
        Name of the transformers class that picks the architecture, such as "AutoModelForMaskedLM".
    may_lack : sequence of str
        Prefixes of parameters that may be absent, and are then random.
    hint : str
        What to say of a checkpoint that lacks other parameters.

    Raises
    ------
    RepresentationError
        When the folder lacks weights, leaves a parameter at random, or needs code of its own.
    MissingDependencyError
        Without torch and transformers.
    """
    check_libraries()
    import torch
    import transformers

    if not (folder / "config.json").is_file():
        raise RepresentationError(f"{folder}: no config.json: expected the folder of a transformers model")
    weight_files(folder)
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):  # parameters that are absent are drawn at random
            network, info = _from_folder(folder, getattr(transformers, auto_class))
    except RepresentationError:
        raise
    except Exception as error:  # transformers, torch and safetensors raise a dozen unrelated kinds here
        raise RepresentationError(f"{folder}: cannot load the network as {auto_class}: {error}") from error
    absent = sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])})
    absent = [name for name in absent if not name.startswith(tuple(may_lack))]
    if absent:
        raise RepresentationError(
            f"{folder}: the weights lack {len(absent)} parameters of {type(network).__name__} "
            f"({', '.join(absent[:3])}...), which would stay random: {hint}"
        )
    unused = _unused(network, info["unexpected_keys"])
    if unused:
        raise RepresentationError(
            f"{folder}: {type(network).__name__} makes no use of {len(unused)} tensors of the weights "
            f"({', '.join(unused[:3])}...): it would compute something else than the model that was trained"
        )
    return network.eval()


def _unused(network: Any, names: Collection[str]) -> list[str]:
    """Those of unexpected tensors that belong to the transformer itself: not heads, poolers and buffers."""
    prefix = f"{network.base_model_prefix}."
    parts = {name for name, _ in network.base_model.named_children()} - {"pooler"}
    return sorted(
        name for name in names
        if name.removeprefix(prefix).partition(".")[0] in parts and not name.endswith(BUFFERS)
    )  # fmt: skip


def _from_folder(folder: Path, auto: Any) -> tuple[Any, dict[str, Any]]:
    """Return a network, and what transformers says about the loading of it."""
    import torch
    from transformers import AutoConfig

    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
    loaded: tuple[Any, dict[str, Any]]
    if is_packed(folder):
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):  # an auto class takes no ready tensors, but tells which class does
            architecture: Any = type(auto.from_config(config, trust_remote_code=False))
        loaded = architecture.from_pretrained(None, config=config, state_dict=unpack(folder), **options)
    else:
        options.update(local_files_only=True, trust_remote_code=False, weights_only=True)
        loaded = auto.from_pretrained(str(folder), **options)
    return loaded


def check_libraries() -> None:
    """Raise MissingDependencyError without torch and transformers."""
    for name in ("torch", "transformers"):  # transformers imports without torch, and fails later and less clearly
        try:
            import_module(name)
        except ImportError as error:
            raise MissingDependencyError("torch and transformers", "encode", "a neural encoder") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from drawing bars and tables of parameters on stderr; what matters of them raises here."""
    from transformers.utils import logging

    talk: Any = logging  # untyped
    shown, verbosity = talk.is_progress_bar_enabled(), talk.get_verbosity()
    talk.disable_progress_bar()
    talk.set_verbosity_error()
    try:
        yield
    finally:
        talk.set_verbosity(verbosity)
        if shown:
            talk.enable_progress_bar()
