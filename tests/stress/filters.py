"""Random filters and broken ones, against an oracle in plain Python and over HTTP's own check; prints figures as JSON.

    python tests/stress/filters.py --n 50000 --seed 1

Each filter is answered as the oracle answers it, or refused by FilterError; anything else is printed and exits with 1.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from filter_oracle import ANY, NAMES, mutated, random_filter, random_rows, tree_holds

from lexmax.index.document_buffer import DocumentBuffer
from lexmax.index.documents import Document, DocumentStore
from lexmax.index.errors import FilterError
from lexmax.index.filters.filter import Filter, filter_key
from lexmax.index.metadata import extend_fields

HOSTILE = {
    "2,400 times not": "not " * 2400 + "b",
    "2,400 parentheses": "(" * 2400 + "b" + ")" * 2400,
    "a tree of 5,000 levels as JSON": '{"not": ' * 5000 + '{"i": 1}' + "}" * 5000,
    "a number of 400 digits": "i == " + "9" * 400,
    "a number of a million digits": "i == " + "9" * 1_000_000,
    "a name of a million dots": "o" + ".n" * 1_000_000 + " == 1",
    "half of a surrogate pair": "s == '\ud800'",
    "a million backslashes": "s == '" + "\\" * 1_000_000,
    "10,000 chained comparisons": " < ".join(["0", "i"] * 5000),
    "800 times or on text": " or ".join(f"text < 'x{i}'" for i in range(800)),
    "in of 100,000 strings": f"s in {[f'x{i}' for i in range(100_000)]}",
    "in of 100,000 integers": f"i in {list(range(100_000))}",
    "in of 100,000 strings, nested": f"o.s in {[f'x{i}' for i in range(100_000)]}",
}


def main() -> int:
    """Run the fuzz and the hostile filters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000, help="random filters of each kind (default 50,000)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        rows = random_rows(rng)
        stores = [store_of(Path(folder, str(i)), part, rows) for i, part in enumerate((rows[:25], rows[25:]))]
        counts, slowest, problems = Counter(), 0.0, []
        for number in range(options.n):
            text, tree, oracle = random_filter(rng)
            expected = [oracle(row) is True for row in rows]
            broken = mutated(rng, text, tree)
            counts["filters"] += 4
            for kind, filter in (("expression", text), ("tree", tree), ("broken", broken), ("json", random_tree(rng))):
                start = time.perf_counter()
                outcome, found = ask(filter, stores)
                slowest = max(slowest, time.perf_counter() - start)
                counts[f"{kind} {outcome}"] += 1
                right = kind not in ("expression", "tree") or found == expected
                if outcome == "answered" and isinstance(filter, dict):
                    right = found == [tree_holds(filter, row) is True for row in rows]
                if outcome == "other" or not right:
                    problems.append((number, kind, ascii(filter)[:300], str(found)[:300]))
        seconds = {}
        for name, filter in HOSTILE.items():
            start = time.perf_counter()
            outcome, found = ask(filter, stores)
            seconds[f"{name}: {outcome}"] = round(time.perf_counter() - start, 3)
            if outcome == "other":
                problems.append((0, name, "", str(found)[:300]))
    print(json.dumps({"counts": counts, "slowest_ms": round(1000 * slowest, 1), "hostile_s": seconds}, indent=1))
    for problem in problems[:20]:
        print(*problem, file=sys.stderr)
    print(f"{len(problems)} wrong answers or errors of other types", file=sys.stderr)
    return 1 if problems else 0


def store_of(folder: Path, rows: list[dict], all_rows: list[dict]) -> DocumentStore:
    """Write documents of some rows as one segment of an index that has all of them."""
    fields: dict[str, str] = {}
    for row in all_rows:
        extend_fields(fields, "d", row)
    buffer = DocumentBuffer(fields)
    buffer.extend([Document(doc_id=f"d{i}", text=f"text {i}", metadata=row) for i, row in enumerate(rows)], fields)
    folder.mkdir()
    buffer.write(folder)
    return DocumentStore(folder)


def ask(filter: object, stores: list[DocumentStore]) -> tuple[str, object]:
    """Answer a filter: "answered" with the matches, "refused", or "other" with what else was raised."""
    try:
        filter_key(filter)
        masks = Filter(filter, stores[0].fields).masks(stores)
    except FilterError:
        return "refused", None
    except BaseException as problem:
        return "other", repr(problem)
    return "answered", [bool(held) for mask in masks for held in mask]


def random_tree(rng: random.Random, depth: int = 0) -> object:
    """Any JSON value, made of words that filters know more often than not."""
    kind = rng.random()
    if kind < (0.9, 0.6, 0.5, 0.3, 0.1, 0)[depth]:
        words = [*NAMES, "and", "or", "not", "$and", "==", "<", "$in", "in", "contains", "$gte", "", "o..n", "\ud800"]
        return {rng.choice(words): random_tree(rng, depth + 1) for _ in range(rng.randrange(1, 4))}
    if depth < 5 and kind > 0.9:
        return [random_tree(rng, depth + 1) for _ in range(rng.randrange(4))]
    return rng.choice([*ANY, None, 10**400, -(10**5000), float("nan"), "\ud800", "2020-01-01"])


if __name__ == "__main__":
    sys.exit(main())
