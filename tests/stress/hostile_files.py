"""Write hostile indexes whose checksums and identities are all right, and use them: only typed errors, no crash, no hang.

    python tests/stress/hostile_files.py [--trials 300] [--seed 1]

Each trial copies a small index, changes one or two things in it (values, shapes and types of arrays, directories, batches of
documents, the manifest), seals it, and then opens, searches, filters, explains, fetches, checks, adds to, compacts and searches
it again. Answers may be wrong; an error must be a LexmaxError.
"""

import argparse
import json
import os
import shutil
import struct
import sys
import tempfile
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from all_kinds import ALL, build, queries_of, use, vectors_of
from damage import recommit
from trials import run_trials

from lexmax import Collection, LexmaxError
from lexmax.index.array_files import ArrayFile, ArrayFileWriter
from lexmax.index.check import check_index
from lexmax.index.documents import Document
from lexmax.index.kernels.checksums import CHUNK_BYTES
from lexmax.index.preludes import PRELUDE_BYTES, parse_prelude

INDEX = {"n": 1200, "width": 12, "n_tokens": 3, "text_bytes": 60, "id_bytes": 6, "names": ALL}
DTYPES = ["bool", "uint8", "uint16", "uint32", "uint64", "int32", "int64", "float32"]
JUNK = [
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../x",
    "\0",
    [],
    [[]],
    {},
    {"a": 1},
]
KINDS, SHARES = ["values", "array", "directory", "manifest"], [0.55, 0.2, 0.1, 0.15]
FLOATS = [0.0, -1.0, 1e30, -1e30, 3e38, float("nan"), float("inf"), float("-inf")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial, to run one again")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sound, queries = Path(folder) / "sound", queries_of(2, 10, exhaustive=True)
        build(sound, **INDEX)
        use(sound, queries)
        started = time.monotonic()

        def trial(number: int) -> str:
            rng = np.random.default_rng([options.seed, options.first + number])
            path = Path(folder) / f"hostile-{number}"
            shutil.copytree(sound, path)
            try:
                for kind in sorted(rng.choice(KINDS, int(rng.integers(1, 3)), p=SHARES), key=KINDS.index):
                    with suppress(LexmaxError):  # the first change may have left nothing that the second could read
                        change(path, kind, rng)
                return outcome(path, queries)
            finally:
                shutil.rmtree(path)

        outcomes, failures = run_trials(trial, options.trials, timeout_s=60)
        print(json.dumps({"trials": options.trials, "seconds": round(time.monotonic() - started), **outcomes}))
        print("\n".join(failures))


def outcome(path: Path, queries: dict[str, Any]) -> str:
    """Use a hostile index in every way; says what came of it."""
    refused = 0
    for step in (lambda: use(path, queries), lambda: check_index(path), lambda: grow(path), lambda: use(path, queries)):
        try:
            step()
        except LexmaxError:
            refused += 1
    return ["answered", "partly refused", "partly refused", "partly refused", "refused"][refused]


def grow(path: Path) -> None:
    """Add a document, delete one, and compact."""
    with Collection.open(path) as collection:
        collection.delete(["d5----"])
        collection.add([Document(doc_id="new", text="new")], vectors_of(np.random.default_rng(1), 1, 8, 2))
        collection.compact()
        collection.commit()


def change(path: Path, kind: str, rng: np.random.Generator) -> None:
    """Change one thing, and seal the index."""
    files = sorted(path.rglob("*.lex"))
    if kind == "manifest":
        change_manifest(path, rng)
        return
    file = files[int(rng.integers(len(files)))]
    if kind == "directory":
        change_directory(file, rng)
    else:
        rewrite(file, rng, change_values if kind == "values" else change_array)
    recommit(path)


def rewrite(file: Path, rng: np.random.Generator, change_one: Any) -> None:
    name_of = parse_prelude(file, file.read_bytes()[:PRELUDE_BYTES]).kind
    read = ArrayFile(file, name_of)
    arrays = {name: read.array(name, entry.dtype, entry.shape).copy() for name, entry in read._entries.items()}
    name = sorted(arrays)[int(rng.integers(len(arrays)))]
    changed = change_one(arrays[name], rng)
    file.unlink()
    with ArrayFileWriter(file, name_of) as out:
        for other, array in arrays.items():
            if other != name:
                out.add(other, array)
            elif changed is not None:
                out.add(name, np.ascontiguousarray(changed))


def change_values(array: Any, rng: np.random.Generator) -> Any:
    """Some elements become extreme, random, swapped, or those of another place."""
    flat = array.reshape(-1)
    if not len(flat):
        return array
    places = rng.integers(len(flat), size=int(rng.choice([1, 2, 10, len(flat)])))
    if array.dtype.kind == "f":
        flat[places] = rng.choice(FLOATS, len(places))
    elif array.dtype.kind in "iu":
        bounds = np.iinfo(array.dtype)
        high = int(flat.max())
        extremes = [bounds.min, bounds.max, 0, 1, bounds.max // 2, min(high + 1, bounds.max), max(high - 1, bounds.min)]
        n = len(places)
        ways = [
            np.array(extremes, array.dtype)[rng.integers(len(extremes), size=n)],
            rng.integers(bounds.min, bounds.max, n, array.dtype, endpoint=True),
            flat[rng.integers(len(flat), size=n)],
        ]
        flat[places] = ways[int(rng.integers(3))]
    return array


def change_array(array: Any, rng: np.random.Generator) -> Any:
    """The array is shorter, longer, of another shape or type, or missing."""
    way = int(rng.integers(6))
    if way == 0:
        return array[: len(array) // 2]
    if way == 1:
        return np.concatenate([array, array])
    if way == 2:
        return array.reshape(1, *array.shape)
    if way == 3:
        return array[:0]
    if way == 4:
        with np.errstate(all="ignore"):
            return array.astype(DTYPES[int(rng.integers(len(DTYPES)))])
    return None


def change_directory(file: Path, rng: np.random.Generator) -> None:
    """The directory says something else of the same content."""
    whole = bytearray(file.read_bytes())
    (offset,) = struct.unpack_from("<Q", whole, 44)
    at = offset + 4 * -(-(offset - PRELUDE_BYTES) // CHUNK_BYTES)
    directory = json.loads(bytes(whole[at:]))
    name = sorted(directory)[int(rng.integers(len(directory)))]
    entry = directory[name]
    way = int(rng.integers(4))
    if way == 0:
        entry[int(rng.integers(3))] = JUNK[int(rng.integers(len(JUNK)))]
    elif way == 1 and entry[1]:
        entry[1][int(rng.integers(len(entry[1])))] = JUNK[int(rng.integers(len(JUNK)))]
    elif way == 2:
        entry[2] += 64 * int(rng.choice([-1, 1, 1 << 40]))
    else:
        entry[0] = DTYPES[int(rng.integers(len(DTYPES)))]
    tail = bytes(whole[offset:at]) + json.dumps(directory).encode()
    struct.pack_into("<I", whole, 52, zlib.crc32(tail))
    struct.pack_into("<I", whole, 56, zlib.crc32(bytes(whole[:56])))
    file.write_bytes(bytes(whole[:offset]) + tail)


def change_manifest(path: Path, rng: np.random.Generator) -> None:
    """One value of the manifest is another."""
    record = json.loads((path / "manifest.json").read_text())
    del record["crc32"]
    leaves = list(places_in(record["body"]))
    holder, key = leaves[int(rng.integers(len(leaves)))]
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = JUNK[int(rng.integers(len(JUNK)))]
    record["crc32"] = zlib.crc32(json.dumps(record, sort_keys=True).encode())
    (path / "manifest.json").write_text(json.dumps(record))


def places_in(value: Any) -> Any:
    """Every place of a JSON value: what holds it, and its key or position; identities are few among them."""
    for key, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(each, dict | list) and key != "identities":
            yield from places_in(each)


if __name__ == "__main__":
    main()
