import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexmax.retrieval.pipelines.expression import ExpressionError, Fused, Reranker, Search, Term, parse

NAMES = st.from_regex(r"\A[A-Za-z][A-Za-z0-9_-]{0,6}\Z")
DEPTHS = st.none() | st.integers(1, 1_000_000)
WEIGHTS = st.floats(1e-6, 1e6, allow_nan=False)


@st.composite
def fusions(draw, sources, *, in_reranker=False):
    weighted = draw(st.booleans())
    return Fused(
        tuple(
            Term(source, draw(WEIGHTS) if weighted else None, None if in_reranker else draw(DEPTHS))
            for source in draw(st.lists(sources, min_size=1, max_size=3, unique=True))
        )
    )


def searches(sources):
    rerankers = st.lists(st.builds(Reranker, fusions(NAMES, in_reranker=True), DEPTHS), max_size=2).map(tuple)
    return st.builds(Search, fusions(sources), rerankers)


@given(st.recursive(searches(NAMES), lambda inner: searches(NAMES | inner), max_leaves=5))
def test_what_is_printed_is_parsed(search):
    assert parse(str(search)) == search


@given(st.text(alphabet="ab1.5e:*+>() -_é\n", max_size=30) | st.text(max_size=30))
def test_any_text_is_parsed_or_refused(text):
    search = error = None
    try:
        search = parse(text)
    except ExpressionError as raised:
        error = raised
    if error is None:
        assert parse(str(search)) == search
    else:
        assert 0 <= error.position <= len(text)


@pytest.mark.parametrize(
    ("text", "printed", "fields"),
    [
        ("bm25", "bm25", ("bm25",)),
        (" ( bm25+splade )>colbert:50 ", "(bm25 + splade) > colbert:50", ("bm25", "splade", "colbert")),
        ("bm25 + splade > colbert", "bm25 + splade > colbert", ("bm25", "splade", "colbert")),
        (".3*a:20 + 1e-1*inference-free", "0.3*a:20 + 0.1*inference-free", ("a", "inference-free")),
        ("a > 0.3*a + 0.7*b:9 > c", "a > 0.3*a + 0.7*b:9 > c", ("a", "b", "c")),
    ],
)
def test_canonical_form_and_fields(text, printed, fields):
    search = parse(text)
    assert str(search) == printed
    assert search.fields == fields


@pytest.mark.parametrize(
    ("text", "reason", "position"),
    [
        ("", "expected a field", 0),
        ("a + ", "expected a field", 3),
        ("a ? b", "'?' has no meaning here", 2),
        ("0*a", "a weight is a number > 0", 0),
        ("1e999*a", "a weight is a number > 0", 0),
        ("0.5*a + b", "give all of them one, or none", 0),
        ("a + b + a:9", "a fusion names a twice", 0),
        ("a > 0.5*b + 0.1*b", "a fusion names b twice", 4),
        ("(a > b) + (a>b):9", "a fusion names a > b twice", 0),
        ("a > (b)", "a reranker names fields", 4),
        ("a > b:3 + c", "only stand at its end", 4),
        ("(a", "expected )", 2),
        ("a:0", "a depth is a whole number from 1", 2),
        ("a:1.5", "a depth is a whole number from 1", 2),
        ("a b", "expected + or >", 2),
        ("a * 2", "expected + or >", 2),
        ("(" * 60 + "a" + ")" * 60, "parentheses inside each other", None),
        ("a+" * 10_000 + "a", "longer than", 0),
    ],
)
def test_errors_name_the_place_and_the_reason(text, reason, position):
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert reason in caught.value.reason
    if position is not None:
        assert caught.value.position == position
    shown = f"search expression {caught.value.expression!r}, character {caught.value.position + 1}: {caught.value.reason}"
    assert str(caught.value) == shown  # one line
    assert "\n" not in shown


def test_only_strings_are_expressions():
    with pytest.raises(TypeError, match="not int"):
        parse(3)
