"""One example for every body of the API: the story of `acme`, its engineer ada, and a job of two replicas.

Owns the values that the OpenAPI document shows, by wire model and, for what is not JSON, by operation. Plain data; api/openapi.py puts it
in its places. Tests hold each example against its wire model and its schema.
"""

from __future__ import annotations

from typing import Any

JOB = "job_06d9kv3m2aq8r5t7w1xz"
LEASE = "lea_06d9kv3p4bn0c2e6g8hj"
TENANT = "ten_06d9ktz1f3h5k7m9p1qs"
USER = "usr_06d9kv015y3a7c9e1g3j"
KEY = "key_06d9kv08n4p6r8t0v2xz"
NODE = "nod_06d9ktw5q7s9t1w3y5a7"
DEVICE = "GPU-9f2c41d7-0b5e-4a86-9d13-6e7f80a1b2c3"
SHA256 = "6c1f0e4a9b7d3e58c2a4f6180d9b7e35ac41f2690e8d7b5c3a19f0e2d4c6b8a0"
BOOT = "b7c41e0d9a3f"
MOMENT = "2026-11-24T02:22:12.123Z"
LATER = "2026-11-24T03:10:00.000Z"

_TENANT = {"id": TENANT, "name": "acme", "parent": "fleet", "weight_milli": 1_000, "is_suspended": False, "created_at": MOMENT}
_PROJECT = {"id": "prj_06d9ktz1g5j7n9q1s3v5", "tenant": "acme", "name": "vision", "created_at": MOMENT}
_USER = {"id": USER, "name": "ada", "role": "member", "tenant": "acme", "is_disabled": False, "created_at": MOMENT}
_KEY = {
    "id": KEY, "user_id": USER, "name": "laptop", "scopes": ["*"], "node": None, "created_at": MOMENT, "expires_at": None,
    "revoked_at": None,
}  # fmt: skip
_DEVICE = {
    "uuid": DEVICE, "node": "node-1", "device_index": 3, "gpu_model": "h200", "memory_bytes": 150_754_820_096, "mode": "whole",
    "health": "healthy", "health_detail": None, "is_simulated": False, "lease_id": LEASE,
}  # fmt: skip
_NODE = {
    "id": NODE, "name": "node-1", "site": "hanoi", "rack": "r7", "gpu_model": "h200", "cpu_milli": 192_000,
    "memory_bytes": 2_199_023_255_552, "is_simulated": False, "state": "ready", "isolation": "namespaces", "agent_version": "0.1.0",
    "heartbeat_at": MOMENT, "milli_gpu_total": 1_000, "milli_gpu_leased": 1_000, "devices": [_DEVICE],
    "labels": {"zone": "a"}, "taints": ["maintenance-team"],
}  # fmt: skip
_SPEC = {
    "name": "resnet", "project": "vision", "entrypoint": ["python", "train.py", "--epochs", "3"], "replicas": 2, "gpus": 4,
    "flavors": ["h200"], "limit_seconds": 7_200, "environment": {"SEED": "1"}, "archive_sha256": SHA256,
}  # fmt: skip
_REASON = {
    "code": "quota_nominal", "data": {"needs": 8_000, "held": 4_000, "limit": 8_000}, "unblocks_when": "quota_freed",
    "answered_at": MOMENT,
}  # fmt: skip
_FORECAST = {"start_at": LATER, "not_before": None, "computed_at": MOMENT}
_JOB = {
    "id": JOB, "tenant": "acme", "project": "vision", "user": "ada", "name": "resnet", "state": "queued", "target": "run",
    "entrypoint": ["python", "train.py", "--epochs", "3"], "replicas": 2, "gpus": 4, "flavors": ["h200"], "cpu_milli": 0,
    "memory_bytes": 0, "sites": [], "deny_sites": [], "prefer_sites": [], "node_labels": {}, "tolerates": [], "within": "site",
    "limit_seconds": 7_200, "tier": "standard", "priority": 0, "attempt": 0, "maximum_attempts": 3,
    "submitted_at": MOMENT, "started_at": None, "ended_at": None, "exit_code": None, "failure_class": None, "message": None,
    "progress": None, "reason": _REASON, "forecast": _FORECAST,
}  # fmt: skip
_ATTEMPT = {
    "number": 1, "lease_id": LEASE, "created_at": MOMENT, "started_at": MOMENT, "ended_at": None, "outcome": None, "exit_code": None,
    "failure_class": None, "message": None,
    "slices": [
        {"replica": 0, "node": "node-1", "device_index": 3, "device_uuid": DEVICE, "milli_gpu": 1_000, "is_simulated": False},
    ],
}  # fmt: skip
_RUNNING = _JOB | {"state": "running", "attempt": 1, "started_at": MOMENT, "progress": {"step": 2, "total": 3}, "reason": None}
_EVENT = {
    "id": 4_711, "at": MOMENT, "kind": "job_started", "tenant": "acme", "job_id": JOB, "lease_id": LEASE, "node": None,
    "data": {"attempt": 1},
}  # fmt: skip
_QUOTA: dict[str, Any] = {
    "tenant": "acme", "project": None, "resource": "h200", "nominal": 8_000, "borrowing_limit": None, "lending_limit": None,
    "held": 4_000, "queued": 8_000, "valid_from": MOMENT, "valid_until": None, "warnings": [], "cohort": None,
    "is_simulated": False,
}  # fmt: skip
_RULES: dict[str, Any] = {
    "within_tenant": "lower_priority", "reclaim_within_cohort": "any", "borrow_within_cohort": "never", "borrow_max_priority": None,
    "when_can_borrow": "borrow", "when_can_preempt": "try_next_flavor", "user_cap_milli_gpu": 4_000,
}  # fmt: skip
_COHORT = {"id": "coh_research", "name": "research", "parent": "fleet", "weight_milli": 1_000}
_QUOTA_NODE: dict[str, Any] = {
    "id": TENANT, "name": "acme", "kind": "tenant", "parent_id": "coh_research", "depth": 2, "weight_milli": 1_000, "share_micro": 166_666,
    **_RULES,
    "resources": [
        {
            "resource": "h200", "nominal": 8_000, "borrowing_limit": 4_000, "lending_limit": None, "subtree": 8_000, "held": 10_000,
            "borrowed": 2_000, "available": 2_000,
        }
    ],
}  # fmt: skip
_REPEAT = {"every_days": 7, "until": "2027-06-01T00:00:00Z", "time_zone": "Asia/Ho_Chi_Minh"}
_WINDOW = {"start": "2026-12-01T13:00:00.000Z", "end": "2026-12-01T17:00:00.000Z", "repeat": _REPEAT}
_RESERVATION = {"name": "evening-class", "tenant": "acme", "flavor": "h200"}
_MAINTENANCE = {"name": "firmware", "nodes": ["node-1"]}
_POLICY: dict[str, Any] = {
    "fair_sharing": True, "fair_share_half_life_ms": 604_800_000, "backfill_depth": 100, "min_runtime_ms": 600_000,
    "preemption_grace_ms": 0, "victims": "least_lost", "default_limit_ms": 86_400_000, "nomination_timeout_ms": 60_000,
    "placement": "fragmentation", "forecast_depth": 100, "preemptions_per_hour": None,
}  # fmt: skip
_MANIFEST = """apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: acme}
spec:
  namespaceSelector: {}
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors:
    - name: h200
      resources: [{name: nvidia.com/gpu, nominalQuota: 8}]
"""
_PRICE = {"id": "pri_h200", "flavor": "h200", "currency": "USD", "units_per_hour": 3_500_000, "valid_from": MOMENT}

