"""The page as HTML: what it shows, what it escapes, what screen readers find. Browsers are in tests/integration."""

import re
from html.parser import HTMLParser

import pytest

from lexmax import Retriever, build_index
from lexmax.retrieval.explanation_html import explanation_html, marked
from lexmax.server.app import create_app
from lexmax.server.page.curves import calibration_curve
from lexmax.server.page.highlighting import Highlighter

ATTACK = "<script>alert(1)</script>"
DOCUMENTS = [
    {
        "id": f"d{i}",
        "title": f"Solar cells {i}",
        "text": f"Cells of silicon turn sunlight into power, kind {i}.",
        "year": 2000 + i,
    }
    for i in range(14)
] + [{"id": ATTACK, "title": ATTACK, "text": f"wind {ATTACK} " + "of the sea " * 100 + "turbines", "tags": ["<b>", "x"]}]
VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """The elements of a page, and its texts; fails where an element is not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def client(tmp_path_factory, run_server):
    path = tmp_path_factory.mktemp("page") / "energy"
    build_index(documents=DOCUMENTS, out=path, encoders=["bm25", "lexmax-colbert"], search="bm25 > colbert")
    with run_server(create_app({"energy": lambda: Retriever.open(path)})) as (client, _):
        client.get("/explain", params={"q": "solar", "rank": 1})  # compiles, once on a machine
        yield client


def page_of(client, address, status=200, **query):
    response = client.get(address, params=query or None)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return Page(response.text)


def test_the_form_before_anything_is_asked(client):
    page = page_of(client, "/")
    assert "Ask the index something." in page.text
    inputs = {each["name"] for each in page.all("input")}
    assert inputs == {"q", "search", "against", "filter"}
    assert {each["for"] for each in page.all("label")} == {each["id"] for each in page.all("input")}
    assert page.all("html") == [{"lang": "en"}]


@pytest.mark.parametrize("address", ["/", "/?q=solar&against=bm25", "/explain?q=solar", "/facts", "/?q=solar&filter=%28"])
def test_every_page_has_no_script_no_style_of_its_own_and_a_strict_policy(client, address):
    response = client.get(address)
    page = Page(response.text)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert not page.all("script")
    assert not any(
        "style" in attributes or any(name.startswith("on") for name in attributes) for _, attributes in page.elements
    )
    assert "http://" not in response.text
    assert "https://" not in response.text
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    described = {name for _, attributes in page.elements for name in attributes.get("aria-describedby", "").split()}
    assert described <= set(ids)
    assert [each.get("id") for each in page.all("main")] == ["main"]
    assert len(page.all("h1")) >= (address != "/")


def test_results_with_the_words_asked_for_marked(client):
    response = client.get("/", params={"q": "solar cell 3"})
    page = Page(response.text)
    assert "<mark>Cells</mark> of silicon" in response.text
    assert "10 results in" in page.text
    assert len(page.all("article")) == 10
    (following,) = [each for each in page.all("a") if each.get("rel") == "next"]
    second = page_of(client, following["href"].removeprefix("."))
    assert [each["start"] for each in second.all("ol")] == ["11"]
    assert [each.get("rel") for each in second.all("a")].count("prev") == 1


def test_what_comes_from_documents_and_queries_is_escaped(client):
    for response in (
        client.get("/", params={"q": f"wind {ATTACK}", "search": "bm25", "filter": "'<b>' in tags"}),
        client.get("/explain", params={"q": f"wind {ATTACK}", "search": "bm25"}),
        client.get("/", params={"q": "x", "search": ATTACK}),
        client.get("/", params={"q": ATTACK, "index": ATTACK, "against": ATTACK}),
    ):
        assert ATTACK not in response.text
        assert "<b>" not in response.text
        Page(response.text)


def test_a_long_text_is_cut_around_what_was_asked_for(client):
    page = page_of(client, "/", q="turbine", search="bm25")
    assert "turbines" in page.text
    assert "... " in page.text
    assert f"wind {ATTACK}" not in page.text


def test_two_expressions_side_by_side(client):
    page = page_of(client, "/", q="silicon kind 7", search="bm25", against="colbert", filter="year >= 2005")
    columns = [attributes for name, attributes in page.elements if name == "section"]
    assert len(columns) == 2
    assert re.search(r"\d (up|down)|same rank|new", page.text)
    links = [each["href"] for each in page.all("a") if each.get("href", "").startswith("explain")]
    assert sum("search=colbert" in link for link in links) == len(page.all("article")) / 2


def test_an_explanation_has_terms_as_bars_and_tokens_as_an_alignment(client):
    page = page_of(client, "/explain", q="solar power", rank=2)
    assert "Stage 1: bm25 , rank" in page.text
    assert "Terms that query and document share" in page.text
    assert "MaxSim: each query token and the document's most similar one" in page.text
    meters = page.all("meter")
    assert len(meters) > 5
    assert all(0 <= float(each["value"]) <= float(each["max"]) for each in meters)
    heads = [each for each in page.all("th") if each.get("scope") == "row"]
    assert len(heads) == len(meters)
    assert page.all("mark")


def test_facts_have_sizes_and_fields(client):
    page = page_of(client, "/facts", index="energy")
    for words in ("Documents 15", "bm25 > colbert", "Where the bytes are", "year int64", "colbert tokens"):
        assert words in page.text


@pytest.mark.parametrize(
    ("address", "query", "status", "words"),
    [
        ("/", {"q": "x", "search": "bm25 + nothing"}, 422, "there is no field 'nothing'"),
        ("/", {"q": "x", "filter": "year >"}, 422, "filter"),
        ("/", {"q": "x" * 20_001}, 422, "20000 characters"),
        ("/", {"q": "x", "index": "none"}, 404, "there is no index 'none'"),
        ("/explain", {"q": "zzz", "search": "bm25"}, 404, "no result of rank 1"),
        ("/explain", {"q": "solar", "rank": "0"}, 422, "from 1 to 100"),
        ("/explain", {"q": "solar", "rank": "x"}, 422, "from 1 to 100"),
        ("/explain", {}, 422, "query"),
        ("/facts", {"index": "none"}, 404, "there is no index"),
    ],
)
def test_errors_are_told_in_the_page(client, address, query, status, words):
    page = page_of(client, address, status, **query)
    assert [each.get("role") for each in page.all("div")].count("alert") == 1
    assert words in page.text


def test_no_result_says_so(client):
    assert "No document answers this query." in page_of(client, "/", q="zzzz", search="bm25").text
    assert "under this filter" in page_of(client, "/", q="solar", search="bm25", filter="year > 3000").text


def test_before_it_is_ready_the_page_says_so(retriever, start):
    retriever.search_error = RuntimeError("not yet")
    client, _ = start(ready=False)
    assert "not ready" in page_of(client, "/", 503, q="x").text


def test_the_style_sheet_is_served(client):
    response = client.get("/page.css")
    assert response.headers["content-type"].startswith("text/css")
    assert "prefers-color-scheme: dark" in response.text


def test_marks_do_not_overlap_and_stay_inside():
    assert marked("a<bc>d", [(1, 3), (2, 4), (4, 4), (9, 99)]) == "a<mark>&lt;b</mark><mark>c</mark>&gt;d"
    assert marked("", [(0, 3)]) == ""


def test_a_highlighter_knows_stems():
    assert str(Highlighter().snippet("The turbine & TURBINES", "a turbines")) == (
        "The <mark>turbine</mark> &amp; <mark>TURBINES</mark>"
    )


def test_a_calibration_is_a_curve_with_words():
    efforts = [{"options": {"n_probe": n}, "recall": 0.9 + n / 100, "error": 0.0, "cpu_ms": n / 10} for n in (1, 4, 8)]
    page = Page(calibration_curve({"k": 10, "efforts": efforts}))
    assert page.all("svg")[0]["role"] == "img"
    assert "from 0.910 at 0.10 ms to 0.980" in page.all("svg")[0]["aria-label"]
    assert len(page.all("circle")) == 3


def test_notebooks_show_the_same(tmp_path):
    build_index(documents=DOCUMENTS[:3], out=tmp_path / "i", encoders=["bm25"])
    with Retriever.open(tmp_path / "i") as retriever:
        results = retriever.search("solar", 2, explain=True)
        plain = retriever.search("solar", 2)
    assert explanation_html(results[0].explanation) == results[0].explanation._repr_html_()
    page = Page(results._repr_html_())
    assert len(page.all("meter")) == 2
    assert "Solar cells" in page.text
    assert Page(results[0]._repr_html_()).all("table")
    assert not Page(plain._repr_html_()).all("meter")
