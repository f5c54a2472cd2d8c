"""Tenants, projects, users and API keys.

Owns their wire shapes. A secret appears in exactly one answer, `KeyCreated`, and nowhere else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from terrace.models.common import Answer, Line, Name, Request, Timestamp


class Role(StrEnum):
    """What a user may do. operator, finance and node belong to no tenant; the others to one."""

    OPERATOR = "operator"
    FINANCE = "finance"
    NODE = "node"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class TenantCreate(Request):
    """A new business. `parent` names a cohort."""

    name: Name
    parent: Name | None = None
    weight_milli: Annotated[int, Field(ge=0, le=1_000_000_000)] = 1_000


class TenantAnswer(Answer):
    """A business as operators see it."""

    id: str
    name: str
    parent: str | None = None
    weight_milli: int
    is_suspended: bool
    created_at: Timestamp


class TenantSet(Request):
    """Fields of a tenant to change; absent ones stay. `parent` names a cohort, null takes the tenant out of its own."""

    weight_milli: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    is_suspended: bool | None = None
    parent: Name | None = None


class ProjectCreate(Request):
    """A new project in a tenant."""

    name: Name


class ProjectAnswer(Answer):
    """A project."""

    id: str
    tenant: str
    name: str
    created_at: Timestamp


class UserCreate(Request):
    """A new user. `tenant` is required for tenant roles and refused for the others."""

    name: Name
    role: Role
    tenant: Name | None = None


class UserSet(Request):
    """Fields of a user to change; absent ones stay. None of a disabled user's keys works."""

    is_disabled: bool | None = None


class UserAnswer(Answer):
    """A user."""

    id: str
    name: str
    role: Role
    tenant: str | None = None
    is_disabled: bool
    created_at: Timestamp


class KeyCreate(Request):
    """A new API key for a user. `node` is required when the user's role is node."""

    user_id: Annotated[Line, StringConstraints(min_length=1, max_length=64)] | None = None
    name: Annotated[Line, StringConstraints(min_length=1, max_length=120)] = "key"
    scopes: Annotated[list[Annotated[Line, StringConstraints(min_length=1, max_length=64)]], Field(min_length=1, max_length=32)] = Field(
        default_factory=lambda: ["*"]
    )
    expires_at: Timestamp | None = None
    node: Name | None = None


class KeyAnswer(Answer):
    """An API key without its secret."""

    id: str
    user_id: str
    name: str
    scopes: list[str]
    node: str | None = None
    created_at: Timestamp
    expires_at: Timestamp | None = None
    revoked_at: Timestamp | None = None


class KeyCreated(KeyAnswer):
    """A new API key. `secret` is shown once and cannot be read again."""

    secret: str


class Identity(Answer):
    """Who the presented key speaks for."""

    user_id: str
    user: str
    role: Role
    tenant: str | None = None
    scopes: list[str]
    service_version: str
    is_embedded: bool = False
