"""One small server for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import make_service

from uniadapter.serve.service import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = make_service(tmp_path_factory.mktemp("serve"))
    yield made
    made.close()
