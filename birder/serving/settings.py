"""What a server allows, and to whom. Sizes are in bytes, times in seconds."""

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from birder.errors import refuse

LEAST_TOKEN = 16
"""Characters of a token: what is shorter could be guessed."""

_BODIES_AT_ONCE = 8
_LEAST_HELD = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is taken."""

    max_body_mib: int = 64
    """Size of a request, in MiB."""
    max_files: int = 200
    """Pictures in a request."""
    queue: int = 256
    """Pictures that may be under way at a time; more are turned away with 429."""
    request_seconds: float = 60.0
    """For a request to arrive, and as long again for its answer."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: One line for each.
        """
        counts = ("max_body_mib", "max_files", "queue")
        wrong = [(name, f"must be 1 or more, not {value}") for name in counts if (value := getattr(self, name)) < 1]
        if not 0 < self.request_seconds < 1e6:
            words = "must be more than 0 and less than a million seconds"
            wrong.append(("request_seconds", f"{words}, not {self.request_seconds}"))
        refuse(wrong)

    @property
    def max_body(self) -> int:
        """Bytes of one request."""
        return self.max_body_mib << 20

    @property
    def held(self) -> int:
        """Bytes that the bodies of all requests may take together."""
        return max(_LEAST_HELD, _BODIES_AT_ONCE * self.max_body)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a server is, and who may ask it."""

    host: str = "127.0.0.1"
    """Address to listen at; a name or an IP address."""
    port: int = 8000
    """0 is any that is free."""
    token: str = field(default="", repr=False)
    """What a request has to bring, as ``Authorization: Bearer TOKEN``; empty if it need not bring any."""
    origins: tuple[str, ...] = ()
    """Other sites whose pages may ask this server, such as ``https://birds.example.org``; also the names by which
    a proxy before it may call it."""
    limits: Limits = Limits()
    """How much is taken."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: One line for each.
        """
        refuse(self._mistakes())

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names that a request may ask for, small; None is any.

        On loopback, a page of another site could be given a name that leads here, and would then be of this site.
        """
        if not is_loopback(self.host):
            return None
        named = {(urlsplit(origin).hostname or "") for origin in self.origins}
        return frozenset({"localhost", "127.0.0.1", "::1", self.host.lower(), *named})

    def _mistakes(self) -> list[tuple[str, str]]:
        wrong = []
        if not 0 <= self.port <= 65535:
            wrong.append(("port", f"must be from 0 to 65535, not {self.port}"))
        if self.token and (len(self.token) < LEAST_TOKEN or not self.token.isascii() or not self.token.isprintable()):
            wrong.append(("token", f"must be {LEAST_TOKEN} or more printable ASCII characters"))
        for origin in self.origins:
            if not _is_origin(origin):
                wrong.append(
                    (
                        "origin",
                        f"must be like https://birds.example.org, small and without a path, not {origin!r}",
                    )
                )
        return wrong


def _is_origin(text: str) -> bool:
    """Whether it is what a browser calls a site: scheme and small name, and nothing else."""
    try:
        parts = urlsplit(text)
        named = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
    return named and text == f"{parts.scheme}://{parts.netloc}".lower()


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is of this computer alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
