"""Which inspector a gateway of the command line has."""

from __future__ import annotations

from agent_conn._identity import is_printable_ascii
from agent_conn._options import is_loopback
from agent_conn.cli.gateway.credentials import check_length
from agent_conn.gateway import Inspector


def inspector_for(
    host: str, *, inspect: bool | None, allow_remote: bool, token: str | None
) -> Inspector | None:
    """Return the inspector of a gateway on `host`; None for none.

    Without `inspect` there is one where only this machine can see it, or with `allow_remote`.

    Raises:
        ValueError: the options do not go together, or with `host`.
    """
    if token is not None and not (token.strip() and is_printable_ascii(token)):
        raise ValueError("--inspector-token must be printable ASCII and not blank")
    if inspect is None:
        inspect = allow_remote or token is not None or is_loopback(host)
    if not inspect:
        if allow_remote or token is not None:
            raise ValueError("--allow-remote and --inspector-token need --inspect")
        return None
    if not is_loopback(host):
        if not allow_remote:
            raise ValueError(f"--inspect on --host {host!r} needs --allow-remote")
        if token is None:
            raise ValueError("--allow-remote needs --inspector-token")
        check_length("--inspector-token", token)
    return Inspector(token=token, allow_remote=allow_remote)
