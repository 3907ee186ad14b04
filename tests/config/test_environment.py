"""Variables: those that are read, those of Kubernetes, and those that somebody has misspelt."""

from __future__ import annotations

import pytest

from server.config import ENVIRONMENT, OTHER_VARIABLES, load, strays
from server.config.environment import is_link


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PARLEY_DATABSE_URL", "PARLEY_DATABASE_URL"),
        ("PARLEY_DATABASE", "PARLEY_DATABASE_URL"),
        ("PARLEY_LOGLEVEL", "PARLEY_LOG_LEVEL"),
        ("PARLEY_MODEL_URL", "PARLEY_MODEL_BASE_URL"),
        ("PARLEY_MODEL_APIKEY", "PARLEY_MODEL_API_KEY"),
        ("PARLEY_ALLOWED_HOST", "PARLEY_ALLOWED_HOSTS"),
        ("PARLEY_PROT", "PARLEY_PORT"),
        ("PARLEY_CONFG", "PARLEY_CONFIG"),
        ("PARLEY_TOKENS", "PARLEY_TOKEN"),
        ("PARLEY_SOMETHING_ELSE", None),
        # Kept by somebody for another purpose, and no slip.
        ("PARLEY_TEST_DATABASE_URL", None),
        ("PARLEY_STAGING_LOG_LEVEL", None),
        ("PARLEY_", None),
    ],
)
def test_a_variable_that_nobody_reads_and_what_may_be_meant(name: str, meant: str | None) -> None:
    assert strays({name: "x"}) == [(name, meant)]


def test_known_variables_are_no_strays() -> None:
    assert strays(dict.fromkeys([*ENVIRONMENT, *OTHER_VARIABLES, "PARLEY_CONFIG", "HOME", "MY_PARLEY_X"], "x")) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PARLEY_PORT", "tcp://10.0.0.1:8080"),
        ("PARLEY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("PARLEY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("PARLEY_SERVICE_HOST", "10.0.0.1"),
        ("PARLEY_SERVICE_PORT_HTTP", "8080"),
        ("PARLEY_WEB_SERVICE_HOST", "10.0.0.1"),
        ("PARLEY_WEB_PORT", "udp://10.0.0.1:53"),
    ],
)
def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over(name: str, text: str) -> None:
    assert is_link(name, text)
    assert strays({name: text}) == []
    assert load(environ={name: text}).server.port == 8080


def test_an_empty_variable_sets_nothing() -> None:
    config = load(environ=dict.fromkeys(ENVIRONMENT, ""))
    assert config.sources == {}
