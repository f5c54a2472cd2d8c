"""`terrace ops quota`, `cohort`, `reservation`, `maintenance` and `policy`: what they print and send, and what they refuse themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client import terminal
from tests.client.command import Terrace
from tests.client.service import NODE, Service
from tests.client.test_output_forms import QUEUES


@pytest.fixture
def acme(operator: Terrace, service: Service) -> Terrace:
    """The operator, with a fleet of 8, and two tenants of whom one borrows."""
    service.add_node()
    service.operator.create_cohort("research", parent="fleet")
    key = service.member("acme", gpus=2)
    service.member("globex", gpus=4)
    for tenant in ("acme", "globex"):
        service.operator.set_tenant(tenant, parent="research")
    operator.speak_for(service.url, key).ok("submit", "--no-workdir", "--gpus", "3", "--", "true")
    service.step()
    return operator.speak_for(service.url, service.operator_key)


TREE = """\
NODE          KIND    WEIGHT  SHARE  RESOURCE  NOMINAL  MAY BORROW  MAY LEND  HELD
fleet         cohort       1      -  h200            -           -         -     3
`- research   cohort       1  0.000  h200            -           -         -     3
   |- acme    tenant       1  0.167  cpu           0.5           -         0     0
   |                                 h200            2           -         -     3
   `- globex  tenant       1  0.000  h200            4           -         -     0
