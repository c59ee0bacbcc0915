"""The credentials of the command line's gateway, and their lines for a shell."""

from __future__ import annotations

from dataclasses import dataclass, field

DEVELOPER_KEY = "agent-conn"
DEVELOPER_SECRET = "agent-conn-developer-secret-of-no-value"  # noqa: S105  (published)
"""In every copy of this package, and so good for a gateway that only this machine reaches."""

TOKEN_VARIABLE = "AGENT_CONN_TOKEN"  # noqa: S105  (a name, no secret)
KEY_VARIABLE = "AGENT_CONN_API_KEY"
SECRET_VARIABLE = "AGENT_CONN_API_SECRET"  # noqa: S105  (a name, no secret)
INSPECTOR_VARIABLE = "AGENT_CONN_INSPECTOR_TOKEN"


SHORTEST_SECRET = 16
"""Characters of a secret that opens a gateway to other machines."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token, or a key with its secret. Without any of them, the published pair is in force.

    Raises:
        ValueError: both ways are given, or half of the second, or a token that no header can carry.
    """

    token: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    api_secret: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.api_key is None) is not (self.api_secret is None):
            raise ValueError("--api-key and --api-secret need each other: give both")
        if self.token is not None and self.api_key is not None:
            raise ValueError("give either --token, or --api-key and --api-secret; got both")
        if self.api_key == "" or self.api_secret == "":
            raise ValueError("--api-key and --api-secret must not be empty")
        if self.token is not None and not _fits_a_header(self.token):
            raise ValueError("--token must be printable ASCII without blanks")

    @property
    def given(self) -> bool:
        """Whether they are the user's own."""
        return self.token is not None or self.api_key is not None

    @property
    def published(self) -> bool:
        """Whether what opens the gateway is the published developer's pair."""
        return self.token is None and self.in_force.api_secret == DEVELOPER_SECRET

    def check_for_other_machines(self) -> None:
        """Check that they may open a gateway which other machines reach.

        Raises:
            ValueError: they are the published pair, or too short.
        """
        if self.published:
            raise ValueError("give --token, or --api-key and --api-secret, that only you know")
        name = "--api-secret" if self.token is None else "--token"
        check_length(name, self.api_secret if self.token is None else self.token)

    @property
    def in_force(self) -> Credentials:
        """What opens the gateway."""
        return self if self.given else Credentials(None, DEVELOPER_KEY, DEVELOPER_SECRET)

    def exports(self) -> dict[str, str]:
        """Return what a client's environment needs, as shell words.

        What the user gave is not repeated: its variable is named.
        """
        if self.token is not None:
            return {"LIVEKIT_INFERENCE_TOKEN": _from_variable(TOKEN_VARIABLE, "--token")}
        if self.api_key is not None:
            return {
                "LIVEKIT_INFERENCE_API_KEY": _from_variable(KEY_VARIABLE, "--api-key"),
                "LIVEKIT_INFERENCE_API_SECRET": _from_variable(SECRET_VARIABLE, "--api-secret"),
            }
        return {
            "LIVEKIT_INFERENCE_API_KEY": DEVELOPER_KEY,
            "LIVEKIT_INFERENCE_API_SECRET": DEVELOPER_SECRET,
        }


def check_length(name: str, secret: str | None) -> None:
    """Check that a secret which other machines may guess is long enough.

    Raises:
        ValueError: it is not.
    """
    if secret is not None and len(secret) < SHORTEST_SECRET:
        raise ValueError(
            f"{name} must have at least {SHORTEST_SECRET} characters "
            f"where other machines can reach the gateway, got {len(secret)}"
        )


def _from_variable(name: str, option: str) -> str:
    # A shell that lacks the variable says so, instead of exporting an empty credential.
    return f'"${{{name}:?set it to what {option} was}}"'


def _fits_a_header(token: str) -> bool:
    return token.isascii() and token.isprintable() and token != "" and " " not in token
