"""The answer to a HEAD has no body: the status alone says what the key may not do."""

from __future__ import annotations

import httpx
import pytest

from terrace.sdk.transport import api_error


@pytest.mark.parametrize(
    ("status", "content", "code"),
    [
        (401, b"", "unauthenticated"),
        (403, b"", "permission_missing"),
        (404, b"", "not_a_problem"),
        (403, b"<html>a proxy</html>", "not_a_problem"),
    ],
)
def test_refusal_is_named_by_its_status(status: int, content: bytes, code: str) -> None:
    error = api_error(httpx.Response(status, content=content, request=httpx.Request("HEAD", "http://terrace.test/v1/archives/x")))

    assert (error.code, error.status) == (code, status)
