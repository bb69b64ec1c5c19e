"""Fixtures that several modules share."""

import pytest
from several_fields import Fields


@pytest.fixture(scope="module")
def several():
    return Fields()
