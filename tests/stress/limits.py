"""Commands under limits (descriptors, memory, file size, disk, a read-only mount) end with one line and an index that is whole.

``python tests/stress/limits.py [--limit NOFILE|AS|FSIZE|disk|readonly ...]`` (disk and readonly mount a tmpfs: root)

Every command of the command line runs under each limit, from one that stops it at once to one that lets it pass. LLVM, faiss,
OpenMP and OpenBLAS end the process when they are refused memory: of those commands only the index is looked at.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager, nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from failing import digest, errors_told
from hashed_tokens import HashedTokens, add_method
from kill import forked

from lexmax.__main__ import main as command
from lexmax.index.check import check_index

MIB = 1 << 20
LIMITS = {
    "NOFILE": [4, 5, 6, 7, 8, 9, 10, 12, 16, 24],
    "AS": [MIB * n for n in (0, 4, 16, 40, 80, 160, 320)],
    "FSIZE": [0, 64, 500, 2000, 8000, 20_000, 60_000, 200_000],
    "disk": [4096 * n for n in (1, 4, 10, 20, 40, 60, 80, 120, 400)],
    "readonly": [0],
}
QUERIES = {"bm25": [{"word1": 1.0}], "other": [{"word1": 1.0}], "hashed": HashedTokens().encode_queries(["word1 sea3"])}
ENDED = ("LLVM ERROR", "bad_alloc", "thread-local data", "libgomp", "OpenBLAS error")
"""What libraries say that end the process themselves."""
COMMANDS = {
    "build": "build {corpus} --out {idx}-new --encoder bm25 --encoder hashed",
    "add": "add {idx} {more} --replace",
    "delete": "delete {idx} d1 d2 d3",
    "compact": "compact {idx} --reorder",
    "field add": "field add {idx} other=bm25,b=0.1",
    "search": "search {idx} word1 --search bm25",
    "check": "check {idx}",
}


def limited(name, value):
    """Set a limit of this process; of memory, above what it has now."""
    if name == "AS":
        value += int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


@contextmanager
def mounted(folder, options):
    """A tmpfs on ``folder``."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def run(line, name="", value=0):
    """Run a command in a child under a limit; returns exit status, negative for a signal, and what it told."""

    def act():
        if name:
            limited(name, value)
        return command(line.split())

    reader, writer = os.pipe()  # a file would be limited too
    child = forked(act, f"/dev/fd/{writer}")
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


def problems(status, told, idx, before, after, new):
    """Say what is wrong after a command: it must have worked, or ended with one line and the index as it was."""
    state = digest(idx, QUERIES)
    if state is not None:  # a field that is being filled is continued by the same command
        state["fields"] = {name: field for name, field in state["fields"].items() if field[-1]}
    if status == 0:
        if state != after:
            yield "exit status 0, but another index"
    elif status == 2:
        if len(errors_told(told)) != 1 or "Traceback" in told:
            yield f"not one line: {told}"
        if state not in (before, after):
            yield f"the index is neither old nor new: {told}"
        if new.exists() and not (new / "manifest.json").exists():
            yield f"left behind: {sorted(path.name for path in new.iterdir())}"
    elif any(words in told for words in ENDED) or status == -11:
        if state not in (before, after):
            yield f"the index is neither old nor new: {told}"
    else:
        yield f"exit status {status}: {told}"
    for folder in (idx, new):
        if (folder / "manifest.json").exists() and (found := check_index(folder)):
            yield f"check: {found[0]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", nargs="*", default=list(LIMITS), choices=LIMITS)
    options = parser.parse_args()
    add_method()
    count = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder, disk = Path(place), Path(place) / "disk"
        corpus, more, base = folder / "corpus.jsonl", folder / "more.jsonl", folder / "base"
        row = '{{"id": "d{i}", "text": "word{a} word{b} ship sea{c}"}}\n'
        corpus.write_text("".join(row.format(i=i, a=i % 97, b=i % 31, c=i % 7) for i in range(600)))
        more.write_text("".join(row.format(i=i, a=i % 89, b=i % 37, c=i % 5) for i in range(500, 800)))
        disk.mkdir()
        status, words = run(f"build {corpus} --out {base} --encoder bm25 --encoder hashed")
        if status:
            raise SystemExit(words)
        before, size = digest(base, QUERIES), sum(path.stat().st_size + 4096 for path in base.rglob("*"))
        for title, line in COMMANDS.items():
            names = {"corpus": corpus, "more": more}
            shutil.copytree(base, folder / "idx")
            status, words = run(line.format(idx=folder / "idx", **names))
            if status:
                raise SystemExit(f"{title} fails without a limit: {words}")
            after = digest(folder / "idx", QUERIES)
            shutil.rmtree(folder / "idx")
            shutil.rmtree(folder / "idx-new", ignore_errors=True)
            for name in options.limit:
                for value in LIMITS[name]:
                    on_disk = name in ("disk", "readonly")
                    idx = (disk if on_disk else folder) / "idx"
                    new = idx.with_name("idx-new")
                    with mounted(disk, f"size={size + value if name == 'disk' else 64 * MIB}") if on_disk else nullcontext():
                        shutil.copytree(base, idx)
                        if name == "readonly":
                            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
                        limit = {} if on_disk else {"name": name, "value": value}
                        status, words = run(line.format(idx=idx, **names), **limit)
                        wrong = list(problems(status, words, idx, before, after, new))
                        if not on_disk:
                            shutil.rmtree(idx)
                            shutil.rmtree(new, ignore_errors=True)
                    count[name, "refused" if status else "passed"] += 1
                    count[name, "wrong"] += bool(wrong)
                    for problem in wrong:
                        print(f"  {title}, {name} {value}: {problem}", flush=True)
    for name in options.limit:
        print(f"{name:9} {count[name, 'refused']:3} refused, {count[name, 'passed']:3} passed, {count[name, 'wrong']} wrong")
    return 1 if any(count[name, "wrong"] for name in options.limit) else 0


if __name__ == "__main__":
    sys.exit(main())
