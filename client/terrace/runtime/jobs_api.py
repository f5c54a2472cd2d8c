"""Ray's job API over HTTP, as far as one lease needs it: is it up, submit once, ask, stop.

Owns: the requests, the token header, and the surprises of Ray 2.60: a duplicate submission id answers 500, so we look before we submit and
look again after an error. Does not own: the cluster (head.py) or what the states mean for the lease (runner.py). Plain HTTP instead of
Ray's client class, because importing that costs a second of CPU just while the cluster starts.
"""

from __future__ import annotations

import http.client
import json
from typing import Any

REQUEST_SECONDS_MAX = 30.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024


class JobsApiError(Exception):
    """Ray did not answer as it should; the message says what it answered."""


class JobsApi:
    """The dashboard of one private cluster at 127.0.0.1."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def version(self) -> str | None:
        """Return Ray's version, None while the cluster does not answer yet."""
        try:
            status, answer = self._ask("GET", "/api/version")
        except JobsApiError:
            return None
        return str(answer.get("ray_version")) if status == http.client.OK else None

    def job(self, submission_id: str) -> dict[str, Any] | None:
        """Return what Ray knows about the job, None when it knows none of that name."""
        status, answer = self._ask("GET", f"/api/jobs/{submission_id}")
        if status == http.client.NOT_FOUND:
            return None
        if status != http.client.OK:
            raise JobsApiError(f"Ray answered {status} when asked for the job: {answer}")
        return answer

    def submit_once(self, submission_id: str, entrypoint: str) -> None:
        """Submit unless a job of that name exists; an existing one is success."""
        if self.job(submission_id) is not None:
            return
        status, answer = self._ask("POST", "/api/jobs/", {"entrypoint": entrypoint, "submission_id": submission_id})
        if status != http.client.OK and self.job(submission_id) is None:
            raise JobsApiError(f"Ray answered {status} to the submission: {answer}")

    def stop(self, submission_id: str) -> None:
        """Ask Ray to send SIGTERM to the entrypoint. Ray also says yes when nothing will happen: never rely on it."""
        self._ask("POST", f"/api/jobs/{submission_id}/stop")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_SECONDS_MAX)
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body), headers=self._headers)
            response = connection.getresponse()
            content = response.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise JobsApiError(f"Ray does not answer: {error}") from error
        finally:
            connection.close()
        try:
            answer = json.loads(content)
        except ValueError:
            answer = content.decode(errors="replace")[:1000]
        return response.status, answer if isinstance(answer, dict) else {"text": answer}
