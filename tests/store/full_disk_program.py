"""Fills the disk under a store on it, makes room again, and prints what became of the changes as JSON. Argument: a folder on a small disk.

Started by tests/store/test_full_disk.py in a mount namespace of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from store import migrate
from store.engine import Store
from store.errors import StoreBusyError
from tests.store.notes_writer import Note
from tests.support.statements import rows

BALLAST_BYTES = 1 << 20
NOTES_MAXIMUM = 100_000


def fill(store: Store) -> tuple[list[str], str]:
    """Write until the store refuses; return what was acknowledged and the code of the refusal."""
    told: list[str] = []
    for number in range(NOTES_MAXIMUM):
        try:
            told.append(store.run_blocking(Note(f"{number:06}" + "x" * 2_000)))
        except StoreBusyError as refused:
            return told, refused.code
    raise AssertionError("the disk is too large")


def main(folder: Path) -> dict[str, Any]:
    """Fill, look, make room, write again."""
    url = f"sqlite:///{folder / 'terrace.db'}"
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(BALLAST_BYTES))
    migrate.upgrade(url)
    store = Store.open(url)
    told, code = fill(store)
    kept = [name for (name,) in rows(store, "SELECT name FROM leader ORDER BY name")]
    ballast.unlink()
    again = store.run_blocking(Note("after"))
    integrity = rows(store, "PRAGMA integrity_check")
    store.close()
    return {"told": len(told), "is_kept": kept == told, "code": code, "again": again, "integrity": integrity}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
