"""What is wrong with certificates and keys is told by key and reason, and nothing is asked at the terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from server.config import Config, ConfigError, load
from server.tls.certificates import Certificates
from server.tls.loading import load as load_files
from server.tls.settings import TlsSettings
from tests.check.support import context, found, said
from tests.support.clock import ManualClock
from tests.tls.conftest import Papers


def refusal(**settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_files(Config(tls=TlsSettings(**settings)))
    return str(caught.value)


def encrypted(papers: Papers, password: bytes) -> None:
    """Encrypt the key where it is."""
    key = serialization.load_pem_private_key(papers.key.read_bytes(), None)
    how = serialization.BestAvailableEncryption(password)
    papers.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))


def test_what_a_certificate_says_is_read(papers: Papers) -> None:
    ends = datetime(2031, 1, 2, tzinfo=UTC)
    papers.issue("parley.example.org", "*.example.net", "10.0.0.1", begins=ends - timedelta(days=90), ends=ends)
    certificate = load_files(Config(tls=papers.settings)).certificate
    assert certificate is not None
    assert sorted(certificate.names) == ["*.example.net", "10.0.0.1", "parley.example.org"]
    assert (certificate.begins, certificate.ends) == (ends - timedelta(days=90), ends)


def test_one_file_may_hold_both(papers: Papers) -> None:
    leaf = papers.issue()
    papers.certificate.write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    assert load_files(Config(tls=TlsSettings(certificate_file=str(papers.certificate)))).certificate is not None


@pytest.mark.feature("S37")
def test_files_that_cannot_be_used_are_refused_by_name(papers: Papers, tmp_path: Path) -> None:
    certificate, key, absent = str(papers.certificate), str(papers.key), str(tmp_path / "absent")
    junk = tmp_path / "junk"
    junk.write_text("neither\n")
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(other)
    for settings, told in (
        ({"certificate_file": absent}, f"tls.certificate_file: {absent}: no such file or directory"),
        ({"certificate_file": certificate, "key_file": absent}, f"tls.key_file: {absent}: no such file or directory"),
        (
            {"certificate_file": certificate, "key_file": str(other)},
            f"tls.key_file: the key in {other} does not fit the certificate",
        ),
        ({"certificate_file": certificate}, f"tls.key_file: {certificate} holds no private key in PEM"),
        ({"certificate_file": str(junk), "key_file": key}, f"tls.certificate_file: {junk} holds no certificate in PEM"),
        ({"certificate_file": certificate, "key_file": str(tmp_path)}, f"tls.key_file: {tmp_path}: is a directory"),
        (
            {"certificate_file": certificate, "key_file": key, "key_password_file": absent},
            f"tls.key_password_file: {absent}: no such file or directory",
        ),
    ):
        assert refusal(**settings).startswith(told)


def test_an_encrypted_key_needs_its_password(papers: Papers, tmp_path: Path) -> None:
    encrypted(papers, b"opens it")
    files: dict[str, Any] = {"certificate_file": str(papers.certificate), "key_file": str(papers.key)}
    assert "is encrypted; set key_password or key_password_file" in refusal(**files)
    assert "the password does not open" in refusal(**files, key_password="wrong")
    assert "wrong" not in refusal(**files, key_password="wrong")
    assert load_files(Config(tls=TlsSettings(**files, key_password="opens it"))).certificate is not None
    (tmp_path / "password").write_text("opens it\n")
    from_file = TlsSettings(**files, key_password_file=str(tmp_path / "password"))
    assert load_files(Config(tls=from_file)).certificate is not None


def test_settings_that_make_no_sense_are_told_with_their_source(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    for text, told in (
        ('key_file = "k"', "tls.key_file: it goes with a certificate_file, and there is none"),
        ('certificate_file = "c"\nkey_password = "p"\nkey_password_file = "f"', "tls.key_password_file: give it or"),
        ('minimum_version = "1.1"', "tls.minimum_version: expected `1.2` or `1.3`, got '1.1'"),
    ):
        file.write_text(f"[tls]\n{text}\n")
        with pytest.raises(ConfigError) as caught:
            load(environ={}, file=file)
        assert str(caught.value).startswith(told)


def test_relative_paths_are_meant_from_the_file_and_errors_say_where_it_was_set(papers: Papers) -> None:
    file = papers.certificate.with_name("parley.toml")
    file.write_text('[tls]\ncertificate_file = "fullchain.pem"\nkey_file = "privkey.pem"\n')
    config = load(environ={}, file=file)
    assert load_files(config).certificate is not None
    papers.key.unlink()
    with pytest.raises(ConfigError, match=r"tls\.key_file: .*privkey\.pem: no such file .*line 3\)"):
        load_files(config)


@pytest.mark.parametrize(
    ("begins", "ends", "told"),
    [(-100, -1, "expired"), (-80, 10, "expires_soon"), (1, 90, "not_valid_yet"), (-1, 89, "")],
)
def test_a_certificate_whose_time_is_not_now_is_shown_with_a_warning(
    papers: Papers, begins: int, ends: int, told: str
) -> None:
    clock = ManualClock()
    papers.issue(begins=clock.now() + timedelta(days=begins), ends=clock.now() + timedelta(days=ends))
    with capture_logs() as logged:
        # Once, however often it is looked at.
        Certificates(Config(tls=papers.settings), clock).look()
    assert [(line["event"], line["log_level"]) for line in logged] == (
        [(f"certificate_{told}", "warning")] if told else []
    )


@pytest.mark.parametrize(
    ("days", "hosts", "level", "what"),
    [
        (80, "", "ok", "HTTPS, for 127.0.0.1, localhost until"),
        (5, "", "warning", "the certificate expires on"),
        (-5, "", "warning", "the certificate has expired on"),
        (80, "localhost", "ok", "HTTPS"),
        (80, "parley.example.org", "warning", "the certificate is not for parley.example.org"),
    ],
)
def test_the_check_says_how_the_certificate_is(papers: Papers, days: int, hosts: str, level: str, what: str) -> None:
    now = datetime.now(UTC)
    papers.issue(begins=now - timedelta(days=100), ends=now + timedelta(days=days))
    file = papers.certificate.with_name("parley.toml")
    file.write_text(
        '[tls]\ncertificate_file = "fullchain.pem"\nkey_file = "privkey.pem"\n'
        f"[server]\nallowed_hosts = [{msgspec.json.encode(hosts).decode() if hosts else ''}]\n"
    )
    findings = found("access", context(file))
    assert any(finding.level == level and finding.what.startswith(what) for finding in findings), findings
    papers.key.unlink()
    (error,) = said(found("access", context(file)), "error")
    assert "tls.key_file" in error
