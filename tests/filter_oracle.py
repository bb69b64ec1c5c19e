"""Random filters with their meaning in plain Python, and filters that are broken at random."""

import datetime
import decimal

FIELDS = {
    "i": "int64", "f": "float64", "s": "string", "b": "bool", "l": "list<string>", "g": "bigint", "o": "json", "e": "empty",
}  # fmt: skip
NESTED = ["o.n", "o.s", "o.d.b", "o.l"]
NAMES = [*FIELDS, *NESTED, "unseen"]
INTS = [0, 1, -1, 7, 2**53, 1.0, 0.5, -0.5, 1e300, float("inf")]
VALUES = {
    "i": INTS,
    "f": [0, 1, -1.5, 0.25, 1e300, -float("inf")],
    "s": ["", "a", "b", "ä", "a'b", 'a"b', "a\\b", "\n"],
    "b": [True, False],
    "l": ["", "a", "b", "ä"],
    "g": [2**62, 2**53 + 1, 2.0**53, -(2**63), 2**63 - 1, 0, 0.5],
}
VALUES |= {"e": VALUES["l"], "o.l": ["", "a", 1, 0.5, True]}
ANY = [*INTS, *VALUES["s"], True, False, 2**63, 10**30]
LISTS = ("l", "e", "o.l")


def random_rows(rng):
    """Forty documents and more, that fix the types of ``FIELDS``."""
    rows = []
    for _ in range(40):
        row = {
            "i": rng.choice([0, 1, -1, 7, 2**53]),
            "f": rng.choice([0.0, 1.0, -1.5, 0.25, 3]),
            "s": rng.choice(VALUES["s"]),
            "b": rng.choice([True, False]),
            "l": [rng.choice(["", "a", "b", None]) for _ in range(rng.randrange(4))],
            "g": rng.choice([2**62, 2**53 + 1, 2**53, -(2**63), 2**63 - 1, 0]),
            "o": {
                "n": rng.choice([1, 0.5, 2**53 + 1, "a", None, True]),
                "s": rng.choice(["a", "b", "ä", 1, [], {}]),
                "d": rng.choice([{"b": True}, {"b": False}, {"b": "a"}, {}, 3, None]),
                "l": rng.choice([[], ["a"], ["a", 1, None], [0.5, True], "a", [[1]]]),
            },
            "e": rng.choice([[], [None]]),
        }
        rows.append({name: value for name, value in row.items() if rng.random() < 0.8})
    return [{"l": ["a"], "g": 2**60, "f": 1.5, "o": {"n": 1}, "e": []}, *rows]


def value_of(row, name):
    """What a document has at a dotted name; None where there is nothing."""
    for key in name.split("."):
        row = row.get(key) if isinstance(row, dict) else None
    return row


def random_filter(rng, depth=0):
    """(expression, tree, oracle: row -> True, False or None) of one random filter."""
    kind = rng.random()
    if depth < 4 and kind < 0.35:
        parts = [random_filter(rng, depth + 1) for _ in range(rng.randrange(1, 4))]
        word = rng.choice(["and", "or"])
        text = f" {word} ".join(f"({part[0]})" for part in parts)
        tree = {rng.choice([word, "$" + word]): [part[1] for part in parts]}
        return text, tree, lambda row: kleene(word, [part[2](row) for part in parts])
    if depth < 4 and kind < 0.5:
        text, tree, oracle = random_filter(rng, depth + 1)
        return f"not ({text})", {"not": tree}, lambda row: _inverted(oracle(row))
    return random_comparison(rng, rng.choice(NAMES), kind)


def random_comparison(rng, name, kind):
    """One comparison, as `random_filter` gives it."""
    written_name = rng.choice([name, f'field("{name}")', f"metadata.{name}"])
    if kind < 0.6:
        negate = rng.random() < 0.5
        tree = {name: {"!=": None}} if negate else {name: None}
        return f"{written_name} is {'not ' * negate}None", tree, lambda row: (value_of(row, name) is None) != negate
    value = rng.choice(VALUES.get(name, ANY))
    if name in LISTS:
        negate = rng.random() < 0.5
        text, tree = f"{written(value)} {'not ' * negate}in {written_name}", {name: {"contains": value}}
        return text, {"not": tree} if negate else tree, lambda row: holds(value_of(row, name), value, negate)
    if kind < 0.75:
        values, negate = [rng.choice(VALUES.get(name, ANY)) for _ in range(rng.randrange(4))], rng.random() < 0.5
        text = f"{written_name} {'not ' * negate}in [{', '.join(map(written, values))}]"
        return text, {name: {"not in" if negate else "in": values}}, lambda row: among(value_of(row, name), values, negate)
    sign = rng.choice(["==", "!=", "<", "<=", ">", ">="])
    mirror = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(sign, sign)
    text = f"{written_name} {sign} {written(value)}" if rng.random() < 0.5 else f"{written(value)} {mirror} {written_name}"
    return text, {name: {sign: value}}, lambda row: compared(value_of(row, name), sign, value)


