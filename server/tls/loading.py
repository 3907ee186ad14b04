"""From files to what speaks TLS, with everything tried that may be wrong with them.

What was loaded is looked at as a client sees it, by a handshake with ourselves: that shows that certificate and key
work together, and what the certificate says.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from server.config.problems import ConfigError, Problem
from server.config.sections import Config

__all__ = ["Certificate", "Files", "Loaded", "load"]

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL: what a certificate says can be read after it has expired, too.
_ANY_TIME: Final = 0x200000
#: Messages of a handshake that has nobody between its ends; more would be a mistake.
_ROUNDS: Final = 10


class Certificate(Struct, frozen=True):
    """What a certificate says of itself: for which names and addresses it is good, and when."""

    names: tuple[str, ...]
    begins: datetime
    ends: datetime


class Loaded(Struct, frozen=True):
    """What speaks TLS, and its certificate; None where a client of ours would not take it, whatever its time."""

    context: ssl.SSLContext
    certificate: Certificate | None


class Files:
    """The files that the configuration names. Relative paths are meant from the configuration's own folder."""

    def __init__(self, config: Config) -> None:
        settings = config.tls
        assert settings.certificate_file is not None, "without a certificate there is no TLS"
        self._config = config
        self.certificate = self._path(settings.certificate_file)
        self.key = self.certificate if settings.key_file is None else self._path(settings.key_file)
        self.password = None if settings.key_password_file is None else self._path(settings.key_password_file)

    def signature(self) -> tuple[object, ...]:
        """Something that is another once a file was replaced or written to; None stands for one that is not there."""
        return tuple(_signature(path) for path in (self.certificate, self.key, self.password) if path is not None)

    def refusal(self, key: str, reason: str) -> ConfigError:
        """The error for what a key of the section names."""
        name = f"tls.{key}"
        return ConfigError(Problem(name, reason, self._config.source(name)))

    def read_password(self) -> str | None:
        """What the key is encrypted with, if anybody says. Raises ConfigError."""
        if self.password is None:
            return self._config.tls.key_password
        try:
            return self.password.read_text("utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise self.refusal("key_password_file", _why(error, self.password)) from error

    def check_readable(self) -> None:
        """Raise ConfigError for a file that cannot be read, as OpenSSL does not say which."""
        for key, path in (("certificate_file", self.certificate), ("key_file", self.key)):
            try:
                with path.open("rb"):
                    ...
            except OSError as error:
                raise self.refusal(key, _why(error, path)) from error

    def _path(self, name: str) -> Path:
        return self._config.base / Path(name).expanduser()


def load(config: Config) -> Loaded:
    """Load what the configuration names. Raises ConfigError that names the key and the reason."""
    files = Files(config)
    files.check_readable()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.tls.minimum_version]
    # Browsers offer HTTP/2 as well, and would otherwise have to guess.
    context.set_alpn_protocols(["http/1.1"])
    _load_chain(context, files)
    return Loaded(context, _look_at(context, files))


def _load_chain(context: ssl.SSLContext, files: Files) -> None:
    password = files.read_password()

    def ask() -> str:
        # Without this OpenSSL would ask at the terminal.
        if password is None:
            raise files.refusal("key_file", f"{files.key} is encrypted; set key_password or key_password_file")
        return password

    try:
        context.load_cert_chain(files.certificate, files.key, ask)
    except ssl.SSLError as error:
        raise _explained(error, files, asked=password is not None) from error
    except (OSError, ValueError) as error:
        raise files.refusal("key_file", _why(error, files.key)) from error


def _explained(error: ssl.SSLError, files: Files, *, asked: bool) -> ConfigError:
    """What OpenSSL means, which says it in the words of its own functions."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return files.refusal("key_file", f"the key in {files.key} does not fit the certificate")
    if error.reason in {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
        return files.refusal("certificate_file", f"{files.certificate}: its key or its signature is too weak")
    if not _holds(files.certificate, b"CERTIFICATE-----"):
        return files.refusal("certificate_file", f"{files.certificate} holds no certificate in PEM")
    if not _holds(files.key, b"PRIVATE KEY-----"):
        return files.refusal("key_file", f"{files.key} holds no private key in PEM")
    if asked and _holds(files.key, b"ENCRYPTED"):
        return files.refusal("key_file", f"the password does not open {files.key}")
    return files.refusal("certificate_file", f"{files.certificate} and {files.key} cannot be used: {error.reason}")


def _holds(path: Path, mark: bytes) -> bool:
    try:
        return mark in path.read_bytes()
    except OSError:
        # It went away since it was looked at; the next look tells so.
        return True


def _look_at(context: ssl.SSLContext, files: Files) -> Certificate | None:
    """Read the certificate by a handshake with ourselves in memory, in which it is trusted as it is."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _ANY_TIME
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client.load_verify_locations(files.certificate)
        there = client.wrap_bio(down, up)
        here = context.wrap_bio(up, down, server_side=True)
        for _ in range(_ROUNDS):
            if _step(there) & _step(here):
                break
        found = there.getpeercert()
    except (ssl.SSLError, ValueError):
        return None
    return None if not found else _certificate(found)


def _step(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _certificate(found: dict[str, Any]) -> Certificate:
    def moment(text: str) -> datetime:
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)

    names = tuple(str(name) for kind, name in found.get("subjectAltName", ()) if kind in {"DNS", "IP Address"})
    return Certificate(names, moment(found["notBefore"]), moment(found["notAfter"]))


def _signature(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _why(error: Exception, path: Path) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return f"{path}: {(reason or str(error)).lower()}"
