from __future__ import annotations

from store.engine import Store
from store.identity import HasOperator


async def test_migrated_database_opens_and_answers(store: Store) -> None:
    assert await store.read(HasOperator()) is False
