"""Indexes that hold something else than was committed, with every checksum and identity right."""

from dataclasses import replace
from pathlib import Path

from lexmax.index import manifest as manifests
from lexmax.index.array_files import ArrayFile, ArrayFileWriter
from lexmax.index.preludes import PRELUDE_BYTES, parse_prelude


def recommit(path):
    """Commit what lies in an index folder now as if it had been written so."""
    manifest = manifests.read(path)
    manifests.publish(path, manifests.identified(path, manifest, replace(manifest, identities={})))


def rewrite(file, changes):
    """Write an array file again with some of its arrays changed: ``changes`` maps a name to a function of a copy."""
    kind = parse_prelude(file, file.read_bytes()[:PRELUDE_BYTES]).kind
    read = ArrayFile(file, kind)
    arrays = {name: read.array(name, entry.dtype, entry.shape).copy() for name, entry in read._entries.items()}
    file.unlink()
    with ArrayFileWriter(file, kind) as out:
        for name, array in arrays.items():
            out.add(name, changes[name](array) if name in changes else array)


def flip(file: Path | str, position: int, bit: int) -> None:
    """Flip one bit of a file in place."""
    with Path(file).open("r+b") as out:
        out.seek(position)
        (byte,) = out.read(1)
        out.seek(position)
        out.write(bytes([byte ^ (1 << bit)]))
