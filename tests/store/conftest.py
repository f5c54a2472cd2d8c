"""The world of rows on each kind of database."""

from __future__ import annotations

import pytest

from store.engine import Store
from tests.store.world import World


@pytest.fixture
def world(store: Store) -> World:
    """An empty world: seeds only."""
    return World(store)
