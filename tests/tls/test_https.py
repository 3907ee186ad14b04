"""HTTPS, WSS and event streams over TLS; renewed certificates; and what is not TLS."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
import pytest
from structlog.testing import capture_logs

from server.auth.logins import SECURE_COOKIE
from server.config import AuthSettings, TokenSettings
from tests.channel.clients import TRANSPORTS, connect
from tests.tls.conftest import Papers, Secure, trusting

ADA = "ada-has-a-long-token"
AUTH = AuthSettings(tokens=(TokenSettings(user="ada", token=ADA),))
PATIENCE = 60.0

_ROOT = Path(__file__).parents[2]


async def shown(port: int, **options: Any) -> tuple[str, ...]:
    """The names in the certificate that a new connection is shown."""
    options.setdefault("server_hostname", "127.0.0.1")
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(check_hostname=False), **options)
    found = writer.get_extra_info("peercert")
    writer.close()
    await writer.wait_closed()
    return tuple(name for _, name in found["subjectAltName"])


async def run(*command: str, **environment: str) -> tuple[int, str, str]:
    """A command; its exit code and what it wrote."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, "PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.feature("S37", "T01")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_every_transport_works_over_tls(secure: Secure, transport: str) -> None:
    server = await secure()
    assert server.url == f"https://127.0.0.1:{server.port}"
    session = await server.create_session()
    async with connect(server, session, transport) as client:
        await client.say("hello")
        await client.until("task_completed")
        # More than a socket holds, and than OpenSSL puts into one record.
        await client.say("echo " + "x" * 200_000)
        await client.until("task_completed")


@pytest.mark.feature("S37", "S09")
@pytest.mark.parametrize("transport", ["ws", "sse"])
async def test_the_python_client_trusts_whom_it_is_told_to(secure: Secure, papers: Papers, transport: str) -> None:
    server = await secure(auth=AUTH)
    program = (
        "import asyncio, sys\n"
        "from protocol.client import connect\n"
        "async def main():\n"
        "    async with connect(sys.argv[1], token=sys.argv[2], transport=sys.argv[3]) as session:\n"
        "        await session.say('hello')\n"
        "        async for event in session:\n"
        "            if event.event_type == 'task_completed': return print('answered')\n"
        "asyncio.run(main())\n"
    )
    command = (sys.executable, "-c", program, server.url, ADA, transport)
    code, out, err = await run(*command, SSL_CERT_FILE=str(papers.authority))
    assert (code, out) == (0, "answered\n"), err
    code, out, err = await run(*command)
    assert (code != 0, out) == (True, "")
    assert "certificate" in err.lower()


@pytest.mark.feature("S37")
async def test_curl_reads_what_it_may(secure: Secure, papers: Papers) -> None:
    server = await secure(auth=AUTH)
    trust = ("--silent", "--show-error", "--max-time", "30", "--cacert", str(papers.authority))
    code, out, _ = await run("curl", *trust, f"{server.url}/health")
    assert (code, msgspec.json.decode(out)["service"]) == (0, "parley")
    code, out, _ = await run("curl", *trust, f"{server.url}/sessions")
    assert (code, msgspec.json.decode(out)["code"]) == (0, "unauthorized")
    code, out, _ = await run(
        "curl", *trust, "-H", f"Authorization: Bearer {ADA}", f"https://localhost:{server.port}/sessions"
    )
    assert (code, msgspec.json.decode(out)["total"]) == (0, 0)
    # Nobody who does not know the authority is fooled.
    assert (await run("curl", "--silent", f"{server.url}/health"))[0] == 60


@pytest.mark.feature("S37")
async def test_whoever_speaks_in_the_clear_gets_nothing_and_disturbs_nobody(secure: Secure) -> None:
    server = await secure(auth=AUTH)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {ADA}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    # At most an alert of TLS (RFC 8446, section 6): no HTTP.
    assert b"HTTP/" not in answer
    writer.close()
    async with server.client.get("/health") as response:
        assert response.status == 200


async def test_older_versions_are_refused(secure: Secure, papers: Papers) -> None:
    server = await secure(tls=msgspec.structs.replace(papers.settings, minimum_version="1.3"))
    old = trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=old)
    async with server.client.get("/health") as response:
        assert response.status == 200


@pytest.mark.feature("S37")
async def test_a_renewed_certificate_is_taken_up_and_nobody_is_cut_off(secure: Secure, papers: Papers) -> None:
    server = await secure()
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        await client.until("sync")
        assert "new.example.org" not in await shown(server.port)
        papers.issue("127.0.0.1", "localhost", "new.example.org")
        with capture_logs() as logged:
            await server.clock.advance(59)
            assert "new.example.org" not in await shown(server.port)
            await server.clock.advance(1)
        assert [line["event"] for line in logged] == ["certificate_renewed"]
        assert "new.example.org" in await shown(server.port)
        # A client that does not name the server gets it as well.
        assert "new.example.org" in await shown(server.port, server_hostname="")
        await client.say("hello")
        await client.until("task_completed")
        await server.clock.advance(600)
        assert len(logged) == 1


