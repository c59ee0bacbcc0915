"""What a command line asks to probe: the URL, the credentials, the ids. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from yarl import URL

from agent_conn._identity import AgentIdentity
from agent_conn._options import check_url
from agent_conn.errors import ConfigurationError
from agent_conn.gateway import mint_token

URL_VARIABLE = "LIVEKIT_INFERENCE_URL"
TOKEN_VARIABLE = "LIVEKIT_INFERENCE_TOKEN"  # noqa: S105  (a name, no secret)
_PREFIXES = ("LIVEKIT_INFERENCE_", "LIVEKIT_")
_WITHOUT_VERSION = ("", "/stt", "/tts")
_SCHEMES = {"http": "ws", "https": "wss"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token, or the key and secret to mint one with, and where they came from."""

    source: str | None
    token: str | None = None
    api_key: str | None = None
    api_secret: str | None = None

    def mint(self) -> str:
        """A token: the given one, or a fresh one.

        Raises:
            ConfigurationError: there is nothing to make one of.
            ImportError: PyJWT is not installed.
        """
        if self.token is not None:
            return self.token
        return mint_token(self.api_key or "", self.api_secret or "")

    def __repr__(self) -> str:
        return f"<Credentials {self.source}>"


def websocket_url(text: str) -> URL:
    """The websocket to open for `text`.

    A base URL that ends in ``/v1`` means its ``/stt``. A missing ``/v1`` is put in where the
    path is empty, or is that of a service alone.

    Raises:
        ConfigurationError: it cannot be dialled.
    """
    url = check_url(text, "URL")
    if url.path.rstrip("/") in _WITHOUT_VERSION:
        url = url.with_path(f"/v1{url.path.rstrip('/')}", keep_query=True)
    if url.name == "v1" or (not url.name and url.parent.name == "v1"):
        base = url if url.name else url.parent
        url = (base / "stt").with_query(url.query or {"model": "auto"})
    return url.with_scheme(_SCHEMES.get(url.scheme, url.scheme)).with_fragment(None)


def shown(url: URL) -> str:
    """`url` without its query, which may hold a credential."""
    return f"{url.origin()}{url.raw_path}"


def find_credentials(
    *,
    token: str | None,
    api_key: str | None,
    api_secret: str | None,
    environment: Mapping[str, str],
) -> Credentials:
    """The credentials of the options, else of the environment, else none.

    Raises:
        ConfigurationError: a key stands without its secret, or beside a token.
    """
    if token and (api_key or api_secret):
        raise ConfigurationError("give either --token, or --api-key and --api-secret; got both")
    if token:
        return Credentials("--token", token=token)
    if not (api_key or api_secret) and (found := environment.get(TOKEN_VARIABLE)):
        return Credentials(TOKEN_VARIABLE, token=found)
    key_source, key = _find("--api-key", api_key, "API_KEY", environment)
    secret_source, secret = _find("--api-secret", api_secret, "API_SECRET", environment)
    if key and secret:
        return Credentials(f"{key_source}, {secret_source}", api_key=key, api_secret=secret)
    if not (key or secret):
        return Credentials(None)
    given, missing = (key_source, "secret") if key else (secret_source, "key")
    raise ConfigurationError(
        f"{given} is given without its {missing}: pass --api-{missing} or set "
        f"LIVEKIT_INFERENCE_API_{missing.upper()} or LIVEKIT_API_{missing.upper()}"
    )


def _find(
    option: str, value: str | None, suffix: str, environment: Mapping[str, str]
) -> tuple[str, str | None]:
    if value:
        return option, value
    for prefix in _PREFIXES:
        if found := environment.get(prefix + suffix):
            return prefix + suffix, found
    return option, None


def make_identity(job: str | None, room: str | None, agent: str | None) -> AgentIdentity:
    """The ids to send.

    Raises:
        ConfigurationError: one of them cannot be sent.
    """
    identity = AgentIdentity.best_effort(job_id=job, room_id=room, agent_id=agent)
    given = {"job_id": job, "room_id": room, "agent_id": agent}
    for name, reason in identity.omitted.items():
        if given.get(name) is not None:
            raise ConfigurationError(f"--{name.removesuffix('_id')} cannot be sent: {reason}")
    return identity
