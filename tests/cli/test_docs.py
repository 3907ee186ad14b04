from __future__ import annotations

import json

import pytest

from server.cli import main


@pytest.mark.feature("E01", "E06")
def test_the_documents_are_printed_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    for name, key in (("openapi", "paths"), ("asyncapi", "channels")):
        assert main(["docs", name]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document[name]
        assert document[key]
