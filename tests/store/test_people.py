"""Tenants, projects, users and keys: names are taken once, secrets are never kept, another tenant's objects are missing."""

from __future__ import annotations

from typing import Any

import pytest

from store import identity
from store.errors import ConflictError, InvalidError, NotFoundError
from tests.store.world import T0_MS, World
from tests.support.statements import rows

SHA = "0" * 64


def key(identifier: str, user: str, **fields: Any) -> identity.CreateKey:
    given = {"scopes": ("*",), "node": None, "expires_at_ms": None, "now_ms": T0_MS} | fields
    return identity.CreateKey(id=identifier, user_id=user, name="laptop", secret_sha256=SHA, **given)


def test_tenant_comes_with_its_place_in_the_tree_and_a_default_project(world: World) -> None:
    made = world.run(identity.CreateTenant("ten_a", "prj_a", "acme", "fleet", 2_000, T0_MS))
    assert made == identity.TenantView("ten_a", "acme", "fleet", 2_000, is_suspended=False, created_at_ms=T0_MS)
    assert world.read(identity.TenantByName("acme")) == made
    assert world.read(identity.Projects("acme")) == (identity.ProjectView("prj_a", "acme", "default", T0_MS),)
    places = rows(world.store, "SELECT id, kind, parent_id FROM quota_node ORDER BY id")
    assert places == [("fleet", "cohort", None), ("prj_a", "project", "ten_a"), ("ten_a", "tenant", "fleet")]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param(identity.CreateTenant("ten_2", "prj_2", "acme", None, 1_000, T0_MS), "tenant_exists", id="tenant"),
        pytest.param(identity.CreateProject("prj_2", "acme", "default", T0_MS), "project_exists", id="project"),
        pytest.param(identity.CreateUser("usr_2", "acme", "viewer", "acme", T0_MS), "user_exists", id="user"),
    ],
)
def test_name_that_is_taken_is_refused_and_leaves_nothing(world: World, command: Any, code: str) -> None:
    world.tenant("acme")
    tables = ("tenant", "project", "account", "quota_node")
    before = [rows(world.store, f"SELECT id FROM {table}") for table in tables]  # noqa: S608  names of this file
    with pytest.raises(ConflictError) as refused:
        world.run(command)
    assert (refused.value.code, refused.value.data) == (code, {"field": "name"})
    assert [rows(world.store, f"SELECT id FROM {table}") for table in tables] == before  # noqa: S608


def test_two_operators_cannot_share_a_name(world: World) -> None:
    world.run(identity.CreateUser("usr_1", "root", "operator", None, T0_MS))
    with pytest.raises(ConflictError, match="there is a user 'root' already"):
        world.run(identity.CreateUser("usr_2", "root", "finance", None, T0_MS))


@pytest.mark.parametrize(
    ("command", "code", "field"),
    [
        pytest.param(identity.CreateTenant("t", "p", "b", "nowhere", 1, T0_MS), "unknown_cohort", "parent", id="unknown cohort"),
        pytest.param(identity.CreateUser("u", "b", "member", None, T0_MS), "role_does_not_fit", "tenant", id="member of nothing"),
        pytest.param(identity.CreateUser("u", "b", "operator", "acme", T0_MS), "role_does_not_fit", "tenant", id="operator of a tenant"),
        pytest.param(key("k", "usr_acme", node="a"), "node_does_not_fit", "node", id="a person's key for a node"),
        pytest.param(
            identity.CreateNodeKey("k", "u", "agent", SHA, "nowhere", None, T0_MS), "unknown_node", "node", id="key of an unknown node"
        ),
    ],
)
def test_request_that_does_not_fit_names_its_field(world: World, command: Any, code: str, field: str) -> None:
    world.tenant("acme")
    with pytest.raises(InvalidError) as refused:
        world.run(command)
    assert (refused.value.code, refused.value.data["field"]) == (code, field)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(identity.CreateProject("p", "nobody", "x", T0_MS), id="project of an unknown tenant"),
        pytest.param(identity.SetTenant("nobody", 1, None, T0_MS), id="change of an unknown tenant"),
        pytest.param(key("k", "usr_other", tenant_id="ten_acme"), id="key of another tenant's user"),
        pytest.param(identity.RevokeKey("key_other", T0_MS, tenant_id="ten_acme"), id="another tenant's key"),
        pytest.param(identity.RevokeKey("key_other", T0_MS, user_id="usr_acme"), id="another user's key"),
        pytest.param(identity.SetUser("usr_other", is_disabled=True, tenant_id="ten_acme"), id="another tenant's user"),
    ],
)
def test_what_is_not_there_or_somebody_elses_is_missing(world: World, command: Any) -> None:
    world.tenant("acme")
    world.tenant("other")
    world.run(key("key_other", "usr_other"))
    with pytest.raises(NotFoundError):
        world.run(command)
    assert world.read(identity.PrincipalByKey("key_other")).is_disabled is False


