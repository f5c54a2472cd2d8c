"""`terrace ops`: what operators make, change and list, and what is refused before anything changes."""

from __future__ import annotations

import pytest

import terrace
from tests.client.command import Terrace
from tests.client.service import NODE, Service


def test_a_startup_is_made_and_its_engineer_can_work(operator: Terrace, service: Service) -> None:
    assert operator.ok("ops", "tenant", "create", "acme").out == "tenant acme: active, weight 1\n"
    assert operator.ok("ops", "quota", "set", "acme", "h200", "4").lines[0] == "acme may hold 4 h200 at once."
    user = operator.ok("ops", "user", "create", "ada", "--tenant", "acme", "--role", "member").out
    assert user.startswith("user ada of acme: member, usr_")
    key = operator.ok("-q", "ops", "key", "create", "ada", "--tenant", "acme").out.strip()
    assert terrace.Client(service.url, key).me().tenant == "acme"


def test_a_new_key_is_shown_once_with_what_it_is(operator: Terrace, service: Service) -> None:
    service.member()
    lines = operator.ok("ops", "key", "create", "ada", "--tenant", "acme", "--expires", "90d", "--name", "laptop").lines
    assert lines[0].startswith("key key_")
    assert "valid until 20" in lines[0]
    assert lines[1] == "This is the only time that its secret is shown:"
    assert terrace.Client(service.url, lines[2]).me().user == "ada"
    assert lines[2] not in operator.ok("ops", "key", "list").out


def test_a_tenant_is_changed_in_what_is_named_only(operator: Terrace, service: Service) -> None:
    key = service.member()
    assert operator.ok("ops", "tenant", "set", "acme", "--weight", "2.5").out == "tenant acme: active, weight 2.500\n"
    assert operator.ok("ops", "tenant", "set", "acme", "--suspend").out == "tenant acme: suspended, weight 2.500\n"
    with pytest.raises(terrace.ApiError) as refused:
        terrace.Client(service.url, key).me()
    assert refused.value.code == "tenant_suspended"
    operator.ok("ops", "tenant", "set", "acme", "--resume")
    assert terrace.Client(service.url, key).me().user == "ada"


def test_tenants_may_stand_in_a_cohort_and_be_listed(operator: Terrace) -> None:
    operator.ok("ops", "tenant", "create", "acme", "--cohort", "fleet", "--weight", "3")
    assert operator.ok("ops", "tenant", "list").lines[1].split()[:4] == ["acme", "fleet", "3", "no"]


def test_projects_are_made_and_listed(operator: Terrace, service: Service) -> None:
    service.member()
    assert operator.ok("ops", "project", "create", "acme", "vision").out == "project vision of acme\n"
    assert operator.ok("-q", "ops", "project", "list", "acme").lines == ["default", "vision"]


def test_users_are_found_by_name_and_tenant(operator: Terrace, service: Service) -> None:
    service.member()
    service.member("borealis")
    operator.ok("ops", "user", "create", "ada", "--role", "finance")
    assert [line.split()[2:4] for line in operator.ok("ops", "user", "list", "--name", "ada").lines[1:]] == [
        ["acme", "member"],
        ["borealis", "member"],
        ["-", "finance"],
    ]
    assert len(operator.ok("-q", "ops", "user", "list", "--tenant", "acme").lines) == 1
    owner = operator.ok("--format", "json", "ops", "key", "create", "ada").json["user_id"]
    assert owner == next(user.id for user in service.operator.users(name="ada") if user.tenant is None)


def test_a_user_who_is_not_there_is_not_found(operator: Terrace, service: Service) -> None:
    service.member()
    ended = operator("ops", "key", "create", "eve", "--tenant", "acme")
    assert (ended.code, ended.err) == (4, "terrace: user_not_found: there is no user 'eve' in tenant 'acme'\n")


def test_a_disabled_users_keys_do_not_work_until_it_is_enabled(operator: Terrace, service: Service) -> None:
    client = terrace.Client(service.url, service.member())
    assert ", disabled, " in operator.ok("ops", "user", "set", "ada", "--tenant", "acme", "--disable").out
    with pytest.raises(terrace.ApiError):
        client.me()
    operator.ok("ops", "user", "set", "ada", "--tenant", "acme", "--enable")
    assert client.me().user == "ada"


def test_a_revoked_key_does_not_work(operator: Terrace, service: Service) -> None:
    key = service.member()
    key_id = key.partition(".")[0]
    assert operator.ok("ops", "key", "revoke", key_id).out.startswith(f"key {key_id}: revoked 20")
    assert operator.speak_for(service.url, key)("whoami").code == 6


def test_quotas_are_typed_in_the_units_of_people(operator: Terrace, service: Service) -> None:
    service.operator.create_tenant("acme", parent="fleet")
    set_quota = ("--format", "json", "ops", "quota", "set", "acme")
    gpu = operator.ok(*set_quota, "h200", "2.5", "--borrow", "1", "--lend", "0.5").json
    assert (gpu["nominal"], gpu["borrowing_limit"], gpu["lending_limit"]) == (2_500, 1_000, 500)
    assert operator.ok(*set_quota, "cpu", "64").json["nominal"] == 64_000
    assert operator.ok(*set_quota, "memory", "512GiB").json["nominal"] == 512 << 30
    dated = operator.ok(*set_quota, "h200", "9", "--from", "2030-01-01", "--until", "2030-02-01").json
    assert (dated["valid_from"][:19], dated["valid_until"][:19]) == ("2030-01-01T00:00:00", "2030-02-01T00:00:00")
    assert operator.ok("ops", "quota", "list", "--tenant", "acme").lines[2].split() == ["acme", "-", "h200", "0", "2.500", "0", "1"]


