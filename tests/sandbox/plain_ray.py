"""Ray's job API without Ray: one process, the standard library, up in a tenth of a second.

Stands in for `ray start --head` in a job environment of its own (plain_environment.py), so that the sandbox, the runner and the agent are
the real ones and only the cluster is not. It does what parts of Terrace rely on and what hurt them: it wants the token, answers 500 to a
second submission of one id, says yes to every stop, and knows the exit code a moment after the process is gone. Whether real Ray still does
so is what the tests marked `ray` find out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STATUS_BY_CODE = {0: "SUCCEEDED"}


class Head:
    """The one job of this cluster."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.job: dict[str, Any] | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def submit(self, submission_id: str, entrypoint: str) -> bool:
        """Run a shell line; False when there is a job already."""
        with self.lock:
            if self.job is not None:
                return False
            self.job = {"submission_id": submission_id, "status": "RUNNING", "driver_exit_code": None, "message": ""}
            self.process = subprocess.Popen(["/bin/sh", "-c", entrypoint], stdin=subprocess.DEVNULL, start_new_session=True)
        threading.Thread(target=self.wait, daemon=True).start()
        return True

    def wait(self) -> None:
        """Learn how the job ended."""
        assert self.process is not None
        code = self.process.wait()
        with self.lock:
            assert self.job is not None
            is_stopped = self.job["message"] == "stopping"
            self.job["driver_exit_code"] = code
            self.job["status"] = "STOPPED" if is_stopped else STATUS_BY_CODE.get(code, "FAILED")

    def stop(self) -> None:
        """Send SIGTERM."""
        with self.lock:
            if self.job is not None and self.process is not None and self.process.poll() is None:
                self.job["message"] = "stopping"
                os.killpg(self.process.pid, signal.SIGTERM)


class Dashboard(BaseHTTPRequestHandler):
    """What the runner asks."""

    head = Head()

    def do_GET(self) -> None:
        """Answer the version and the job."""
        if not self.has_token():
            return
        if self.path == "/api/version":
            self.answer(200, {"ray_version": "2.60.0"})
        elif self.head.job is not None and self.path == f"/api/jobs/{self.head.job['submission_id']}":
            self.answer(200, self.head.job)
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        """Submit or stop."""
        if not self.has_token():
            return
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.path.endswith("/stop"):
            self.head.stop()
            self.answer(200, {"stopped": True})
        else:
            self.answer(200 if self.head.submit(body["submission_id"], body["entrypoint"]) else 500, {})

    def has_token(self) -> bool:
        """Refuse who does not know the lease's token."""
        if self.headers.get("Authorization") == f"Bearer {os.environ['RAY_AUTH_TOKEN']}":
            return True
        self.answer(401 if self.headers.get("Authorization") is None else 403, {})
        return False

    def answer(self, status: int, body: dict[str, Any]) -> None:
        """Send JSON."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Serve on the dashboard's port for ever, or fail as `sin` asks, a file beside this one or a variable.

    "dies"; "never up"; "touches": never up, after it did away with what would tell that the entrypoint ran.
    """
    options = argparse.ArgumentParser()
    options.add_argument("--dashboard-port", type=int)
    port = options.parse_known_args()[0].dashboard_port
    file = Path(__file__).with_name("sin")
    sin = file.read_text() if file.exists() else os.environ.get("RAY_SIN")
    if sin == "dies":
        raise SystemExit("Ray's last words")
    if sin == "touches":
        Path(os.environ["TERRACE_NOTICE_FILE"]).with_name("entrypoint.pid").unlink()
    if sin in ("never up", "touches"):
        threading.Event().wait()
    ThreadingHTTPServer(("127.0.0.1", port), Dashboard).serve_forever()


if __name__ == "__main__":
    main()
