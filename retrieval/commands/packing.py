"""The command that makes models small: ``pack``.

This module is read at every start of the command line, so whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..terminal import require_models, say, write
from .options import Command


def add_packing_command(command: Command) -> None:
    """Add the command to the command line."""
    pack = command("pack", _pack, "store a model in 8 bits a weight, or as a head on a packed trunk",
                   "lexmax pack RUN/best --out packed/colbert --trunk packed/trunk")  # fmt: skip
    pack.add_argument("model", metavar="DIR_OR_ID", help="a model folder, or an id in the cache or on the hub")
    pack.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    pack.add_argument("--trunk", metavar="DIR",
                      help="a packed folder beside --out: what it holds already is not stored again")  # fmt: skip
    pack.add_argument("--keep", action="append", default=[], metavar="REGEX",
                      help="matrices that stay in 16 bits, by what their names contain; repeat for more (default: "
                      "projections, classifiers and the transform before an MLM's decoder)")  # fmt: skip


def _pack(options: argparse.Namespace) -> int:
    from ..encoders.loader import resolve_model

    require_models("packing a model")
    from ..encoders.networks.packing import pack_folder

    trunk = Path(options.trunk) if options.trunk else None
    done = pack_folder(resolve_model(options.model), Path(options.out), trunk=trunk, keep=options.keep)
    say(f"{done.n_bytes / 1e6:.1f} MB -> {done.n_bytes_packed / 1e6:.1f} MB: {done.n_stored} tensors stored, "
        f"{done.n_shared} of the trunk; largest relative error {done.error:.2%} {done.worst}")  # fmt: skip
    write(options.out)
    return 0
