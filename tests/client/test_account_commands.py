"""`login`, `logout`, `whoami`, `quota`, `usage` and `flavors`."""

from __future__ import annotations

import csv
import io
import stat

import pytest

from terrace import units
from tests.client.command import Terrace
from tests.client.service import Service


@pytest.fixture
def used(ada: Terrace, service: Service) -> Terrace:
    """A member whose tenant has used two GPUs for a moment, in two jobs."""
    service.add_node()
    with service.machines():
        for name in ("a", "b"):
            job_id = ada.ok("-q", "submit", "--no-workdir", "--name", name, "--", "true").out.strip()
            ada.ok("wait", job_id)
    service.step()
    return ada


def test_login_keeps_a_key_that_works_for_its_owner_only(terrace_command: Terrace, service: Service) -> None:
    ended = terrace_command.ok("login", "--url", service.url, typed=f"{service.member()}\n")
    assert ended.out == f"ada of acme (member) at {service.url}, service 0.0-test\n"
    assert stat.S_IMODE(terrace_command.config.stat().st_mode) == 0o600
    assert terrace_command.ok("--format", "json", "whoami").json["user"] == "ada"


def test_login_never_shows_the_key(terrace_command: Terrace, service: Service) -> None:
    key = service.member()
    for form in ("table", "json", "quiet"):
        ended = terrace_command.ok("login", "--format", form, "--url", service.url, typed=key)
        assert key not in ended.out + ended.err


@pytest.mark.parametrize(
    ("typed", "code", "line"),
    [
        ("key_wrong.secret\n", 6, "unauthenticated: "),
        ("\n", 2, "invalid_input: key: is empty"),
        ("", 2, "invalid_input: key: is empty"),
        ("two words\n", 2, "invalid_config: key: must be one line"),
    ],
)
def test_login_with_a_key_that_is_refused_leaves_the_old_one(
    terrace_command: Terrace, service: Service, typed: str, code: int, line: str
) -> None:
    terrace_command.ok("login", "--url", service.url, typed=service.member())
    before = terrace_command.config.read_text()
    ended = terrace_command("login", "--url", service.url, typed=typed)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"terrace: {line}")
    assert terrace_command.config.read_text() == before


def test_login_notes_that_the_environment_wins(operator: Terrace, service: Service) -> None:
    ended = operator.ok("login", typed=service.operator_key)
    assert ended.err.splitlines() == [
        "terrace: note: TERRACE_API_KEY is set and wins over this login; unset it",
        "terrace: note: TERRACE_URL is set and wins over this login; unset it",
    ]


def test_after_logout_nobody_is_logged_in(terrace_command: Terrace, service: Service) -> None:
    terrace_command.ok("login", "--url", service.url, typed=service.member())
    assert terrace_command.ok("logout").out == f"Logged out: {terrace_command.config} is gone.\n"
    terrace_command.ok("logout")
    assert terrace_command("whoami", "--url", service.url).code == 6


def test_whoami_names_narrowed_scopes(terrace_command: Terrace, service: Service) -> None:
    user = service.operator.create_user("zoe", role="finance")
    key = service.operator.create_key(user_id=user.id, scopes=["usage:read"]).secret
    ended = terrace_command.speak_for(service.url, key).ok("whoami")
    assert ended.out == f"zoe (finance, scopes usage:read) at {service.url}, service 0.0-test\n"


def test_quota_shows_what_is_held_and_queued_in_the_units_of_people(ada: Terrace, service: Service) -> None:
    service.operator.set_quota("acme", "memory", nominal=64 << 30)
    service.operator.set_quota("acme", "cpu", nominal=1_500)
    ada.ok("submit", "--no-workdir", "--gpus", "3", "--", "true")
    assert ada.ok("quota").lines == [
        "TENANT  PROJECT  RESOURCE  HELD   QUOTA  QUEUED  MAY BORROW",
        "acme    -        cpu          0     1.5       0  -",
        "acme    -        h200         0       4       3  -",
        "acme    -        memory     0 B  64 GiB     0 B  -",
    ]
    assert ada.ok("-q", "quota").lines == ["cpu", "h200", "memory"]


