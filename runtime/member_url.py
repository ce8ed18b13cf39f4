"""The URL of a member that is a server."""

from __future__ import annotations

from urllib.parse import urlsplit


def check_url(url: str) -> None:
    """Refuses what is no place of a server, and secrets: a manifest is for everybody to read.

    Raises:
        ValueError: it is not a URL that may stand in a manifest.
    """
    parts = urlsplit(url)
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or any(not "!" <= character <= "~" for character in url)
        or "?" in url
        or "#" in url
    ):
        raise ValueError(f"{url!r} is not the http(s) URL of a server")
    if "@" in parts.netloc:
        raise ValueError("a URL in a manifest must not have a user name or a password")
    if parts.port == 0:
        raise ValueError(f"{url!r} has the port 0")
