"""The first schema: people, fleet, jobs, leases and records.

Revision 0001, after None. Written once, never edited after a release.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Expand the schema."""
    op.create_table(
        "event",
        sa.Column("id", BIG, nullable=False),
        sa.Column("at_ms", BIG, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("tenant_id", TEXT, nullable=True),
        sa.Column("job_id", TEXT, nullable=True),
        sa.Column("lease_id", TEXT, nullable=True),
        sa.Column("node_id", TEXT, nullable=True),
        sa.Column("data", TEXT, nullable=False),
        sa.Column("inserted_at_us", BIG, nullable=True),  # the last column: its default is drawn after the identifier
        sa.PrimaryKeyConstraint("id"),
    )
    if op.get_bind().dialect.name == "postgresql":
        now_us = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        op.execute(f"ALTER TABLE event ALTER COLUMN inserted_at_us SET DEFAULT {now_us}")
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.create_index("event_by_job", ["job_id", "id"], unique=False)
        batch_op.create_index("event_by_tenant", ["tenant_id", "id"], unique=False)

    op.create_table(
        "flavor",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("gpu_model", TEXT, nullable=False),
        sa.Column("mode", TEXT, nullable=False),
        sa.Column("milli_gpu", BIG, nullable=False),
        sa.Column("profile", TEXT, nullable=True),
        sa.CheckConstraint("milli_gpu > 0 AND milli_gpu <= 1000", name="flavor_size_in_device"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "idempotency_record",
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("route", TEXT, nullable=False),
        sa.Column("body_sha256", TEXT, nullable=False),
        sa.Column("status", BIG, nullable=False),
        sa.Column("response", TEXT, nullable=False),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "key"),
    )
    with op.batch_alter_table("idempotency_record", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_idempotency_record_created_at_ms"), ["created_at_ms"], unique=False)

    op.create_table(
        "leader",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("renewed_at_ms", BIG, nullable=False),
        sa.Column("last_stamp_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "node",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("site", TEXT, nullable=False),
        sa.Column("rack", TEXT, nullable=True),
        sa.Column("gpu_model", TEXT, nullable=True),
        sa.Column("cpu_milli", BIG, nullable=False),
        sa.Column("memory_bytes", BIG, nullable=False),
        sa.Column("is_simulated", sa.Boolean(), nullable=False),
        sa.Column("is_cordoned", sa.Boolean(), nullable=False),
        sa.Column("is_draining", sa.Boolean(), nullable=False),
        sa.Column("is_lost", sa.Boolean(), nullable=False),
        sa.Column("agent_version", TEXT, nullable=True),
        sa.Column("agent_boot_id", TEXT, nullable=True),
        sa.Column("isolation", TEXT, nullable=True),
        sa.Column("labels", TEXT, nullable=False),
        sa.Column("registered_at_ms", BIG, nullable=False),
        sa.Column("heartbeat_at_ms", BIG, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "quota_node",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("parent_id", TEXT, nullable=True),
        sa.Column("weight_milli", BIG, nullable=False),
        sa.CheckConstraint("weight_milli >= 0", name="quota_node_weight_not_negative"),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["quota_node.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("quota_node", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_quota_node_parent_id"), ["parent_id"], unique=False)

    op.create_table(
        "tier",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("default_limit_ms", BIG, nullable=False),
        sa.Column("maximum_limit_ms", BIG, nullable=False),
        sa.Column("grace_ms", BIG, nullable=False),
        sa.Column("is_preemptible", sa.Boolean(), nullable=False),
        sa.Column("priority_minimum", BIG, nullable=False),
        sa.Column("priority_maximum", BIG, nullable=False),
        sa.CheckConstraint("default_limit_ms > 0 AND default_limit_ms <= maximum_limit_ms", name="tier_limits_ordered"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "device",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("node_id", TEXT, nullable=False),
        sa.Column("device_index", BIG, nullable=False),
        sa.Column("gpu_model", TEXT, nullable=False),
        sa.Column("memory_bytes", BIG, nullable=False),
        sa.Column("cells", BIG, nullable=False),
        sa.Column("mode", TEXT, nullable=False),
        sa.Column("health", TEXT, nullable=False),
        sa.Column("health_detail", TEXT, nullable=True),
        sa.Column("is_simulated", sa.Boolean(), nullable=False),
        sa.CheckConstraint("mode IN ('whole', 'mig', 'shared')", name="device_mode_known"),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["node.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("id", "mode", name="device_with_mode"),
        sa.UniqueConstraint("node_id", "device_index", name="device_index_on_node"),
    )
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_device_node_id"), ["node_id"], unique=False)

    op.create_table(
        "observation",
        sa.Column("id", BIG, nullable=False),
        sa.Column("node_id", TEXT, nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("agent_seq", BIG, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("lease_id", TEXT, nullable=True),
        sa.Column("data", TEXT, nullable=False),
        sa.Column("observed_at_ms", BIG, nullable=False),
        sa.Column("received_at_ms", BIG, nullable=False),
        sa.Column("applied_at_ms", BIG, nullable=True),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["node.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("node_id", "boot_id", "agent_seq", name="observation_once"),
    )
    with op.batch_alter_table("observation", schema=None) as batch_op:
        batch_op.create_index("observation_open", ["applied_at_ms", "id"], unique=False)

    op.create_table(
        "price",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("flavor", TEXT, nullable=False),
        sa.Column("currency", TEXT, nullable=False),
        sa.Column("units_per_hour", BIG, nullable=False),
        sa.Column("valid_from_ms", BIG, nullable=False),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.CheckConstraint("units_per_hour >= 0", name="price_not_negative"),
        sa.ForeignKeyConstraint(
            ["flavor"],
            ["flavor.name"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("flavor", "currency", "valid_from_ms", name="price_starts_once"),
    )
    op.create_table(
        "quota",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("quota_node_id", TEXT, nullable=False),
        sa.Column("resource", TEXT, nullable=False),
        sa.Column("nominal", BIG, nullable=False),
        sa.Column("borrowing_limit", BIG, nullable=True),
        sa.Column("lending_limit", BIG, nullable=True),
        sa.Column("valid_from_ms", BIG, nullable=False),
        sa.Column("valid_until_ms", BIG, nullable=True),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.CheckConstraint("borrowing_limit IS NULL OR borrowing_limit >= 0", name="quota_borrowing_not_negative"),
        sa.CheckConstraint("lending_limit IS NULL OR lending_limit >= 0", name="quota_lending_not_negative"),
        sa.CheckConstraint("nominal >= 0", name="quota_nominal_not_negative"),
        sa.CheckConstraint("valid_until_ms IS NULL OR valid_until_ms > valid_from_ms", name="quota_window_not_empty"),
        sa.ForeignKeyConstraint(
            ["quota_node_id"],
            ["quota_node.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("quota", schema=None) as batch_op:
        batch_op.create_index("quota_by_node", ["quota_node_id", "resource", "valid_from_ms"], unique=False)

    op.create_table(
        "tenant",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("is_suspended", sa.Boolean(), nullable=False),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.ForeignKeyConstraint(
            ["id"],
            ["quota_node.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "account",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("tenant_id", TEXT, nullable=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.CheckConstraint("(role IN ('operator', 'finance', 'node')) = (tenant_id IS NULL)", name="account_role_fits_tenant"),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "name", name="account_name_in_tenant"),
    )
    with op.batch_alter_table("account", schema=None) as batch_op:
        batch_op.create_index(
            "account_name_without_tenant",
            ["name"],
            unique=True,
            sqlite_where=sa.text("tenant_id IS NULL"),
            postgresql_where=sa.text("tenant_id IS NULL"),
        )

    op.create_table(
        "blob",
        sa.Column("tenant_id", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
        ),
        sa.PrimaryKeyConstraint("tenant_id", "sha256"),
    )
    op.create_table(
        "project",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("tenant_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.ForeignKeyConstraint(
            ["id"],
            ["quota_node.id"],
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "name", name="project_name_in_tenant"),
    )
    op.create_table(
        "api_key",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("secret_sha256", TEXT, nullable=False),
        sa.Column("scopes", TEXT, nullable=False),
        sa.Column("node_name", TEXT, nullable=True),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.Column("expires_at_ms", BIG, nullable=True),
        sa.Column("revoked_at_ms", BIG, nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["account.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("api_key", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_key_user_id"), ["user_id"], unique=False)

    op.create_table(
        "job_class",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("tenant_id", TEXT, nullable=False),
        sa.Column("project_id", TEXT, nullable=False),
        sa.Column("shape", TEXT, nullable=False),
        sa.Column("limit_ms", BIG, nullable=False),
        sa.Column("priority", BIG, nullable=False),
        sa.Column("reason_code", TEXT, nullable=True),
        sa.Column("reason_data", TEXT, nullable=True),
        sa.Column("reason_unblocks_when", TEXT, nullable=True),
        sa.Column("forecast_start_ms", BIG, nullable=True),
        sa.Column("not_before_ms", BIG, nullable=True),
        sa.Column("answered_at_ms", BIG, nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("job_class", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_class_tenant_id"), ["tenant_id"], unique=False)

    op.create_table(
        "job",
        sa.Column("seq", BIG, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("tenant_id", TEXT, nullable=False),
        sa.Column("project_id", TEXT, nullable=False),
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("class_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("version", BIG, nullable=False),
        sa.Column("priority", BIG, nullable=False),
        sa.Column("tier", TEXT, nullable=False),
        sa.Column("flavors", TEXT, nullable=False),
        sa.Column("replicas", BIG, nullable=False),
        sa.Column("slices_per_replica", BIG, nullable=False),
        sa.Column("milli_gpu_per_slice", BIG, nullable=False),
        sa.Column("cpu_milli_per_replica", BIG, nullable=False),
        sa.Column("memory_bytes_per_replica", BIG, nullable=False),
        sa.Column("limit_ms", BIG, nullable=False),
        sa.Column("entrypoint", TEXT, nullable=False),
        sa.Column("environment", TEXT, nullable=False),
        sa.Column("archive_sha256", TEXT, nullable=True),
        sa.Column("requirements", TEXT, nullable=True),
        sa.Column("maximum_attempts", BIG, nullable=False),
        sa.Column("attempt", BIG, nullable=False),
        sa.Column("submitted_at_ms", BIG, nullable=False),
        sa.Column("started_at_ms", BIG, nullable=True),
        sa.Column("ended_at_ms", BIG, nullable=True),
        sa.Column("exit_code", BIG, nullable=True),
        sa.Column("failure_class", TEXT, nullable=True),
        sa.Column("message", TEXT, nullable=True),
        sa.Column("progress", TEXT, nullable=True),
        sa.CheckConstraint(
            "state IN ('cancelled', 'failed', 'held', 'queued', 'running', 'starting', 'succeeded')", name="job_state_known"
        ),
        sa.CheckConstraint("target IN ('cancel', 'run')", name="job_target_known"),
        sa.CheckConstraint("attempt >= 0", name="job_attempt_not_negative"),
        sa.CheckConstraint("limit_ms > 0", name="job_has_limit"),
        sa.CheckConstraint("replicas >= 1", name="job_has_replicas"),
        sa.ForeignKeyConstraint(
            ["class_id"],
            ["job_class.id"],
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
        ),
        sa.ForeignKeyConstraint(
            ["tier"],
            ["tier.name"],
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["account.id"],
        ),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_class_id"), ["class_id"], unique=False)
        batch_op.create_index("job_by_tenant", ["tenant_id", "seq"], unique=False)
        batch_op.create_index("job_by_tenant_and_state", ["tenant_id", "state", "seq"], unique=False)
        batch_op.create_index("job_open", ["state", "seq"], unique=False)

    op.create_table(
        "lease",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("attempt", BIG, nullable=False),
        sa.Column("tenant_id", TEXT, nullable=False),
        sa.Column("project_id", TEXT, nullable=False),
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("flavor", TEXT, nullable=True),
        sa.Column("slices", BIG, nullable=False),
        sa.Column("milli_gpu", BIG, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("stop_cause", TEXT, nullable=True),
        sa.Column("stop_requested_at_ms", BIG, nullable=True),
        sa.Column("token", TEXT, nullable=False),
        sa.Column("limit_ms", BIG, nullable=False),
        sa.Column("grace_ms", BIG, nullable=False),
        sa.Column("handle", TEXT, nullable=True),
        sa.Column("granted_at_ms", BIG, nullable=False),
        sa.Column("running_at_ms", BIG, nullable=True),
        sa.Column("ended_at_ms", BIG, nullable=True),
        sa.Column("released_at_ms", BIG, nullable=True),
        sa.Column("end_cause", TEXT, nullable=True),
        sa.Column("failure_class", TEXT, nullable=True),
        sa.Column("rated_at_ms", BIG, nullable=True),
        sa.CheckConstraint("ended_at_ms IS NULL OR ended_at_ms >= granted_at_ms", name="lease_ends_after_grant"),
        sa.CheckConstraint("released_at_ms IS NULL OR ended_at_ms IS NOT NULL", name="lease_ended_before_release"),
        sa.CheckConstraint("released_at_ms IS NULL OR released_at_ms >= ended_at_ms", name="lease_released_after_end"),
        sa.CheckConstraint("running_at_ms IS NULL OR ended_at_ms IS NULL OR ended_at_ms >= running_at_ms", name="lease_ends_after_run"),
        sa.CheckConstraint("running_at_ms IS NULL OR running_at_ms >= granted_at_ms", name="lease_runs_after_grant"),
        sa.ForeignKeyConstraint(
            ["flavor"],
            ["flavor.name"],
        ),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["job.id"],
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["project.id"],
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["account.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_id", "attempt", name="lease_once_per_attempt"),
    )
    with op.batch_alter_table("lease", schema=None) as batch_op:
        batch_op.create_index("lease_by_end", ["ended_at_ms"], unique=False)
        batch_op.create_index("lease_by_tenant", ["tenant_id", "ended_at_ms"], unique=False)
        batch_op.create_index("lease_open", ["released_at_ms"], unique=False)
        batch_op.create_index(
            "lease_running_once",
            ["job_id"],
            unique=True,
            sqlite_where=sa.text("ended_at_ms IS NULL"),
            postgresql_where=sa.text("ended_at_ms IS NULL"),
        )
        batch_op.create_index("lease_to_rate", ["rated_at_ms", "ended_at_ms"], unique=False)

    op.create_table(
        "log_chunk",
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("attempt", BIG, nullable=False),
        sa.Column("start_offset", BIG, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["job.id"],
        ),
        sa.PrimaryKeyConstraint("job_id", "attempt", "start_offset"),
    )
    op.create_table(
        "attempt",
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("number", BIG, nullable=False),
        sa.Column("lease_id", TEXT, nullable=False),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.Column("started_at_ms", BIG, nullable=True),
        sa.Column("ended_at_ms", BIG, nullable=True),
        sa.Column("outcome", TEXT, nullable=True),
        sa.Column("exit_code", BIG, nullable=True),
        sa.Column("failure_class", TEXT, nullable=True),
        sa.Column("message", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["job.id"],
        ),
        sa.ForeignKeyConstraint(
            ["lease_id"],
            ["lease.id"],
        ),
        sa.PrimaryKeyConstraint("job_id", "number"),
        sa.UniqueConstraint("lease_id"),
    )
    op.create_table(
        "lease_node",
        sa.Column("lease_id", TEXT, nullable=False),
        sa.Column("node_id", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("cpu_milli", BIG, nullable=False),
        sa.Column("memory_bytes", BIG, nullable=False),
        sa.Column("is_gone", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lease_id"],
            ["lease.id"],
        ),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["node.id"],
        ),
        sa.PrimaryKeyConstraint("lease_id", "node_id"),
    )
    with op.batch_alter_table("lease_node", schema=None) as batch_op:
        batch_op.create_index("lease_node_by_node", ["node_id", "is_gone"], unique=False)

    op.create_table(
        "lease_slice",
        sa.Column("lease_id", TEXT, nullable=False),
        sa.Column("ordinal", BIG, nullable=False),
        sa.Column("replica", BIG, nullable=False),
        sa.Column("node_id", TEXT, nullable=False),
        sa.Column("device_id", TEXT, nullable=False),
        sa.Column("mode", TEXT, nullable=False),
        sa.Column("milli_gpu", BIG, nullable=False),
        sa.Column("profile", TEXT, nullable=True),
        sa.Column("start_cell", BIG, nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["device.id"],
        ),
        sa.ForeignKeyConstraint(
            ["lease_id"],
            ["lease.id"],
        ),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["node.id"],
        ),
        sa.PrimaryKeyConstraint("lease_id", "ordinal"),
    )
    with op.batch_alter_table("lease_slice", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_lease_slice_device_id"), ["device_id"], unique=False)

    op.create_table(
        "usage_line",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("corrects", TEXT, nullable=True),
        sa.Column("lease_id", TEXT, nullable=False),
        sa.Column("tenant_id", TEXT, nullable=False),
        sa.Column("project_id", TEXT, nullable=False),
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("flavor", TEXT, nullable=True),
        sa.Column("start_ms", BIG, nullable=False),
        sa.Column("end_ms", BIG, nullable=False),
        sa.Column("milli_gpu", BIG, nullable=False),
        sa.Column("milli_gpu_ms", BIG, nullable=False),
        sa.Column("price_id", TEXT, nullable=True),
        sa.Column("units_per_hour", BIG, nullable=False),
        sa.Column("slices", BIG, nullable=False),
        sa.Column("currency", TEXT, nullable=False),
        sa.Column("amount_units", BIG, nullable=False),
        sa.Column("created_at_ms", BIG, nullable=False),
        sa.CheckConstraint("end_ms >= start_ms", name="usage_line_not_backwards"),
        sa.ForeignKeyConstraint(
            ["lease_id"],
            ["lease.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("lease_id", "kind", "start_ms", name="usage_line_once"),
    )
    with op.batch_alter_table("usage_line", schema=None) as batch_op:
        batch_op.create_index("usage_line_by_end", ["end_ms"], unique=False)
        batch_op.create_index("usage_line_by_tenant", ["tenant_id", "end_ms"], unique=False)

    op.create_table(
        "device_claim",
        sa.Column("device_id", TEXT, nullable=False),
        sa.Column("cell", BIG, nullable=False),
        sa.Column("mode", TEXT, nullable=False),
        sa.Column("lease_id", TEXT, nullable=False),
        sa.Column("ordinal", BIG, nullable=False),
        sa.CheckConstraint("mode <> 'whole' OR cell = 0", name="claim_of_whole_device_is_cell_zero"),
        sa.CheckConstraint("cell >= 0", name="claim_cell_not_negative"),
        sa.ForeignKeyConstraint(["device_id", "mode"], ["device.id", "device.mode"], name="claim_fits_device_mode"),
        sa.ForeignKeyConstraint(["lease_id", "ordinal"], ["lease_slice.lease_id", "lease_slice.ordinal"], name="claim_of_slice"),
        sa.PrimaryKeyConstraint("device_id", "cell"),
    )
    with op.batch_alter_table("device_claim", schema=None) as batch_op:
        batch_op.create_index("claim_by_lease", ["lease_id"], unique=False)


def downgrade() -> None:
    """Undo the expansion."""
    with op.batch_alter_table("device_claim", schema=None) as batch_op:
        batch_op.drop_index("claim_by_lease")

    op.drop_table("device_claim")
    with op.batch_alter_table("usage_line", schema=None) as batch_op:
        batch_op.drop_index("usage_line_by_tenant")
        batch_op.drop_index("usage_line_by_end")

    op.drop_table("usage_line")
    with op.batch_alter_table("lease_slice", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_lease_slice_device_id"))

    op.drop_table("lease_slice")
    with op.batch_alter_table("lease_node", schema=None) as batch_op:
        batch_op.drop_index("lease_node_by_node")

    op.drop_table("lease_node")
    op.drop_table("attempt")
    op.drop_table("log_chunk")
    with op.batch_alter_table("lease", schema=None) as batch_op:
        batch_op.drop_index("lease_to_rate")
        batch_op.drop_index(
            "lease_running_once", sqlite_where=sa.text("ended_at_ms IS NULL"), postgresql_where=sa.text("ended_at_ms IS NULL")
        )
        batch_op.drop_index("lease_open")
        batch_op.drop_index("lease_by_tenant")
        batch_op.drop_index("lease_by_end")

    op.drop_table("lease")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index("job_open")
        batch_op.drop_index("job_by_tenant_and_state")
        batch_op.drop_index("job_by_tenant")
        batch_op.drop_index(batch_op.f("ix_job_class_id"))

    op.drop_table("job")
    with op.batch_alter_table("job_class", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_class_tenant_id"))

    op.drop_table("job_class")
    with op.batch_alter_table("api_key", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_key_user_id"))

    op.drop_table("api_key")
    op.drop_table("project")
    op.drop_table("blob")
    with op.batch_alter_table("account", schema=None) as batch_op:
        batch_op.drop_index(
            "account_name_without_tenant", sqlite_where=sa.text("tenant_id IS NULL"), postgresql_where=sa.text("tenant_id IS NULL")
        )

    op.drop_table("account")
    op.drop_table("tenant")
    with op.batch_alter_table("quota", schema=None) as batch_op:
        batch_op.drop_index("quota_by_node")

    op.drop_table("quota")
    op.drop_table("price")
    with op.batch_alter_table("observation", schema=None) as batch_op:
        batch_op.drop_index("observation_open")

    op.drop_table("observation")
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_device_node_id"))

    op.drop_table("device")
    op.drop_table("tier")
    with op.batch_alter_table("quota_node", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_quota_node_parent_id"))

    op.drop_table("quota_node")
    op.drop_table("node")
    op.drop_table("leader")
    with op.batch_alter_table("idempotency_record", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_idempotency_record_created_at_ms"))

    op.drop_table("idempotency_record")
    op.drop_table("flavor")
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.drop_index("event_by_tenant")
        batch_op.drop_index("event_by_job")

    op.drop_table("event")
