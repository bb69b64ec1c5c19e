import logging

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from lexmax.index.errors import (
    DatasetError,
    EncoderMismatchError,
    IndexFormatError,
    IndexNotFoundError,
    MissingDependencyError,
    RepresentationError,
    StorageError,
)
from lexmax.server.errors import RefusedError, refused
from lexmax.server.observing.notes import notes_of

SCOPE = {"type": "http", "method": "GET", "path": "/v1/index", "headers": []}


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (RefusedError(503, "overloaded", "later"), 503, "overloaded"),
        (HTTPException(404), 404, "not_found"),
        (HTTPException(405), 405, "method_not_allowed"),
        (HTTPException(400, "bad body"), 400, "invalid_request"),
        (IndexNotFoundError("/secret/index"), 404, "not_found"),
        (
            EncoderMismatchError(index="bm25:1", encoder="splade:2", hint="/secret/model"),
            409,
            "encoder_mismatch",
        ),
        (RepresentationError("secret/model: no weights"), 422, "representation"),
        (HTTPException(500, "/secret"), 500, "internal"),
        (IndexFormatError("/secret/index", expected=1, found=2), 500, "internal"),
        (StorageError("/secret/postings: offset 3"), 500, "internal"),
        (DatasetError("bad", path="/secret/corpus"), 500, "internal"),
        (MissingDependencyError("torch", "encode", "/secret"), 500, "internal"),
        (ValueError("/secret"), 500, "internal"),
        (KeyError("/secret"), 500, "internal"),
    ],
)
def test_status_and_type_of_every_error_and_no_path_in_any(error, status, kind):
    refusal = refused(error, SCOPE)
    assert (refusal.status, refusal.kind) == (status, kind)
    assert b"secret" not in refusal.response().body


def test_a_surprise_is_logged_under_the_id_that_the_client_gets(caplog):
    with caplog.at_level(logging.ERROR, logger="lexmax.server.errors"):
        refusal = refused(StorageError("/secret/postings: offset 3"), SCOPE)
    (record,) = caplog.records
    request_id = refusal.message.rpartition(" ")[2]
    assert request_id in record.getMessage()
    assert request_id == notes_of(SCOPE).request_id
    assert "/secret/postings" in str(record.exc_info[1])


def test_the_encoders_are_named_when_they_do_not_match():
    message = refused(EncoderMismatchError(index="bm25:1", encoder="splade:2"), SCOPE).message
    assert "bm25:1" in message
    assert "splade:2" in message


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # busy machines
@given(st.lists(st.tuples(st.lists(st.text(st.characters()) | st.integers()), st.text(st.characters()))))
def test_any_validation_error_can_be_sent(problems):
    errors = [{"type": "x", "loc": ("body", *loc), "msg": msg, "input": float("nan")} for loc, msg in problems]
    response = refused(RequestValidationError(errors), SCOPE).response()
    assert response.status_code == 422


def test_a_message_that_quotes_much_is_cut():
    assert len(RefusedError(404, "not_found", "x" * 5000).response().body) < 1100
