"""How command lines are read: any order of arguments and options, and one line with the nearest name for what does not fit."""

import pytest

from lexmax.__main__ import _parser, main
from lexmax.retrieval.commands.options import bytes_of


def parsed(*arguments):
    return _parser().parse_args(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "IDX", "a query", "-k", "3", "--json"),
        ("search", "IDX", "-k", "3", "a query", "--json"),
        ("search", "-k", "3", "--json", "IDX", "a query"),
        ("search", "--json", "IDX", "-k", "3", "a query"),
    ],
)
def test_a_query_stands_anywhere(arguments):
    options = parsed(*arguments)
    assert (options.index, options.query, options.k, options.json) == ("IDX", "a query", 3, True)


def test_other_commands_take_any_order():
    options = parsed("build", "a.jsonl", "--out", "I", "b.jsonl", "--encoder", "bm25", "c.jsonl")
    assert (options.corpus, options.encoder) == (["a.jsonl", "b.jsonl", "c.jsonl"], ["bm25"])
    options = parsed("add", "--replace", "I", "--skip-bad", "more.jsonl")
    assert (options.index, options.corpus, options.replace, options.skip_bad) == ("I", ["more.jsonl"], True, True)
    options = parsed("field", "add", "--device", "cpu", "I", "--search", "bm25", "bm25")
    assert (options.action, options.index, options.field, options.search) == ("add", "I", "bm25", "bm25")
    options = parsed("eval", "--index", "I", "-k", "10", "DATA")
    assert (options.dataset, options.index, options.k) == ("DATA", "I", 10)
    assert parsed("list", "--json", "I", "--filter", "a == 1").index == "I"
    assert parsed("bench", "sparse", "--docs", "5").docs == 5


def test_after_two_dashes_all_is_text():
    assert parsed("search", "I", "-k", "2", "--", "-5 or --json").query == "-5 or --json"
    assert parsed("delete", "I", "--", "-a", "b").doc_id == ["-a", "b"]


def test_settings_may_follow_one_option():
    options = parsed("search", "I", "--option", "a.x=1", "b.y=2", "the query", "--option", "a.z=3")
    assert (options.option, options.query) == (["a.x=1", "b.y=2", "a.z=3"], "the query")
    assert parsed("search", "I", "--option", "a.x=1", "E=mc2").query == "E=mc2"  # no setting of a field
    options = parsed("train", "splade", "--set", "a=1", "b=2", "--model", "m", "--data", "d", "--out", "o", "--loss", "flops=1")
    assert (options.set, options.loss) == (["a=1", "b=2"], ["flops=1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serch", "I"], "lexmax: argument COMMAND: there is no 'serch'; did you mean 'search'?"),
        (["search", "I", "q", "--serach", "x"], "lexmax search: there is no option --serach; did you mean '--search'?"),
        (["search", "I", "q", "--qqq"], "lexmax search: there is no option --qqq "),
        (["search", "I", "two", "words"], "lexmax search: 'words' is left over: a text of several words stands in quotes"),
        (["search", "I", "-k", "many"], "lexmax search: argument -k: invalid int value: 'many'"),
        (["search"], "lexmax search: the following arguments are required: IDX"),
        (["field", "ad", "I"], "lexmax field: argument action: there is no 'ad'; did you mean 'add'?"),
        (["build", "c", "--out", "I", "--set", "k1=1"], "no option --set: write --encoder MODEL,SETTING=VALUE"),
        (["build", "c", "--out", "I", "--encoder", "bm25", "--model", "m"], "no option --model: write --encoder MODEL"),
        (["bench", "sprase"], "lexmax bench: argument COMPARISON: there is no 'sprase'; did you mean 'sparse'?"),
        (["serve", "I", "--log-level", "loud"], "there is no 'loud'; there are debug, info, warning, error"),
    ],
)
def test_what_does_not_fit_ends_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("0", 0), ("12", 12), ("500MB", 500_000_000), ("1.5 GiB", 3 << 29), (".5k", 500), ("2kib", 2048), ("1TB", 10**12)],
)
def test_sizes(text, n_bytes):
    assert bytes_of(text, "--memory-budget") == n_bytes


@pytest.mark.parametrize("text", ["", "MB", "-1", "1e9", "5 bananas", "1.5.2GB", "1 MBB"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="--memory-budget takes a size, as in 500MB"):
        bytes_of(text, "--memory-budget")
