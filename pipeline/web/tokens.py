"""Tokens: what one may do, how its secret is made and compared, and the collector's view of all of them."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Scope = Literal["ingest", "read"]

_SECRET_BYTES = 32
_TOKEN = re.compile(r"rmt_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Token:
    """
    A token as stored, without its secret.

    `source_prefix` is of ingest tokens; `account_id` of read tokens, None: every account. Times are aware.
    """

    token_id: str
    secret_digest: bytes
    scope: Scope
    source_prefix: str | None
    account_id: str | None
    expires_at: datetime
    revoked_at: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Whether it may still be used."""
        return now < self.expires_at and (self.revoked_at is None or now < self.revoked_at)

    def covers(self, source: str) -> bool:
        """
        Whether events of a source may be sent with it.

        A prefix that ends in a letter or digit ends a word: rack-1 covers rack-1 and rack-1/vm-2, not rack-10.
        """
        prefix = self.source_prefix
        if prefix is None or not source.startswith(prefix):
            return False
        rest = source[len(prefix) :]
        return not rest or not prefix[-1].isalnum() or not rest[0].isalnum()


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made; `text` is what its holder sends and is shown once."""

    token_id: str
    secret_digest: bytes
    text: str


def make_token() -> NewToken:
    """Make a token from 256 random bits."""
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(_SECRET_BYTES)
    return NewToken(token_id, _digest(secret), f"rmt_{token_id}_{secret}")


class TokenBook:
    """Every token by its id, as of one moment; looking one up asks no database, whoever guesses."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens: Mapping[str, Token] = {token.token_id: token for token in tokens}

    def find(self, text: str, now: datetime) -> Token | None:
        """Give the valid token this text is the secret of; None where there is none."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            return None
        token = self._tokens.get(match[1])
        expected = token.secret_digest if token is not None else bytes(_SECRET_BYTES)
        # Compared in constant time, and also where there is no such token.
        is_right = hmac.compare_digest(_digest(match[2]), expected)
        return token if token is not None and is_right and token.is_valid(now) else None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
