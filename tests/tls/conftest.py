"""Certificates of an authority of the test's own, and a server that shows them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from server.app import build, create_app
from server.clock import Clock
from server.config import Config, DatabaseSettings, ServerSettings
from server.run import listen, make_runner
from server.tls.certificates import Certificates
from server.tls.settings import TlsSettings
from tests.support.clock import ManualClock
from tests.support.server import FAST_AGENTS, RunningServer

AUTHORITY = trustme.CA()


class Papers:
    """A certificate and its key as files, to be replaced."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "fullchain.pem"
        self.key = folder / "privkey.pem"
        self.authority = folder / "authority.pem"
        AUTHORITY.cert_pem.write_to_path(self.authority)
        self.issue()

    def issue(
        self, *names: str, ends: datetime | None = None, begins: datetime | None = None, key: bool = True
    ) -> trustme.LeafCert:
        """Put another certificate there, and its key, if wanted."""
        leaf = AUTHORITY.issue_cert(*(names or ("127.0.0.1", "localhost")), not_after=ends, not_before=begins)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        if key:
            leaf.private_key_pem.write_to_path(self.key)
        return leaf

    @property
    def settings(self) -> TlsSettings:
        """What the configuration says of them."""
        return TlsSettings(certificate_file=str(self.certificate), key_file=str(self.key))


def trusting(**options: Any) -> ssl.SSLContext:
    """A client's context that trusts the authority."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    for name, value in options.items():
        setattr(context, name, value)
    return context


class SecureServer(RunningServer):
    """One that speaks HTTPS alone."""

    def __init__(self, certificates: Certificates, clock: ManualClock, address: str, *rest: Any) -> None:
        super().__init__(*rest)
        self.certificates = certificates
        #: That of the certificates.
        self.clock = clock
        self.url = address

    async def trust(self) -> None:
        """Let the client trust the authority."""
        await self.client.close()
        self.client = aiohttp.ClientSession(self.url, connector=aiohttp.TCPConnector(ssl=trusting()))

    async def stop(self) -> None:
        await super().stop()
        await self.certificates.stop()


Secure = Callable[..., Awaitable[SecureServer]]


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


@pytest.fixture
async def secure(database_url: str, papers: Papers) -> AsyncIterator[Secure]:
    """`await secure(tls=..., auth=...)`: a server with the certificate of `papers`."""
    async with AsyncExitStack() as stack:

        async def start(tls: TlsSettings | None = None, clock: Clock | None = None, **sections: Any) -> SecureServer:
            sections.setdefault("server", ServerSettings(port=0, shutdown_timeout=1.0))
            config = Config(
                tls=tls or papers.settings, database=DatabaseSettings(url=database_url), agents=FAST_AGENTS, **sections
            )
            services = await build(config, clock)
            runner = make_runner(create_app(services), config.server)
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            manual = ManualClock()
            certificates = Certificates(config, manual)
            stack.push_async_callback(certificates.stop)
            address = await listen(runner, config.server, certificates)
            port = int(address.rpartition(":")[2])
            server = SecureServer(certificates, manual, address, services, runner, port)
            stack.push_async_callback(server.stop)
            await server.trust()
            return server

        yield start
