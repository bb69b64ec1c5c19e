import argparse
from dataclasses import fields
from pathlib import Path

import pytest

from lexmax.server.limits import Limits, add_limit_options, limits_of, limits_table

DOCS = Path(__file__).parents[3] / "docs" / "http.md"


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_limit_options(parser)
    return parser.parse_args(arguments)


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default():
    environment = {"LEXMAX_MAX_K": "7", "LEXMAX_MAX_HITS": "70", "LEXMAX_DEADLINE_S": "2.5", "LEXMAX_OTHER": "x"}
    limits = limits_of(parsed("--max-k", "5", "--grace-s", "3"), environment)
    assert (limits.max_k, limits.max_hits, limits.deadline_s, limits.grace_s) == (5, 70, 2.5, 3)
    assert limits.max_batch == Limits().max_batch


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LEXMAX_MAX_K": "many"}, "LEXMAX_MAX_K must be a whole number, not 'many'"),
        ({"LEXMAX_MAX_K": "1.5"}, "LEXMAX_MAX_K must be a whole number, not '1.5'"),
        ({"LEXMAX_DEADLINE_S": ""}, "LEXMAX_DEADLINE_S must be a number, not ''"),
        ({"LEXMAX_DEADLINE_S": "nan"}, r"deadline_s \(--deadline-s, LEXMAX_DEADLINE_S\) must be a number above 0, not nan"),
    ],
)
def test_variables_that_are_refused(environment, message):
    with pytest.raises(ValueError, match=message):
        limits_of(parsed(), environment)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_k": 0}, r"max_k \(--max-k, LEXMAX_MAX_K\) must be at least 1, not 0"),
        ({"max_body_bytes": -1}, "must be at least 1, not -1"),
        ({"deadline_s": 0.0}, "must be a number above 0, not 0.0"),
        ({"deadline_s": float("inf")}, "must be a number above 0"),
        ({"max_waiting": 10, "max_batch": 11}, "max_waiting must be at least max_batch: 10 < 11"),
        ({"max_held_bytes": 10, "max_body_bytes": 9, "max_answer_bytes": 2}, "must hold a body and an answer: 10 < 9"),
    ],
)
def test_limits_that_make_no_sense(limits, message):
    with pytest.raises(ValueError, match=message):
        Limits(**limits)


def test_the_documentation_lists_every_limit_as_it_is():
    assert limits_table(Limits()) in DOCS.read_text(encoding="utf-8")
    assert len(limits_table(Limits()).splitlines()) == len(fields(Limits)) + 2