def test_an_operator_may_ask_for_one_tenants_quota(operator: Terrace, service: Service) -> None:
    service.member()
    service.member("borealis", user="binh")
    assert [row["tenant"] for row in operator.ok("quota", "--tenant", "acme", "--format", "json").json] == ["acme"]
    assert operator("quota", "--tenant", "absent").code == 4


def test_usage_adds_up_and_says_so(used: Terrace) -> None:
    report = used.ok("usage", "--format", "json").json
    lines = used.ok("usage").lines
    time, money = units.gpu_time(report["total_milli_gpu_ms"]), units.money(report["total_amount_units"], "USD")
    assert lines[0].startswith("Usage of ended leases from ")
    assert lines[1].split() == ["TENANT", "PROJECT", "FLAVOR", "LEASES", "GPU", "TIME", "USD"]
    assert lines[2].split() == ["acme", "default", "h200", "2", time, money]
    assert lines[3].split() == ["total", "2", time, money]
    assert lines[4] == f"Check: 2 leases: {time}, {units.price(report['total_amount_units'], 'USD')}; " + (
        f"lines: {time}, {units.price(report['total_amount_units'], 'USD')}: equal."
    )
    assert used.ok("-q", "usage").out == f"{report['total_amount_units']}\n"


def test_usage_is_grouped_as_asked(used: Terrace, service: Service) -> None:
    rows = used.ok("usage", "--by", "user,job", "--format", "json").json["rows"]
    jobs = set(used.ok("-q", "jobs").lines)
    assert {(row["user"], row["job_id"], row["project"]) for row in rows} == {("ada", job, None) for job in jobs}
    assert used.ok("usage", "--by", "job").lines[1].split() == ["JOB", "LEASES", "GPU", "TIME", "USD"]
    assert len(used.ok("usage", "--by", "").lines) == 4


def test_usage_as_csv_is_the_services_own(used: Terrace) -> None:
    report = used.ok("usage", "--by", "project,job", "--format", "json").json
    rows = list(csv.DictReader(io.StringIO(used.ok("usage", "--by", "project,job", "--format", "csv").out)))
    assert sorted(int(row["amount_units"]) for row in rows) == sorted(row["amount_units"] for row in report["rows"])
    assert [row["amount"] for row in rows] == [units.money(int(row["amount_units"]), "USD") for row in rows]


def test_usage_covers_the_window_that_was_asked_for(used: Terrace) -> None:
    report = used.ok("usage", "--from", "2026-01-01", "--to", "2026-01-02T00:30+01:00", "--format", "json").json
    assert (report["start"][:19], report["end"][:19], report["rows"]) == ("2026-01-01T00:00:00", "2026-01-01T23:30:00", [])
    assert used.ok("usage", "--from", "1h", "--format", "json").json["check"]["leases"] == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--from", "soon"], "invalid_input: from: 'soon' is neither a moment"),
        (["--from", "2026-02-01", "--to", "2026-01-01"], "empty_window: from: "),
        (["--by", "colour"], "invalid_groups: by: colour is not one of tenant, project, user, flavor, job"),
        (["--from", "2020-01-01"], "window_too_long: from: "),
    ],
)
def test_a_report_that_cannot_be_is_refused(ada: Terrace, arguments: list[str], line: str) -> None:
    ended = ada("usage", *arguments)
    assert ended.code == 2
    assert ended.err.startswith(f"terrace: {line}")


def test_what_is_not_real_is_labelled_wherever_it_shows(used: Terrace) -> None:
    flavors = {line.split()[0]: line for line in used.ok("flavors").lines[1:]}
    assert {name for name, line in flavors.items() if "(simulated)" in line} == {"h200"}
    assert [line.split()[2:4] for line in used.ok("quota").lines[1:]] == [["h200", "(simulated)"]]
    assert used.ok("usage").lines[0].endswith(" (simulated)")


def test_flavors_are_listed_with_their_price(ada: Terrace) -> None:
    lines = ada.ok("flavors").lines
    assert lines[0].split() == ["FLAVOR", "GPU", "MODEL", "MODE", "GPUS", "PRICE", "PER", "HOUR"]
    assert "h200    h200       whole     1        3.50 USD" in lines
    assert ada.ok("-q", "flavors").lines == ["a100", "h100", "h200", "l40s"]
