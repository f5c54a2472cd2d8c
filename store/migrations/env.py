"""Alembic's entry: runs the revisions on the connection that store/migrate.py hands in. No URL is read from any file."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from store import tables

assert tables.__all__  # importing the tables fills the metadata  # noqa: S101

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    transaction_per_migration=False,
    render_as_batch=True,
)
context.run_migrations()