def tree_holds(tree, row):
    """What a tree means for a document, if it is a filter at all: True, False or None."""
    return kleene("and", [_part_holds(key, value, row) for key, value in tree.items()])


def _part_holds(key, value, row):
    word = key.removeprefix("$")
    if word in ("and", "or"):
        return kleene(word, [tree_holds(each, row) for each in value])
    if word == "not":
        return _inverted(tree_holds(value, row))
    operators = value if isinstance(value, dict) else {"==": value}
    return kleene("and", [_operator_holds(value_of(row, key), sign, each) for sign, each in operators.items()])


def _operator_holds(found, sign, value):
    signs = {"$eq": "==", "$ne": "!=", "$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">=", "$in": "in", "$nin": "not in"}
    sign = signs.get(sign, sign.removeprefix("$"))
    if value is None:
        return (found is None) == (sign == "==")
    if sign == "contains":
        return holds(found, value, negate=False)
    if sign in ("in", "not in"):
        return among(found, value, sign == "not in")
    return compared(found, sign, value)


def _inverted(found):
    return None if found is None else not found


def kleene(word, values):
    """``and`` and ``or`` of SQL."""
    if (word == "and" and False in values) or (word == "or" and True in values):
        return word == "or"
    return None if None in values else word == "and"


def alike(left, right):
    """Whether two values can be compared: both truth values, both numbers, or both strings."""
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool)
    return any(isinstance(left, kind) and isinstance(right, kind) for kind in (int | float, str))


def holds(values, value, negate):
    """Whether a list holds a value."""
    return any(alike(each, value) and each == value for each in values) != negate if isinstance(values, list) else None


def among(value, values, negate):
    """Whether a value is one of a list; unknown where it is like none of them."""
    if not isinstance(value, int | float | str) or (values and not any(alike(value, each) for each in values)):
        return None
    return any(alike(value, each) and value == each for each in values) != negate


def compared(left, sign, right):
    """A comparison; unknown for values that are not alike."""
    if not alike(left, right):
        return None
    return {"==": left == right, "!=": left != right, "<": left < right, "<=": left <= right, ">": left > right,
            ">=": left >= right}[sign]  # fmt: skip


def written(value):
    """Write a value as an expression has it."""
    if isinstance(value, float) and abs(value) == float("inf"):
        return "1e999" if value > 0 else "-1e999"
    return repr(value)


PIECES = [
    "not ", "and ", "or ", "in ", "is ", "None", "True", "(", ")", "[", "]", "{", "}", ",", "==", "<", "=", "-", "'", '"',
    "\\", "\\u00e4", "\ud800", "e\u0301", "9" * 400, "9" * 5000, "1e999", "0x1", "i", "s", "l", "o.n", "field(", ".", "\n",
    "\0", "#", ";", "lambda: ", "f'{i}'", "b'a'", "**", "é", "０", "٣", "\u2028", "\xa0", "2020-01-01", "NaN", "metadata.",
    "AND", "null", '{"i"',
]  # fmt: skip
ODD = [
    None, True, 0, -(10**400), 0.5, float("nan"), float("inf"), "", "a", "\ud800", [], [1], ["a", None], {}, {"==": 1}, b"a",
    object, datetime.date(2020, 1, 1), decimal.Decimal(1), {"in": ["a"] * 1000}, range(3), {1, 2},
]  # fmt: skip


def mutated(rng, text, tree):
    """Break an expression or its tree somewhere."""
    return mutated_text(rng, text) if rng.random() < 0.5 else mutated_tree(rng, tree)


def mutated_text(rng, text):
    """Replace some characters by others."""
    for _ in range(rng.randrange(1, 4)):
        first = rng.randrange(len(text) + 1)
        text = text[:first] + rng.choice(PIECES) + text[first + rng.randrange(4) :]
    return text


def mutated_tree(rng, tree):
    """Replace a key or a value somewhere in the tree."""
    if not isinstance(tree, dict) or not tree or rng.random() < 0.2:
        return rng.choice(ODD)
    tree = dict(tree)
    key = rng.choice(list(tree))
    value = tree.pop(key)
    if rng.random() < 0.5:
        key = rng.choice(["and", "$or", "not", "i", "s", "l", "o", "==", "$in", "contains", "nested", "\ud800", "", 3, None])
    tree[key] = mutated_tree(rng, value) if rng.random() < 0.8 else value
    return tree