"""


def test_tree_is_drawn_in_plain_characters_in_a_pipe(acme: Terrace, service: Service) -> None:
    service.operator.set_quota("acme", "cpu", nominal=500, lending_limit=0)
    assert acme.ok("ops", "quota", "tree").out == TREE


def test_tree_is_drawn_with_lines_on_a_terminal(acme: Terrace, service: Service, tmp_path: Path) -> None:
    keys = {"TERRACE_URL": service.url, "TERRACE_API_KEY": service.operator_key, "TERRACE_CONFIG": str(tmp_path / "c.toml")}
    env = terminal.environment(**keys, NO_COLOR="1", PYTHONIOENCODING="utf-8")
    with terminal.on_terminal("ops", "quota", "tree", cwd=tmp_path, env=env) as shell:
        assert shell.end() == 0
        drawn = [line.strip().split("  ")[0] for line in shell.shown.splitlines() if "tenant" in line or "cohort" in line]
    assert drawn == ["fleet", "└─ research", "├─ acme", "└─ globex"]


def test_node_is_shown_with_rules_and_what_it_may_still_hold(acme: Terrace) -> None:
    acme.ok("ops", "quota", "set", "acme", "--reclaim", "any", "--user-cap", "2.5", "--within-tenant", "lower_priority")
    lines = acme.ok("ops", "quota", "get", "acme").lines
    assert lines[0] == "tenant acme: weight 1, share 0.167"
    assert {"  reclaim_within_cohort: any", "  within_tenant: lower_priority", "  user_cap: 2.500 GPUs"} <= set(lines)
    assert lines[-1].split() == ["h200", "2", "-", "-", "2", "3", "1", "3"]
    assert "user_cap: none" in acme.ok("ops", "quota", "set", "acme", "--user-cap", "none").out


def test_cohort_is_made_moved_given_quota_and_taken_away(operator: Terrace) -> None:
    assert (
        operator.ok("ops", "cohort", "create", "vision", "--parent", "fleet", "--weight", "2").out
        == "cohort vision below fleet, weight 2\n"
    )
    assert operator.ok("ops", "cohort", "set", "vision", "--root").out == "cohort vision, weight 2\n"
    quota = operator.ok("ops", "quota", "set", "vision", "h200", "3", "--cohort", "--until", "2099-01-01").lines
    assert quota[0] == "cohort vision owns 3 h200, for all below it."
    assert operator.ok("ops", "quota", "get", "vision", "--cohort").lines[0] == "cohort vision: weight 2, share -"
    assert operator.ok("ops", "cohort", "list").lines[2].split() == ["vision", "-", "2"]
    assert operator.ok("ops", "cohort", "delete", "vision").out == "cohort vision is gone.\n"


def test_import_shows_its_plan_and_then_does_it(operator: Terrace, service: Service) -> None:
    service.member("acme", gpus=4)
    Path("queues").mkdir()
    Path("queues/acme.yaml").write_text(QUEUES)
    plan = operator.ok("ops", "quota", "import", "queues", "--dry-run").lines
    assert plan == ["would change quota acme of h200: nominal 5 (was nominal 4)"]
    assert operator.ok("ops", "quota", "import", "queues").lines == ["changed quota acme of h200: nominal 5 (was nominal 4)"]
    assert operator.ok("ops", "quota", "import", "queues/acme.yaml").lines == ["nothing to change"]
    renamed = QUEUES.replace("h200", "hopper").replace("acme", "newcomer").replace("namespaceSelector: {}", "queueingStrategy: StrictFIFO")
    Path("queues/new.yml").write_text(renamed)
    lines = operator.ok("ops", "quota", "import", "queues", "--model", "hopper=h200").lines
    assert lines[:2] == [
        "made tenant newcomer: parent none, weight_milli 1",
        "made quota newcomer of h200: nominal 5, borrowing_limit none, lending_limit none",
    ]
    assert any(line.startswith("left out: queues/new.yml: document 1 (ClusterQueue newcomer): spec.queueingStrategy: ") for line in lines)


def test_reservation_is_at_local_times_of_its_zone(operator: Terrace, service: Service) -> None:
    service.add_node()
    service.member("acme")
    span = (
        "--from",
        "2099-01-05T20:00",
        "--to",
        "2099-01-05T22:00",
        "--every",
        "7",
        "--until",
        "2099-06-01",
        "--time-zone",
        "Asia/Ho_Chi_Minh",
    )
    made = operator.ok("ops", "reservation", "create", "course", "--tenant", "acme", "--flavor", "h200", "--gpus", "2", *span)
    assert made.lines[1].split()[:8] == ["course", "acme", "h200", "2", "2099-01-05", "13:00:00", "2099-01-05", "15:00:00"]
    assert "every 7 days until 2099-05-31 17:00:00, Asia/Ho_Chi_Minh" in made.lines[1]
    own = operator.speak_for(service.url, service.operator.create_key(user_id=service.operator.user("ada", tenant="acme").id).secret)
    assert own.ok("-q", "ops", "reservation", "list").lines == ["course"]
    assert own("ops", "reservation", "cancel", "course").code == 3
    assert own("ops", "maintenance", "list").code == 3


def test_maintenance_is_made_and_cancelled(operator: Terrace, service: Service) -> None:
    service.add_node()
    operator.ok("ops", "maintenance", "create", "firmware", "--node", NODE, "--from", "2099-01-05", "--to", "2099-01-06")
    assert operator.ok("ops", "maintenance", "list").lines[1].split() == [
        "firmware", NODE, "2099-01-05", "00:00:00", "2099-01-06", "00:00:00", "once", "set",
    ]  # fmt: skip
    operator.ok("ops", "maintenance", "cancel", "firmware")
    assert operator.ok("-q", "ops", "maintenance", "list").lines == []
    assert operator.ok("-q", "ops", "maintenance", "list", "--past").lines == ["firmware"]


def test_policy_is_typed_in_durations_and_says_who_chose(operator: Terrace) -> None:
    operator.ok("ops", "policy", "set", "--no-fair-sharing", "--half-life", "0", "--min-runtime", "10m", "--preemptions-per-hour", "3")
    shown = {line.split()[0]: line.split()[1:] for line in operator.ok("ops", "policy", "get").lines[1:]}
    assert (shown["fair_sharing"], shown["fair_share_half_life_ms"]) == (["no", "operator"], ["0s", "operator"])
    assert (shown["min_runtime_ms"], shown["preemptions_per_hour"]) == (["10m", "operator"], ["3", "operator"])
    assert shown["backfill_depth"] == ["100", "default"]
    chosen = operator.ok("-q", "ops", "policy", "set", "--default", "fair_sharing", "--default", "preemptions_per_hour").lines
    assert chosen == ["fair_share_half_life_ms", "min_runtime_ms"]


def test_labels_taints_and_racks_are_set_and_taken_away(operator: Terrace, service: Service) -> None:
    service.add_node()
    operator.ok("ops", "node", "set", NODE, "--label", "zone=a", "--label", "old=1", "--taint", "big", "--rack", "r2")
    node = service.operator.node(NODE)
    assert (node.labels, node.taints, node.rack) == ({"old": "1", "zone": "a"}, ["big"], "r2")
    operator.ok("ops", "node", "set", NODE, "--unlabel", "old", "--no-taints", "--no-rack")
    node = service.operator.node(NODE)
    assert (node.labels, node.taints, node.rack) == ({"zone": "a"}, [], None)


WINDOW = ["--from", "1h", "--to", "2h"]
RESERVE = ["ops", "reservation", "create", "r", "--tenant", "acme", "--flavor", "h200", "--gpus", "1"]
REFUSED = {
    "a tenant in two places": (["ops", "tenant", "set", "acme", "--cohort", "fleet", "--no-cohort"], 2, "invalid_input: no-cohort: "),
    "nothing to set": (["ops", "quota", "set", "acme"], 2, "invalid_input: resource: nothing to change"),
    "amounts and rules at once": (["ops", "quota", "set", "acme", "h200", "1", "--reclaim", "any"], 2, "invalid_input: resource: "),
    "rules of a cohort": (["ops", "quota", "set", "fleet", "--cohort", "--reclaim", "any"], 2, "invalid_input: cohort: "),
    "a project of a cohort": (["ops", "quota", "get", "fleet", "--cohort", "--project", "p"], 2, "invalid_input: project: "),
    "a rule that is none": (["ops", "quota", "set", "acme", "--reclaim", "all"], 2, "usage: Invalid value for '--reclaim'"),
    "a cohort that is not there": (["ops", "quota", "get", "no", "--cohort"], 4, "cohort_not_found: "),
    "a cohort below itself": (["ops", "cohort", "set", "fleet", "--parent", "fleet"], 2, "cohort_ring: parent: "),
    "files that are not there": (["ops", "quota", "import", "no.yaml"], 2, "invalid_input: path: no.yaml cannot be read"),
    "a directory without manifests": (["ops", "quota", "import", "."], 2, "invalid_input: path: "),
    "a model that names nothing": (["ops", "quota", "import", ".", "--model", "x"], 2, "invalid_input: model: "),
    "a window without an end": ([*RESERVE, "--from", "1h"], 2, "invalid_input: to: "),
    "a repetition without an end": ([*RESERVE, *WINDOW, "--every", "7"], 2, "invalid_input: every: "),
    "a zone that is none": ([*RESERVE, *WINDOW, "--time-zone", "Moon/Base"], 2, "invalid_input: time-zone: "),
    "more than the fleet": ([*RESERVE, *WINDOW], 3, "over_capacity: gpus: "),
    "a policy of nothing": (["ops", "policy", "set"], 2, "invalid_input: default: nothing to change"),
    "a default of no field": (["ops", "policy", "set", "--default", "speed"], 2, "invalid_input: default: "),
    "taints and none": (["ops", "node", "set", "n", "--taint", "t", "--no-taints"], 2, "invalid_input: no-taints: "),
}


@pytest.mark.parametrize(("arguments", "code", "start"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_with_its_code(operator: Terrace, service: Service, arguments: list[str], code: int, start: str) -> None:
    service.member()
    ended = operator(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"terrace: {start}")
    assert len(ended.err.splitlines()) == 1
