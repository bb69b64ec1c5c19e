"""Devices that models run on: a look before anything is loaded."""

from __future__ import annotations

from ....index.errors import MissingDependencyError


def check_device(device: str) -> None:
    """Try a device; "cpu" needs no look, and no torch.

    Parameters
    ----------
    device : str
        As torch names it: "cuda", "cuda:1", "mps", ...

    Raises
    ------
    ValueError
        When torch cannot compute there; names the devices that are here.
    MissingDependencyError
        Without torch.
    """
    if device == "cpu":
        return
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "encode", f"the device {device}") from error
    try:
        torch.ones(1, device=device).add(1).item()
    except Exception as error:  # a device that is absent, unknown or busy raises half a dozen unrelated kinds
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        here += ["mps"] if torch.backends.mps.is_available() else []
        why = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"device {device!r} is not here: {why:.90}; torch {torch.__version__} has {', '.join(here)}"
        ) from error
