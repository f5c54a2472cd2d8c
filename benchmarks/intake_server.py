"""The servers that benchmarks/intake.py loads: the real API over a new SQLite state, or a bare FastAPI route.

Prints one JSON line with its port and key when it is ready to serve.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import sys
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from api import auth, clock
from api.app import create_app
from api.settings import ApiSettings
from benchmarks.rows import Rows
from store.engine import Store
from store.identity import CreateKey

OPEN_JOBS_MAXIMUM = 100_000_000
QUOTA_MILLI_GPU = 8_000
DATABASE = "terrace.db"


@dataclass(frozen=True)
class Ready:
    """How to reach a server."""

    port: int
    bearer: str

    def counted(self) -> float:
        """Return how many jobs the server says that it accepted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith("terrace_api_jobs_accepted_total")).split()[1])


def count_jobs(directory: Path) -> int:
    """Return how many job rows a state holds."""
    connection = sqlite3.connect(directory / DATABASE)
    try:
        return int(connection.execute("SELECT count(*) FROM job").fetchone()[0])
    finally:
        connection.close()


def bare_app() -> FastAPI:
    """Return an application with one route that keeps nothing."""
    app = FastAPI()

    @app.post("/bare", status_code=201)
    async def bare(sent: dict[str, Any]) -> dict[str, Any]:
        return {"state": "queued", "name": sent.get("name")}

    return app


def prepare(directory: Path) -> tuple[Store, str]:
    """Make a migrated state with one tenant, by the commands that the service uses; return its open store and a member's key."""
    now_ms = clock.now_ms()
    rows = Rows.begin(f"sqlite:///{directory / DATABASE}", tenants=1, milli_gpu_per_tenant=QUOTA_MILLI_GPU, now_ms=now_ms)
    secret = auth.new_secret()
    rows.store.run_blocking(CreateKey(secret.key_id, rows.tenants[0].user_id, "bench", secret.sha256, ("*",), None, None, now_ms))
    return rows.store, secret.bearer


def main() -> None:
    """Serve until SIGTERM."""
    kind, directory = sys.argv[1], Path(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0))
    bearer = "none"
    if kind == "bare":
        app = bare_app()
    else:
        store, bearer = prepare(directory)
        app = create_app(store, ApiSettings(directory, open_jobs_maximum=OPEN_JOBS_MAXIMUM))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
    print(json.dumps(asdict(Ready(listener.getsockname()[1], bearer))), flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
