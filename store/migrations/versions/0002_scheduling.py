"""Preemption, nominations, policies, the calendar and the memory of fair sharing.

Revision 0002, after 0001. Only adds: a process of the release before keeps working.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Expand the schema."""
    _expand_tables()
    op.create_index("lease_by_stop", "lease", ["stop_requested_at_ms"], unique=False)
    tells_of_change = sa.text(
        "kind IN ('cohort_changed', 'device_changed', 'maintenance_changed', 'node_changed', 'policy_changed', 'quota_changed', "
        "'reservation_changed', 'tenant_changed')"
    )
    op.create_index("event_of_change", "event", ["kind", "id"], sqlite_where=tells_of_change, postgresql_where=tells_of_change)
    op.create_table(
        "scheduling_policy",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("choices", TEXT, nullable=False),
        sa.Column("set_at_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "fair_share_memory",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("half_life_ms", BIG, nullable=False),
        sa.Column("sums", TEXT, nullable=False),
        sa.Column("observed_at_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "forecast_record",
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("attempt", BIG, nullable=False),
        sa.Column("made_at_ms", BIG, nullable=False),
        sa.Column("forecast_start_ms", BIG, nullable=False),
        sa.Column("started_at_ms", BIG, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"]),
        sa.PrimaryKeyConstraint("job_id", "attempt"),
    )
    _create_nominations()
    _create_calendar()


def _expand_tables() -> None:
    for name, default in (
        ("within_tenant", "never"),
        ("reclaim_within_cohort", "never"),
        ("borrow_within_cohort", "never"),
        ("when_can_borrow", "borrow"),
        ("when_can_preempt", "try_next_flavor"),
    ):
        op.add_column("quota_node", sa.Column(name, TEXT, nullable=False, server_default=default))
    op.add_column("quota_node", sa.Column("borrow_max_priority", BIG, nullable=True))
    op.add_column("quota_node", sa.Column("user_cap_milli_gpu", BIG, nullable=True))
    op.add_column("job_class", sa.Column("user_id", TEXT, nullable=True))
    op.add_column("job_class", sa.Column("tier", TEXT, nullable=False, server_default="standard"))
    op.add_column("job_class", sa.Column("place", TEXT, nullable=False, server_default="{}"))
    op.add_column("job", sa.Column("was_preempted", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("job", sa.Column("failed_attempts", BIG, nullable=False, server_default="0"))
    op.add_column("job", sa.Column("checkpoint_at_ms", BIG, nullable=True))
    op.add_column("lease", sa.Column("preemption_cause", TEXT, nullable=True))
    op.add_column("lease", sa.Column("beneficiary_job_id", TEXT, nullable=True))
    op.add_column("node", sa.Column("declared_gone_at_ms", BIG, nullable=True))
    op.add_column("node", sa.Column("taints", TEXT, nullable=False, server_default="[]"))
    op.add_column("device", sa.Column("island", BIG, nullable=False, server_default="0"))


def _create_nominations() -> None:
    op.create_table(
        "nomination",
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("attempt", BIG, nullable=False),
        sa.Column("class_id", TEXT, nullable=False),
        sa.Column("position", BIG, nullable=False),
        sa.Column("flavor", TEXT, nullable=True),
        sa.Column("slices", TEXT, nullable=False),
        sa.Column("node_ids", TEXT, nullable=False),
        sa.Column("victims", TEXT, nullable=False),
        sa.Column("releases_at_ms", BIG, nullable=False),
        sa.Column("expires_at_ms", BIG, nullable=False),
        sa.ForeignKeyConstraint(["class_id"], ["job_class.id"]),
        sa.ForeignKeyConstraint(["flavor"], ["flavor.name"]),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"]),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("nomination_in_order", "nomination", ["position"], unique=False)


def _create_calendar() -> None:
    op.create_table(
        "capacity_reservation",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("tenant_id", TEXT, nullable=False),
        sa.Column("flavor", TEXT, nullable=False),
        sa.Column("milli_gpu", BIG, nullable=False),
        sa.Column("start_ms", BIG, nullable=False),
        sa.Column("end_ms", BIG, nullable=False),
        sa.Column("recurrence", TEXT, nullable=True),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.Column("cancelled_at_ms", BIG, nullable=True),
        sa.Column("set_aside_milli_gpu_ms", BIG, nullable=False),
        sa.Column("unused_milli_gpu_ms", BIG, nullable=False),
        sa.Column("counted_until_ms", BIG, nullable=True),
        sa.CheckConstraint("milli_gpu > 0", name="capacity_reservation_not_empty"),
        sa.CheckConstraint("end_ms > start_ms", name="capacity_reservation_window_not_empty"),
        sa.ForeignKeyConstraint(["flavor"], ["flavor.name"]),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_index("ix_capacity_reservation_tenant_id", "capacity_reservation", ["tenant_id"], unique=False)
    op.create_table(
        "maintenance_window",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("node_ids", TEXT, nullable=False),
        sa.Column("start_ms", BIG, nullable=False),
        sa.Column("end_ms", BIG, nullable=False),
        sa.Column("recurrence", TEXT, nullable=True),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.Column("cancelled_at_ms", BIG, nullable=True),
        sa.CheckConstraint("end_ms > start_ms", name="maintenance_window_not_empty"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )


def downgrade() -> None:
    """Contract again; only for a database that nothing was written to since."""
    for table in ("maintenance_window", "capacity_reservation", "nomination", "forecast_record", "fair_share_memory", "scheduling_policy"):
        op.drop_table(table)
    op.drop_index("event_of_change", "event")
    op.drop_index("lease_by_stop", "lease")
    columns = {
        "device": ("island",),
        "node": ("taints", "declared_gone_at_ms"),
        "lease": ("preemption_cause", "beneficiary_job_id"),
        "job": ("was_preempted", "failed_attempts", "checkpoint_at_ms"),
        "job_class": ("user_id", "tier", "place"),
        "quota_node": (
            "within_tenant", "reclaim_within_cohort", "borrow_within_cohort", "when_can_borrow", "when_can_preempt", "borrow_max_priority",
            "user_cap_milli_gpu",
        ),
    }  # fmt: skip
    for table, names in columns.items():
        for name in names:
            op.drop_column(table, name)