MODELS: dict[str, dict[str, Any]] = {
    "ArchiveAnswer": {"sha256": SHA256, "size_bytes": 18_342},
    "Assignments": {
        "cursor": "2f6d0c1b9a8e7d6c5b4a392817060504",
        "items": [
            {
                "lease_id": LEASE, "job_id": JOB, "attempt": 1, "tenant_id": TENANT, "role": "head", "target": "run", "stop_cause": None,
                "slices": [{"device_uuid": DEVICE, "device_index": 3, "milli_gpu": 1_000}], "cpu_milli": 0, "memory_bytes": 0,
                "replicas": 1, "gpus_per_replica": 1, "entrypoint": ["python", "train.py"], "environment": {"SEED": "1"},
                "archive_sha256": SHA256, "requirements": None, "token": "of-this-lease-only", "limit_ms": 7_200_000, "grace_ms": 10_000,
            }
        ],
    },
    "CohortAnswer": _COHORT,
    "CohortCreate": {"name": "research", "parent": "fleet"},
    "CohortSet": {"weight_milli": 2_000},
    "EstimateAnswer": {
        "starts_now": False, "reason": _REASON, "forecast": _FORECAST, "currency": "USD", "hold_amount_units": 56_077_778,
        "price_units_per_hour": 3_500_000, "limit_seconds": 7_200,
    },
    "EventAnswer": _EVENT,
    "FlavorAnswer": {
        "name": "h200", "gpu_model": "h200", "mode": "whole", "milli_gpu": 1_000, "price_units_per_hour": 3_500_000, "currency": "USD",
        "is_simulated": False,
    },
    "Identity": {
        "user_id": USER, "user": "ada", "role": "member", "tenant": "acme", "scopes": ["*"], "service_version": "0.1.0",
        "is_embedded": False,
    },
    "InventoryReport": {
        "boot_id": BOOT, "agent_version": "0.1.0", "cpu_milli": 192_000, "memory_bytes": 2_199_023_255_552, "isolation": "namespaces",
        "devices": [
            {"uuid": DEVICE, "device_index": 3, "gpu_model": "h200", "memory_bytes": 150_754_820_096, "cells": 8, "is_simulated": False},
        ],
        "leases_alive": [],
    },
    "JobAnswer": _JOB,
    "JobBatch": {"jobs": [_SPEC, _SPEC | {"environment": {"SEED": "2"}}]},
    "JobBatchAnswer": {"jobs": [_JOB, _JOB | {"id": "job_06d9kv3m2bs0t2w4y6a8"}]},
    "JobDetail": _RUNNING | {"attempts": [_ATTEMPT]},
    "JobSpec": _SPEC,
    "KeyAnswer": _KEY,
    "KeyCreate": {"user_id": USER, "name": "laptop", "scopes": ["jobs:*", "archives:write"], "expires_at": "2027-11-24T00:00:00Z"},
    "KeyCreated": _KEY | {"secret": f"{KEY}.the-secret-is-shown-once"},
    "MaintenanceAnswer": {"id": "mnt_06d9kv4a1c3e5g7j9m1p", **_MAINTENANCE, **_WINDOW, "created_at": MOMENT, "cancelled_at": None},
    "MaintenanceCreate": _MAINTENANCE | _WINDOW,
    "NodeAnswer": _NODE,
    "NodeCreate": {"name": "node-1", "site": "hanoi", "rack": "r7"},
    "NodeSet": {"labels": {"zone": "a", "old": None}, "taints": ["maintenance-team"]},
    "ObservationAccepted": {"accepted_through_seq": 42},
    "ObservationBatch": {
        "boot_id": BOOT,
        "observations": [
            {"agent_seq": 41, "kind": "started", "lease_id": LEASE, "observed_at": MOMENT, "data": {}},
            {"agent_seq": 42, "kind": "log", "lease_id": LEASE, "observed_at": MOMENT, "data": {"offset": 0, "text": "epoch 1\n"}},
        ],
    },
    "PolicyAnswer": _POLICY | {"chosen": ["min_runtime_ms"], "set_at": MOMENT},
    "PolicySet": {"min_runtime_ms": 600_000},
    "PriceAnswer": _PRICE,
    "PriceCreate": {"flavor": "h200", "currency": "USD", "units_per_hour": 3_500_000, "valid_from": "2027-01-01T00:00:00Z"},
    "ProjectAnswer": _PROJECT,
    "ProjectCreate": {"name": "vision"},
    "QuotaAnswer": _QUOTA,
    "QuotaImport": {"manifests": [{"name": "queues.yaml", "text": _MANIFEST}], "models": {}, "is_dry_run": True},
    "QuotaImportAnswer": {
        "is_applied": False,
        "changes": [
            {
                "action": "change", "kind": "quota", "name": "acme", "resource": "h200", "before": {"nominal": 4_000},
                "after": {"nominal": 8_000},
            }
        ],
        "left_out": ["queues.yaml: document 1 (ClusterQueue acme): spec.stopPolicy: a scenario cannot stop a queue"],
    },
    "QuotaNodeAnswer": _QUOTA_NODE,
    "QuotaSet": {"resource": "h200", "nominal": 8_000},
    "QuotaTreeAnswer": {"nodes": [_QUOTA_NODE]},
    "ReservationAnswer": {
        "id": "res_06d9kv4a1c3e5g7j9m1p", **_RESERVATION, "milli_gpu": 4_000, **_WINDOW, "created_at": MOMENT, "cancelled_at": None,
        "set_aside_milli_gpu_ms": 0, "unused_milli_gpu_ms": 0, "counted_until": None,
    },
    "ReservationCreate": _RESERVATION | {"gpus": 4} | _WINDOW,
    "RulesAnswer": {"tenant": "acme", "project": None, **_RULES},
    "RulesSet": {"reclaim_within_cohort": "any", "user_cap_milli_gpu": 4_000},
    "TenantAnswer": _TENANT,
    "TenantCreate": {"name": "acme", "parent": "fleet"},
    "TenantSet": {"weight_milli": 2_000},
    "UsageReport": {
        "start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z", "group_by": ["tenant", "flavor"], "is_simulated": False,
        "rows": [
            {
                "tenant": "acme", "project": None, "user": None, "flavor": "h200", "job_id": None, "leases": 1,
                "milli_gpu_ms": 28_800_000_000, "amount_units": 28_000_000, "currency": "USD",
            }
        ],
        "total_milli_gpu_ms": 28_800_000_000, "total_amount_units": 28_000_000, "currency": "USD",
        "check": {
            "leases": 1, "lease_milli_gpu_ms": 28_800_000_000, "line_milli_gpu_ms": 28_800_000_000, "lease_amount_units": 28_000_000,
            "line_amount_units": 28_000_000, "unrated_leases": 0, "open_leases": 0, "is_equal": True,
        },
    },
    "UserAnswer": _USER,
    "UserCreate": {"name": "ada", "role": "member", "tenant": "acme"},
    "UserSet": {"is_disabled": True},
}  # fmt: skip

