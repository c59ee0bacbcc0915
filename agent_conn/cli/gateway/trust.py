"""The file by which a client trusts the gateway's throw-away certificate."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory


def trusted_authorities(client: ssl.SSLContext) -> str:
    """Return in PEM what `client` trusts, and after it what this machine trusts anyway.

    `SSL_CERT_FILE` takes the place of the machine's own, so that with the gateway's authority
    alone a client could reach no other host.
    """
    machine = ssl.create_default_context()
    for file in _machine_files():
        with suppress(OSError):
            machine.load_verify_locations(file)
    authorities = client.get_ca_certs(binary_form=True) + machine.get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, dict.fromkeys(authorities)))


def _machine_files() -> Iterator[Path]:
    # A default context follows SSL_CERT_FILE, which may name an earlier gateway's, and reads
    # what is in the folder on demand alone.
    paths = ssl.get_default_verify_paths()
    yield Path(paths.openssl_cafile)
    yield from Path(paths.openssl_capath).glob("*.[0-9]")


@contextmanager
def authorities_file(client: ssl.SSLContext, path: Path | None) -> Iterator[Path]:
    """Write what a client must trust to `path`, or to a file that is removed on leaving.

    Raises:
        OSError: it cannot be written.
    """
    authorities = trusted_authorities(client)
    if path is not None:
        path.write_text(authorities)
        yield path.absolute()
        return
    with TemporaryDirectory(prefix="agent-conn-") as folder:
        file = Path(folder, "ca.pem")
        file.write_text(authorities)
        yield file
