"""Tenants, projects, users, API keys and their place in the quota tree.

Owns the shape of who may do what and hold how much. Written by operators through the API.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel


class QuotaNode(SQLModel, table=True):
    """A node of the quota tree. Tenants and projects have one under their own identifier; cohorts exist only here."""

    __tablename__ = "quota_node"
    __table_args__ = (CheckConstraint("weight_milli >= 0", name="quota_node_weight_not_negative"),)

    id: str = Field(primary_key=True)
    kind: str  # cohort | tenant | project
    name: str
    parent_id: str | None = Field(default=None, foreign_key="quota_node.id", index=True)
    weight_milli: int = 1_000
    within_tenant: str = "never"  # quotas.tree.PreemptWithin
    reclaim_within_cohort: str = "never"  # quotas.tree.Reclaim
    borrow_within_cohort: str = "never"  # quotas.tree.BorrowPreempt
    borrow_max_priority: int | None = None
    when_can_borrow: str = "borrow"  # quotas.tree.WhenCanBorrow
    when_can_preempt: str = "try_next_flavor"  # quotas.tree.WhenCanPreempt
    user_cap_milli_gpu: int | None = None  # of all models, that one user may hold here; NULL = no cap


class Tenant(SQLModel, table=True):
    """A business that shares the fleet."""

    __tablename__ = "tenant"

    id: str = Field(primary_key=True, foreign_key="quota_node.id")
    name: str = Field(unique=True)
    is_suspended: bool = False
    created_at_ms: int


class Project(SQLModel, table=True):
    """A body of work inside a tenant. Every tenant has one named `default`."""

    __tablename__ = "project"
    __table_args__ = (UniqueConstraint("tenant_id", "name", name="project_name_in_tenant"),)

    id: str = Field(primary_key=True, foreign_key="quota_node.id")
    tenant_id: str = Field(foreign_key="tenant.id")
    name: str
    created_at_ms: int


class User(SQLModel, table=True):
    """A person or service account. `tenant_id` is NULL for operators, finance and nodes, who belong to no business."""

    __tablename__ = "account"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name", name="account_name_in_tenant"),
        Index(  # NULLs are never equal, so the constraint above does not cover those without a tenant
            "account_name_without_tenant",
            "name",
            unique=True,
            sqlite_where=text("tenant_id IS NULL"),
            postgresql_where=text("tenant_id IS NULL"),
        ),
        CheckConstraint("(role IN ('operator', 'finance', 'node')) = (tenant_id IS NULL)", name="account_role_fits_tenant"),
    )

    id: str = Field(primary_key=True)
    tenant_id: str | None = Field(default=None, foreign_key="tenant.id")
    name: str
    role: str  # operator | finance | node | admin | member | viewer
    is_disabled: bool = False
    created_at_ms: int


class ApiKey(SQLModel, table=True):
    """A bearer key. Only the SHA-256 of the secret is kept: the secret has 256 random bits, so a slow hash adds nothing."""

    __tablename__ = "api_key"

    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="account.id", index=True)
    name: str
    secret_sha256: str
    scopes: str  # JSON list; ["*"] = everything that the role may do
    node_name: str | None = None  # set for node tokens: the only node this key may speak for
    created_at_ms: int
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None


class Quota(SQLModel, table=True):
    """One dated row of quota. Effective quota is a query by time: the newest row that covers the moment wins."""

    __tablename__ = "quota"
    __table_args__ = (
        Index("quota_by_node", "quota_node_id", "resource", "valid_from_ms"),
        CheckConstraint("nominal >= 0", name="quota_nominal_not_negative"),
        CheckConstraint("borrowing_limit IS NULL OR borrowing_limit >= 0", name="quota_borrowing_not_negative"),
        CheckConstraint("lending_limit IS NULL OR lending_limit >= 0", name="quota_lending_not_negative"),
        CheckConstraint("valid_until_ms IS NULL OR valid_until_ms > valid_from_ms", name="quota_window_not_empty"),
    )

    id: str = Field(primary_key=True)
    quota_node_id: str = Field(foreign_key="quota_node.id")
    resource: str  # a GPU model (milli-GPU), "cpu" (milli-CPU) or "memory" (bytes)
    nominal: int
    borrowing_limit: int | None = None
    lending_limit: int | None = None
    valid_from_ms: int
    valid_until_ms: int | None = None
    created_at_ms: int