# What is not described by a wire model: (operation, media type) -> the body.
BODIES: dict[tuple[str, str], Any] = {
    ("healthz", "application/json"): {"status": "ok"},
    ("readyz", "application/json"): {"status": "ok"},
    ("metrics", "text/plain"): 'terrace_api_requests_total{method="POST",route="/v1/jobs",status="201"} 12.0\n',
    ("upload_archive", "application/gzip"): "(bytes)",
    ("read_archive", "application/gzip"): "(bytes)",
    ("read_logs", "text/plain"): "epoch 1: accuracy 0.91\n",
    ("read_logs", "text/event-stream"): (
        'id: 23\r\nevent: log\r\ndata: {"attempt":1,"next_offset":23,"text":"epoch 1: accuracy 0.91\\n"}\r\n\r\n'
        'id: 23\r\nevent: end\r\ndata: {"attempt":1,"next_offset":23,"state":"succeeded"}\r\n\r\n'
    ),
    ("read_job_events", "text/event-stream"): (
        f'id: 4711\r\nevent: job_started\r\ndata: {{"id":4711,"at":"{MOMENT}","kind":"job_started","tenant":"acme","job_id":"{JOB}",'
        f'"lease_id":"{LEASE}","node":null,"data":{{"attempt":1}}}}\r\n\r\nevent: end\r\ndata: {{}}\r\n\r\n'
    ),
    ("read_events", "text/event-stream"): (
        f'id: 4711\r\nevent: job_started\r\ndata: {{"id":4711,"at":"{MOMENT}","kind":"job_started","tenant":"acme","job_id":"{JOB}",'
        f'"lease_id":"{LEASE}","node":null,"data":{{"attempt":1}}}}\r\n\r\n'
    ),
    ("usage_report", "text/csv"): (
        "tenant,project,user,flavor,job_id,leases,milli_gpu_ms,amount_units,currency,amount\r\n"
        "acme,,,h200,,1,28800000000,28000000,USD,28.000000\r\n"
    ),
}