def test_principal_says_whom_a_key_speaks_for_and_what_may_end_it(world: World) -> None:
    world.tenant("acme")
    world.run(key("key_1", "usr_acme", scopes=("jobs:read",), expires_at_ms=T0_MS + 5))
    assert world.read(identity.PrincipalByKey("key_1")) == identity.Principal(
        "key_1", SHA, "usr_acme", "acme", "member", "ten_acme", "acme", ("jobs:read",), None, T0_MS + 5, False, False
    )
    assert world.read(identity.PrincipalByKey("key_2")) is None


def test_revoked_key_disabled_user_and_suspended_tenant_show_in_the_principal(world: World) -> None:
    world.tenant("acme")
    for name in ("key_1", "key_2"):
        world.run(key(name, "usr_acme"))
    world.run(identity.RevokeKey("key_1", T0_MS + 1))
    world.run(identity.RevokeKey("key_1", T0_MS + 9))
    assert [item.revoked_at_ms for item in world.read(identity.Keys(user_id="usr_acme"))] == [T0_MS + 1, None]
    assert [world.read(identity.PrincipalByKey(name)).is_disabled for name in ("key_1", "key_2")] == [True, False]
    world.run(identity.SetUser("usr_acme", is_disabled=True))
    world.run(identity.SetTenant("acme", None, True, T0_MS))
    principal = world.read(identity.PrincipalByKey("key_2"))
    assert (principal.is_disabled, principal.is_suspended) == (True, True)


def test_nodes_of_one_agent_share_a_user_and_each_key_speaks_for_its_node(world: World) -> None:
    world.node("a")
    for number in (1, 2):
        world.run(identity.CreateNodeKey(f"key_{number}", f"usr_{number}", "agent", SHA, "a", None, T0_MS))
    principals = [world.read(identity.PrincipalByKey(f"key_{number}")) for number in (1, 2)]
    assert [(item.user_id, item.role, item.node) for item in principals] == [("usr_1", "node", "a")] * 2


def test_first_operator_is_made_once(world: World) -> None:
    assert world.read(identity.HasOperator(T0_MS)) is False
    assert world.run(identity.CreateFirstOperator("usr_1", "operator", "key_1", SHA, T0_MS)) is True
    assert world.run(identity.CreateFirstOperator("usr_2", "operator", "key_2", SHA, T0_MS)) is False
    assert [user.id for user in world.read(identity.Users())] == ["usr_1"]
    assert world.read(identity.HasOperator(T0_MS)) is True


def test_listings_are_pages_in_a_stated_order(world: World) -> None:
    for name in ("b-2", "a", "b-10"):
        world.tenant(name, gpus=None)
    assert [tenant.name for tenant in world.read(identity.Tenants())] == ["a", "b-10", "b-2"]
    assert [tenant.name for tenant in world.read(identity.Tenants(after="a", limit=1))] == ["b-10"]
    assert [user.id for user in world.read(identity.Users(after="usr_a", tenant="b-2"))] == ["usr_b-2"]
    assert [user.id for user in world.read(identity.Users(tenant_id="ten_a"))] == ["usr_a"]
