"""The certificate that is shown: the newest that works."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from typing import Final

import structlog

from server.clock import Clock
from server.config.problems import ConfigError
from server.config.sections import Config
from server.tls.loading import Files, Loaded, load

__all__ = ["SOON", "Certificates"]

_log: Final = structlog.stdlib.get_logger("server.tls")

#: Who renews certificates of 90 days does so a month before; by then something is wrong.
SOON: Final = timedelta(days=14)


class Certificates:
    """Loads the configured files, and again once they were replaced.

    Those that listen have `context`, for good; each handshake is handed the newest one that works. So renewed files
    that do not fit, as while they are being copied, change nothing, and connections that there are go on.
    """

    def __init__(self, config: Config, clock: Clock) -> None:
        """Load the files. Raises ConfigError."""
        self._config = config
        self._clock = clock
        self._files = Files(config)
        self._signature = self._files.signature()
        self._loaded = load(config)
        self._told = ""
        self._watching: asyncio.Task[None] | None = None
        self.context = self._loaded.context
        self.context.sni_callback = self._hand_over
        self._tell()

    @property
    def loaded(self) -> Loaded:
        """What is shown now."""
        return self._loaded

    def start(self) -> None:
        """Begin to look for renewed files. Idempotent."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="certificates")

    async def stop(self) -> None:
        """Look no longer. Idempotent; over when it returns."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def look(self) -> None:
        """Load the files if they are others than before; what does not work is told once, and nothing changes."""
        signature = self._files.signature()
        if signature != self._signature:
            self._signature = signature
            try:
                self._loaded = load(self._config)
            except ConfigError as error:
                _log.warning("certificate_not_renewed", reason=str(error))
                return
            _log.info("certificate_renewed", **self._facts())
            self._told = ""
        self._tell()

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._config.tls.reload_interval)
            try:
                self.look()
            except Exception:  # noqa: BLE001 - whatever is wrong with the files, the server goes on with what it has
                _log.exception("looking at certificates failed")

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """OpenSSL asks this in each handshake, whether or not the client names the server."""
        connection.context = self._loaded.context

    def _tell(self) -> None:
        """Say once of each certificate that something is the matter with it."""
        certificate, now = self._loaded.certificate, self._clock.now()
        if certificate is None:
            said = "certificate_odd"
        elif now < certificate.begins:
            said = "certificate_not_valid_yet"
        elif now >= certificate.ends:
            said = "certificate_expired"
        elif now >= certificate.ends - SOON:
            said = "certificate_expires_soon"
        else:
            said = ""
        if said not in {"", self._told}:
            _log.warning(said, **self._facts())
        self._told = said

    def _facts(self) -> dict[str, str]:
        facts = {"file": str(self._files.certificate)}
        if self._loaded.certificate is not None:
            facts["expires"] = self._loaded.certificate.ends.isoformat()
        return facts
