"""See TLS happen on a connection, and read the certificate of a peer that is not trusted."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from agent_conn.cli.probe.certificates import read_certificate
from agent_conn.cli.probe.findings import Tls

UNVERIFIED_SECONDS = 5.0
"""How long the second look at a refused peer's certificate may take."""


def make_context(ca_file: Path | None, *, insecure: bool) -> ssl.SSLContext:
    """A client's context: it trusts the system's authorities, or those of `ca_file` alone.

    Raises:
        OSError: the file cannot be read, or (`ssl.SSLError`) holds no certificate.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class TlsWatch:
    """Sees the handshakes of the connections that are made with `context` from now on.

    asyncio begins TLS by the first call of ``SSLObject.do_handshake``, when TCP is up, and
    the context lets its users name that class.
    """

    def __init__(
        self, context: ssl.SSLContext, *, began: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        self.agreed: Tls | None = None
        self.error: ssl.SSLError | None = None
        watch = self
        verifies = context.verify_mode is not ssl.CERT_NONE

        class Watched(ssl.SSLObject):
            _begun = False

            def do_handshake(self) -> None:
                if not self._begun:
                    self._begun = True
                    began()
                try:
                    super().do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError as error:
                    watch.error = error
                    raise
                ended()
                watch.agreed = _read(self, verified=True if verifies else None)

        context.sslobject_class = Watched


async def read_unverified(host: str, port: int, server_name: str, refusal: str) -> Tls | None:
    """The TLS of a peer whose certificate was refused, by a dial that checks nothing.

    Nothing is sent on it. None where it fails.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(UNVERIFIED_SECONDS):
            transport, _ = await loop.create_connection(
                asyncio.Protocol, host, port, ssl=context, server_hostname=server_name
            )
    except OSError:
        return None
    try:
        return _read(transport.get_extra_info("ssl_object"), verified=False, refusal=refusal)
    finally:
        transport.abort()


def _read(shaken: ssl.SSLObject, *, verified: bool | None, refusal: str | None = None) -> Tls:
    der = shaken.getpeercert(binary_form=True)
    cipher = shaken.cipher()
    return Tls(
        version=shaken.version(),
        cipher=None if cipher is None else cipher[0],
        certificate=None if der is None else read_certificate(der),
        verified=verified,
        refusal=refusal,
    )
