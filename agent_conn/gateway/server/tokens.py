"""Bearer tokens: minting and checking LiveKit inference tokens (JWT, HS256)."""

from __future__ import annotations

import hmac
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from agent_conn.errors import ConfigurationError

ALGORITHM = "HS256"
LEEWAY_SECONDS = 60
"""How far the clocks of the two sides may differ, as in LiveKit's own verifier."""

REASONS: Mapping[str, str] = {
    "DecodeError": "it is not a JWT",
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidAlgorithmError": "it must be signed by HS256",
    "InvalidIssuerError": "it was issued for another API key",
    "InvalidSignatureError": "it was signed with another API secret",
    "MissingRequiredClaimError": "it lacks the issuer or the expiry",
}
"""What PyJWT's errors mean, by their names."""


class InvalidToken(Exception):
    """A token was refused; the text says why and holds nothing of the token."""


class WrongToken(InvalidToken):
    """A token that somebody may have guessed: it is another, or signed with another secret."""


def mint_token(api_key: str, api_secret: str, *, ttl: float = 600.0) -> str:
    """Return an inference token that is valid for `ttl` seconds from now.

    Raises:
        ConfigurationError: `api_key` or `api_secret` is empty.
        ImportError: PyJWT is not installed.
    """
    if not api_key or not api_secret:
        raise ConfigurationError("api_key and api_secret must not be empty")
    now = time.time()
    claims = {
        "iss": api_key,
        "sub": "agent",
        "nbf": int(now),
        "exp": int(now + ttl),
        "inference": {"perform": True},
    }
    with _any_secret_length():
        token: str = _jwt().encode(claims, api_secret, algorithm=ALGORITHM)
    return token


def verify_token(token: str, api_key: str, api_secret: str) -> None:
    """Check an inference token: signature, issuer, times and the inference grant.

    Raises:
        InvalidToken: the token is refused.
        ImportError: PyJWT is not installed.
    """
    jwt = _jwt()
    if not token.isascii():
        # PyJWT fails on what cannot be encoded, such as bytes of a header that are no UTF-8.
        raise InvalidToken("token refused: it must be ASCII")
    try:
        with _any_secret_length():
            claims = jwt.decode(
                token,
                api_secret,
                algorithms=[ALGORITHM],
                issuer=api_key,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "exp"]},
            )
    except jwt.InvalidTokenError as refused:
        wrong = WrongToken if isinstance(refused, jwt.InvalidSignatureError) else InvalidToken
        # PyJWT's texts may quote a claim.
        name = type(refused).__name__
        raise wrong(f"token refused: {REASONS.get(name, name)}") from None
    grants = claims.get("inference")
    if not isinstance(grants, dict) or grants.get("perform") is not True:
        raise InvalidToken("token refused: it lacks the inference grant")


@contextmanager
def _any_secret_length() -> Iterator[None]:
    # The secret is its issuer's to choose; PyJWT warns of one under 32 bytes at every use.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The HMAC key")
        yield


class BearerCheck:
    """Decides whether a request's Authorization header opens the gateway.

    With `token` only that token opens it, with `api_key` and `api_secret` any valid inference
    token of theirs. With neither, everything opens it.

    Raises:
        ConfigurationError: both ways are given, or only half of the second.
        ImportError: PyJWT is needed and not installed.
    """

    def __init__(
        self, token: str | None = None, api_key: str | None = None, api_secret: str | None = None
    ) -> None:
        if (api_key is None) is not (api_secret is None):
            raise ConfigurationError("api_key and api_secret must be given together")
        if token is not None and api_key is not None:
            raise ConfigurationError("give either token, or api_key and api_secret; got both")
        if api_key is not None:
            _jwt()
        self._token = token
        self._api_key = api_key
        self._api_secret = api_secret

    @property
    def needed(self) -> bool:
        """Whether a request needs a token."""
        return self._token is not None or self._api_key is not None

    def check(self, authorization: str | None) -> None:
        """Check the header's value, None where there is no header.

        Raises:
            InvalidToken: the request is to be refused.
        """
        if not self.needed:
            return
        scheme, _, credential = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise InvalidToken("no bearer token")
        if self._token is not None:
            given, expected = credential.strip(), self._token
            if not hmac.compare_digest(_bytes(given), _bytes(expected)):
                raise WrongToken("token refused: it is not the one that opens this gateway")
        elif self._api_key is not None and self._api_secret is not None:
            verify_token(credential.strip(), self._api_key, self._api_secret)


def _jwt() -> ModuleType:
    try:
        return import_module("jwt")
    except ImportError:
        raise ImportError(
            "inference tokens need PyJWT: pip install 'agent-conn[cli]'", name="jwt"
        ) from None


def _bytes(text: str) -> bytes:
    # aiohttp decodes header bytes that are no UTF-8 into surrogates.
    return text.encode("utf-8", "surrogateescape")
