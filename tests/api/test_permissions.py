from __future__ import annotations

import pytest

from api.permissions import ROLE_PERMISSIONS, granted
from tests.support.api import Agent, Api, Caller, problem_of
from tests.support.api_document import operations

TENANT_ROLES = ("admin", "member", "viewer")
EVERYTHING = {operation.name for operation in operations() if operation.is_gated}

# What each role may call, written out: whoever widens a role changes this list too.
ANYBODY = {"me"}
READS = {"list_jobs", "read_job", "read_job_events", "list_projects", "list_flavors", "list_prices", "list_quotas", "usage_report",
         "list_tenants", "read_tenant", "list_reservations", "read_reservation"}  # fmt: skip
READS_FLEET = {"list_nodes", "read_node", "read_quota_tree", "list_cohorts", "read_cohort", "read_tenant_quota", "read_project_quota",
               "read_policy", "list_maintenance"}  # fmt: skip
OWN_KEYS = {"create_key", "list_keys", "revoke_key"}
VIEWER = ANYBODY | READS | OWN_KEYS | {"read_logs", "read_events"}
MEMBER = VIEWER | {"submit_job", "submit_batch", "cancel_job", "upload_archive", "has_archive", "estimate"}
ADMIN = MEMBER | {"create_project", "create_user", "list_users", "set_user"}
FINANCE = ANYBODY | READS | READS_FLEET | OWN_KEYS | {"create_price"}
OPERATOR = VIEWER | READS_FLEET | {
    "cancel_job", "create_project", "create_user", "list_users", "set_user", "create_price", "create_node",
    "declare_node_gone", "set_node", "create_tenant",
    "set_tenant", "set_tenant_quota", "set_project_quota", "set_tenant_rules", "set_project_rules", "create_cohort", "set_cohort",
    "delete_cohort", "set_cohort_quota", "import_quotas", "create_reservation", "cancel_reservation", "create_maintenance",
    "cancel_maintenance", "set_policy",
}  # fmt: skip
NODE = ANYBODY | {"read_assignments", "report_observations", "report_inventory", "read_archive"}
MAY = {"viewer": VIEWER, "member": MEMBER, "admin": ADMIN, "finance": FINANCE, "operator": OPERATOR, "node": NODE}


async def somebody(api: Api, role: str) -> Caller:
    """Return somebody of this role."""
    if role == "node":
        agent: Agent = await api.node()
        return agent
    await api.tenant()
    return await api.user(role, tenant="acme" if role in TENANT_ROLES else None, name="somebody")


async def refused_to(caller: Caller) -> set[str]:
    """Call every operation, with things that are not there; return those for which the key has no permission."""
    refused = set()
    for operation in operations():
        if not operation.is_gated:
            continue
        body = {name: value for name, value in (operation.body or {}).items() if name != "user_id"}  # a key for oneself
        answer = await caller.send(operation.method, operation.at(), json=body)
        is_refused = answer.status_code == 403 and (operation.method == "HEAD" or answer.json()["code"] == "permission_missing")
        refused |= {operation.name} if is_refused else set()
    return refused


@pytest.mark.parametrize("role", MAY)
async def test_role_may_call_what_is_written_down_and_nothing_else(api_on_sqlite: Api, role: str) -> None:
    caller = await somebody(api_on_sqlite, role)

    refused = await refused_to(caller)

    assert EVERYTHING - refused == MAY[role]


async def test_scopes_narrow_what_the_role_may(api_on_sqlite: Api) -> None:
    await api_on_sqlite.tenant()
    narrow = await api_on_sqlite.user("admin", scopes=["jobs:read", "estimates:*"])

    refused = await refused_to(narrow)

    assert EVERYTHING - refused == {"me", "list_jobs", "read_job", "read_job_events", "estimate"}


async def test_scopes_never_widen_a_role(api_on_sqlite: Api) -> None:
    assert granted("viewer", ("jobs:write", "*")) == ROLE_PERMISSIONS["viewer"]
    assert granted("nobody-knows", ("*",)) == frozenset()


async def test_refusal_says_what_was_needed(api_on_sqlite: Api) -> None:
    await api_on_sqlite.tenant()
    viewer = await api_on_sqlite.user("viewer")

    answer = await viewer.post("/v1/jobs", {"entrypoint": ["true"]})

    assert problem_of(answer) == (403, "permission_missing", None, None)
    assert answer.json()["data"] == {"permission": "jobs:write", "role": "viewer"}
    assert (await api_on_sqlite.rows())["job"] == 0
