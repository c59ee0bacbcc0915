"""What no output may show, and what a peer said that is withheld for it."""

from __future__ import annotations

from dataclasses import fields, replace

from yarl import URL

from agent_conn import _secrets
from agent_conn.errors import Quota


class Secrets:
    """The credentials of one probe."""

    def __init__(self, *texts: str | None) -> None:
        self._texts: set[str] = set()
        self.add(*texts)

    def add(self, *texts: str | None) -> None:
        """Hide `texts` too."""
        self._texts.update(text for text in texts if text)

    def add_query(self, url: URL) -> None:
        """Hide the query of `url`, as it is sent and as it is meant."""
        self.add(url.raw_query_string, url.query_string, *url.query.values())

    def hide(self, text: str) -> str:
        """`text`, or that it is withheld since it repeats one of them."""
        repeats = _secrets.Secrets(lambda: self._texts).repeated_in(text)
        return "[withheld: it repeats a secret that was sent]" if repeats else text

    def hide_in_quota(self, quota: Quota) -> Quota:
        """`quota` without any of them in its texts and limits."""
        texts = {
            item.name: self.hide(value)
            for item in fields(quota)
            if isinstance(value := getattr(quota, item.name), str)
        }
        limits = {self.hide(name): self.hide(value) for name, value in quota.limits.items()}
        return replace(quota, limits=limits, **texts)
