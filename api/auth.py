"""Who sends a request: bearer keys, checked in constant time.

A key is `KEY_ID.SECRET`; only the SHA-256 of the secret is stored, which is enough for 256 random bits. Principals are remembered for a few
seconds (a named setting), so a revocation made by another replica is seen after that time; one made here is seen at once. Expiry is checked
at every request. Every failure gives the same answer, because which part was wrong is nobody's business; only who has the whole secret is
told that it has expired.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

from api import clock
from api.settings import ApiSettings
from domain import ids
from store.engine import Store
from store.errors import ForbiddenError, RefusalError
from store.identity import Principal, PrincipalByKey

SECRET_BYTES = 32
KEY_LENGTH_MAXIMUM = 256
_SCHEME = "bearer "


class UnauthenticatedError(RefusalError):
    """No key, or one that is unknown, wrong, expired or revoked, or whose user is disabled."""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A fresh secret, the text that is shown once, and the hash that is kept."""

    key_id: str
    bearer: str
    sha256: str


def new_secret() -> NewSecret:
    """Return a fresh key identifier with its secret."""
    key_id = clock.new_id("key")
    secret = secrets.token_urlsafe(SECRET_BYTES)
    return NewSecret(key_id, f"{key_id}.{secret}", digest(secret))


def digest(secret: str) -> str:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Authenticator:
    """Turns an Authorization header into a principal, asking the store at most once per key and `key_cache_seconds`."""

    def __init__(self, store: Store, settings: ApiSettings) -> None:
        self._store = store
        self._seconds = settings.key_cache_seconds
        self._maximum = settings.key_cache_maximum
        self._known: OrderedDict[str, tuple[float, Principal]] = OrderedDict()
        self._forgotten = 0  # how often something was forgotten: a read that began before may not be remembered

    async def authenticate(self, header: str | None) -> Principal:
        """Return the principal; UnauthenticatedError, or ForbiddenError when its tenant is suspended."""
        key_id, secret = _parse(header)
        principal = await self._principal(key_id)
        is_right = principal is not None and hmac.compare_digest(principal.secret_sha256, digest(secret))
        if principal is None or not is_right or principal.is_disabled:
            raise _refused()
        if principal.expires_at_ms is not None and principal.expires_at_ms <= clock.now_ms():
            raise UnauthenticatedError("key_expired", "the API key has expired", expired_at=clock.rfc3339(principal.expires_at_ms))
        if principal.is_suspended:
            raise ForbiddenError("tenant_suspended", f"tenant {principal.tenant!r} is suspended", tenant=principal.tenant)
        return principal

    def forget(self, key_id: str | None = None) -> None:
        """Forget a key, or all of them, so that the next request sees the rows as they are."""
        self._forgotten += 1
        if key_id is None:
            self._known.clear()
        else:
            self._known.pop(key_id, None)

    async def _principal(self, key_id: str) -> Principal | None:
        now = time.monotonic()
        known = self._known.get(key_id)
        if known is not None and now - known[0] < self._seconds:
            return known[1]
        forgotten = self._forgotten
        principal = await self._store.read(PrincipalByKey(key_id))
        if principal is None or self._forgotten != forgotten:
            self._known.pop(key_id, None)
            return principal
        self._known[key_id] = (now, principal)
        self._known.move_to_end(key_id)
        while len(self._known) > self._maximum:
            self._known.popitem(last=False)
        return principal


def _parse(header: str | None) -> tuple[str, str]:
    if header is None or not header[: len(_SCHEME)].lower() == _SCHEME or len(header) > KEY_LENGTH_MAXIMUM:
        raise _refused()
    key_id, dot, secret = header[len(_SCHEME) :].strip().partition(".")
    if not (dot and secret and ids.is_identifier(key_id)):
        raise _refused()
    return key_id, secret


def _refused() -> UnauthenticatedError:
    return UnauthenticatedError("unauthenticated", "send `Authorization: Bearer KEY` with a key that is known, current and not revoked")
