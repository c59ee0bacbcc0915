"""Real certificates that a client must refuse, and what the probe makes of each."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from helpers.probing import WITH_TOKEN, Probe

from agent_conn.cli.probe.certificates import read_certificate

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
LOOPBACK = x509.IPAddress(IPv4Address("127.0.0.1"))


def self_signed(
    folder: Path, name: x509.GeneralName, until: datetime
) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for ``name`` in a file, and a server's context that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a\x1b[31m gateway")])
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), 4711, until - 9 * DAY, until
    )
    names = x509.SubjectAlternativeName([name])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    file = folder / "server.pem"
    file.write_bytes(
        certificate.public_bytes(encoding)
        + key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return file, context


@asynccontextmanager
async def silent_server(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A TLS server that says nothing, its port, and what it was sent."""
    received: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A probe that has seen enough hangs up with TLS's session tickets unread: a reset.
        with suppress(ConnectionResetError):
            received.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1], received


@pytest.mark.parametrize(
    ("trusted", "name", "until", "advice"),
    [
        (False, LOOPBACK, NOW + 1.5 * DAY, "self-signed: pass it with --ca"),
        (True, LOOPBACK, NOW - 1.5 * DAY, "The certificate expired 1 day ago"),
        (True, LOOPBACK, NOW + 99.5 * DAY, "not valid yet"),
        (True, x509.DNSName("other.example"), NOW + 1.5 * DAY, "It is good for other.example."),
    ],
    ids=["self-signed", "expired", "not yet valid", "for another host"],
)
async def test_a_certificate_that_is_refused_is_shown_with_the_reason(
    probe: Probe,
    tmp_path: Path,
    trusted: bool,
    name: x509.GeneralName,
    until: datetime,
    advice: str,
) -> None:
    file, context = self_signed(tmp_path, name, until)
    async with silent_server(context) as (port, received):
        options = ("--ca", str(file)) if trusted else ()
        ended, page = await probe.both(f"wss://127.0.0.1:{port}/v1", *options, *WITH_TOKEN)
    assert ended.status == 2
    assert ended.failure["step"] == "tls"
    assert advice in ended.advice
    assert ended.found["tls"]["verified"] is False
    assert ended.found["tls"]["certificate"]["self_signed"] is True
    assert ended.found["tls"]["certificate"]["days_left"] == (until - NOW).days
    assert r"\x1b[31m gateway" in page
    assert not any(received)


def test_a_certificate_that_cannot_be_parsed_is_none() -> None:
    assert read_certificate(b"no certificate") is None
