"""What a server is told besides its model: plain numbers, each with a bound that holds by itself."""

from typing import NamedTuple

DAY = 86400


class Settings(NamedTuple):
    """How much a server takes on.

    Sizes are in bytes, times in seconds.
    """

    name: str = "hippodrome"
    """What clients call the model."""
    max_batch: int = 32
    """Answers that are written at once."""
    queue: int = 64
    """Answers that wait beyond those; more are sent away with 429."""
    context: int = 32768
    """Tokens of a prompt and its answer together."""
    default_tokens: int = 1024
    """New tokens of a chat answer where the request names no number."""
    deadline: float = 600.0
    """For a whole answer, from its arrival on."""
    cache_bytes: int = 1 << 30
    """States kept for prompts that begin alike; 0 keeps none."""
    body_bytes: int = 1 << 20
    """Of a request."""
    body_seconds: float = 30.0
    """For the whole of a request to arrive."""
    grace: float = 30.0
    """For open answers to come to their end when the server is told to stop, a day at most."""
    threads: int | None = None
    """Of the model's kernels; None leaves the number as it is."""
    api_key: str | None = None
    """What clients must show; None for no key."""

    def check(self) -> None:
        """Raises ValueError where a number is out of its range, or a key that no client could show."""
        for name, least in (
            ("max_batch", 1),
            ("queue", 0),
            ("context", 2),
            ("default_tokens", 1),
            ("cache_bytes", 0),
            ("body_bytes", 1024),
            ("grace", 0),
            ("threads", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {least} or more; got {value}")
        if not self.grace <= DAY:
            raise ValueError(f"grace is {DAY} seconds or less; got {self.grace}")
        for name in ("deadline", "body_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is above 0 seconds; got {getattr(self, name)}")
        key = self.api_key
        if key is not None and not (len(key) >= 8 and key.isascii() and key.isprintable() and " " not in key):
            raise ValueError(
                "a key is 8 or more printable ASCII characters without spaces. Write such a one."
            )