def test_a_quota_above_the_fleet_is_set_with_a_warning(operator: Terrace, service: Service) -> None:
    service.add_node(gpus=2)
    service.operator.create_tenant("acme")
    lines = operator.ok("ops", "quota", "set", "acme", "h200", "3").lines
    assert lines == [
        "acme may hold 3 h200 at once.",
        "  warning: nominal quotas of h200 add up to 3000 milli-GPU, the fleet has 2000",
    ]


def test_a_node_is_switched_and_shown(operator: Terrace, service: Service) -> None:
    service.add_node(gpus=2)
    assert operator.ok("ops", "node", "set", NODE, "--cordon").lines[0] == f"node {NODE} at hanoi: cordoned, 0 of 2 GPUs leased"
    assert operator.ok("ops", "node", "set", NODE, "--drain").lines[0].startswith(f"node {NODE} at hanoi: draining")
    assert operator.ok("ops", "node", "set", NODE, "--undrain").lines[0].startswith(f"node {NODE} at hanoi: ready")
    devices = [line.split() for line in operator.ok("ops", "node", "show", NODE).lines[2:]]
    assert devices == [[str(index), f"GPU-{index}", "h200", "whole", "healthy", "-"] for index in range(2)]
    assert operator.ok("ops", "node", "list").lines[1].split()[:7] == [NODE, "hanoi", "-", "ready", "h200", "(simulated)", "2"]


def test_a_node_is_made_with_a_key_for_its_agent(operator: Terrace, service: Service) -> None:
    assert operator.ok("-q", "ops", "node", "create", "n1", "--site", "hue", "--rack", "r2").out == "n1\n"
    key = operator.ok("--format", "json", "ops", "key", "create", "--node", "n1").json
    assert key["node"] == "n1"
    assert terrace.Client(service.url, key["secret"]).me().role == "node"


def test_prices_are_typed_as_money_and_kept_exactly(operator: Terrace) -> None:
    made = operator.ok("--format", "json", "ops", "price", "set", "h200", "3.500001", "--from", "2030-01-01").json
    assert (made["units_per_hour"], made["currency"], made["valid_from"][:19]) == (3_500_001, "USD", "2030-01-01T00:00:00")
    assert operator.ok("ops", "price", "set", "h200", "90000.5", "--currency", "VND").out.startswith(
        "h200: 90000.50 VND per slice and hour"
    )
    assert len(operator.ok("-q", "ops", "price", "list").lines) == 6


REFUSED = {
    "a tenant that is there": (["ops", "tenant", "create", "acme"], 3, "tenant_exists: "),
    "a name that cannot be": (["ops", "tenant", "create", "A_B"], 2, "invalid_input: name: "),
    "a quota of nobody": (["ops", "quota", "set", "absent", "h200", "1"], 4, "tenant_not_found: "),
    "an unknown resource": (["ops", "quota", "set", "acme", "tpu", "1"], 2, "unknown_resource: resource: "),
    "a quota finer than a thousandth": (["ops", "quota", "set", "acme", "h200", "0.0001"], 2, "invalid_input: amount: "),
    "memory without a unit": (["ops", "quota", "set", "acme", "memory", "64"], 2, "invalid_input: amount: "),
    "a negative quota": (["ops", "quota", "set", "acme", "h200", "--", "-1"], 2, "invalid_input: amount: "),
    "a member without a tenant": (["ops", "user", "create", "x", "--role", "member"], 2, "role_does_not_fit: "),
    "a role that is none": (["ops", "user", "create", "x", "--role", "king"], 2, "usage: Invalid value for '--role'"),
    "a key for a user and a node": (["ops", "key", "create", "ada", "--node", "n"], 2, "invalid_input: node: "),
    "a key that has expired": (["ops", "key", "create", "--expires", "2020-01-01"], 2, "expires_in_past: expires_at: "),
    "a scope that is none": (["ops", "key", "create", "--scope", "all"], 2, "unknown_scope: scopes[0]: "),
    "nothing to change on a node": (["ops", "node", "set", "n"], 2, "invalid_input: cordon: nothing to change"),
    "nothing to change on a tenant": (["ops", "tenant", "set", "acme"], 2, "invalid_input: weight: nothing to change"),
    "nothing to change on a user": (["ops", "user", "set", "ada"], 2, "invalid_input: disable: nothing to change"),
    "a node that is not there": (["ops", "node", "show", "absent"], 4, "node_not_found: "),
    "a price in another currency": (["ops", "price", "set", "h200", "1", "--currency", "EUR"], 2, "invalid_input: currency: "),
    "a price finer than the unit": (["ops", "price", "set", "h200", "0.0000001"], 2, "invalid_input: amount: "),
}


@pytest.mark.parametrize(("arguments", "code", "start"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_with_its_code(operator: Terrace, service: Service, arguments: list[str], code: int, start: str) -> None:
    service.member()
    ended = operator(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"terrace: {start}")
    assert len(ended.err.splitlines()) == 1


def test_a_member_may_not_operate(ada: Terrace) -> None:
    ended = ada("ops", "quota", "set", "acme", "h200", "99")
    assert (ended.code, ended.err.split(":")[1].strip()) == (3, "permission_missing")