async def test_half_a_renewal_changes_nothing_and_the_other_half_completes_it(secure: Secure, papers: Papers) -> None:
    server = await secure()
    leaf = papers.issue("127.0.0.1", "localhost", "new.example.org", key=False)
    with capture_logs() as logged:
        await server.clock.advance(300)
        assert "new.example.org" not in await shown(server.port)
        # It is told once, not each minute.
        assert [line["event"] for line in logged] == ["certificate_not_renewed"]
        assert "does not fit" in logged[0]["reason"]
        papers.certificate.unlink()
        await server.clock.advance(60)
        assert "new.example.org" not in await shown(server.port)
        papers.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(papers.key)
        await server.clock.advance(60)
    assert "new.example.org" in await shown(server.port)
    assert [line["event"] for line in logged][-1] == "certificate_renewed"


@pytest.mark.feature("S37", "R01")
async def test_cookies_and_origins_follow(secure: Secure, papers: Papers) -> None:
    server = await secure(tls=msgspec.structs.replace(papers.settings, hsts_max_age=86_400), auth=AUTH)
    bearer = {"Authorization": f"Bearer {ADA}"}
    async with server.client.post("/auth/login", headers=bearer) as response:
        assert response.headers["Strict-Transport-Security"] == "max-age=86400"
        (cookie,) = response.cookies.values()
        assert (cookie.key, cookie["secure"], cookie["httponly"]) == (SECURE_COOKIE, True, True)
    async with aiohttp.ClientSession(
        server.url, connector=aiohttp.TCPConnector(ssl=trusting()), cookie_jar=aiohttp.DummyCookieJar()
    ) as page:
        own = {"Cookie": f"{SECURE_COOKIE}={cookie.value}", "Origin": server.url}
        async with page.post("/sessions", json={}, headers=own) as response:
            assert response.status == 201
        # One that came in the clear, by somebody who stands between.
        for headers in (
            {**own, "Origin": server.url.replace("https", "http")},
            {**bearer, "Origin": server.url.replace("https", "http")},
        ):
            async with page.post("/sessions", json={}, headers=headers) as response:
                assert (response.status, (await response.json())["code"]) == (403, "origin_refused")
        async with page.get("/sessions", headers={"Cookie": f"parley={cookie.value}"}) as response:
            assert response.status == 401


async def test_without_a_wish_browsers_are_not_bound_to_https(secure: Secure) -> None:
    server = await secure()
    async with server.client.get("/health") as response:
        assert "Strict-Transport-Security" not in response.headers


# --- the command


def serve(papers: Papers, database_url: str) -> tuple[str, ...]:
    """The command that serves with the papers."""
    file = papers.certificate.with_name("parley.toml")
    file.write_text(
        '[tls]\ncertificate_file = "fullchain.pem"\nkey_file = "privkey.pem"\n'
        f'[database]\nurl = "{database_url}"\n[agents]\nentry_points = false\n'
    )
    program = "import sys; from server.cli import main; sys.exit(main())"
    return sys.executable, "-c", program, "serve", "--port", "0", "--config", str(file)


@pytest.mark.feature("S37")
async def test_the_command_announces_https_and_sighup_has_certificates_looked_at(
    papers: Papers, database_url: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *serve(papers, database_url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            found = re.search(rb"listens on https://127\.0\.0\.1:(\d+)\n", await process.stdout.readline())
            assert found is not None
            port = int(found[1])
            assert "new.example.org" not in await shown(port)
            papers.issue("127.0.0.1", "new.example.org")
            process.send_signal(signal.SIGHUP)
            while "new.example.org" not in await shown(port):
                ...
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.feature("S37")
async def test_the_command_does_not_start_with_a_key_that_does_not_fit(papers: Papers, database_url: str) -> None:
    papers.issue(key=False)
    code, out, err = await run(*serve(papers, database_url))
    assert (code, out) == (2, "")
    assert re.search(
        r"tls\.key_file: the key in \S+privkey\.pem does not fit the certificate \(from \S+, line 3\)", err
    )


@pytest.mark.feature("S37", "T05")
@pytest.mark.parametrize("leaf", ["ws", "events"])
async def test_a_client_that_does_not_read_is_bounded_over_tls_too_and_catches_up(secure: Secure, leaf: str) -> None:
    server = await secure()
    session = await server.create_session()
    hub = server.services.hub
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=trusting(check_hostname=False), server_hostname="127.0.0.1", limit=4_096
    )
    upgrade = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: parley.v1.json\r\n"
    )
    head = (
        f"GET /sessions/{session}/{leaf}?after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n{upgrade if leaf == 'ws' else ''}\r\n"
    )
    writer.write(head.encode())
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b'"sync"')
        texts = [f"echo {number:02} " + "x" * 200_000 for number in range(40)]
        buffered = 0
        for text in texts:
            status, answer = await server.command(session, type="user_message", content=text)
            assert status == 200, answer
            buffered = max(buffered, hub.stats().buffered_bytes)
        (listener,) = hub.listeners_of(UUID(session))
        # 8 MB were said, and as much answered; what waits for the socket is a page at most.
        assert buffered < 4 << 20
        assert not listener.closed()
        for number in range(40):
            await _past(reader, f"echo {number:02} x".encode())
    writer.transport.abort()


async def _past(reader: asyncio.StreamReader, mark: bytes) -> None:
    """Read on until the mark has come."""
    seen = b""
    while mark not in seen:
        piece = await reader.read(65_536)
        assert piece, "the stream ended"
        seen = seen[-len(mark) :] + piece
