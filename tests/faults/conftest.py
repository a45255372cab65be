"""A programmable archive, and nodes that are killed and started again in front of it."""

import pytest

from tests.faults.forged import Forged
from tests.integration.network.support import FakePeer


@pytest.fixture
def pacs():
    with FakePeer() as peer:
        yield peer


@pytest.fixture
def forged(tmp_path, pacs):
    one = Forged(tmp_path, pacs.port)
    yield one
    one.close()
