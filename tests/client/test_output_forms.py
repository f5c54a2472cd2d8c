"""Every command prints in three forms: a table for people, one JSON document that its wire model reads, and only what a script needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from executors.fake import Script
from terrace.cli import reference
from terrace.models.fleet import FlavorAnswer, NodeAnswer, PriceAnswer, QuotaAnswer
from terrace.models.jobs import EstimateAnswer, EventAnswer, JobAnswer, JobDetail, LogPiece
from terrace.models.people import Identity, KeyAnswer, KeyCreated, ProjectAnswer, TenantAnswer, UserAnswer
from terrace.models.scheduling import (
    CohortAnswer,
    MaintenanceAnswer,
    PolicyAnswer,
    QuotaImportAnswer,
    QuotaNodeAnswer,
    QuotaTreeAnswer,
    ReservationAnswer,
)
from terrace.models.usage import UsageReport
from tests.client.command import Ended, Terrace
from tests.client.service import NODE, Service
from tests.support.statements import change

# Command -> (who types it, its arguments, what it prints as JSON). JOB is a job that has ended, KEY an operator's second key.
COMMANDS: dict[str, tuple[str, list[str], Any]] = {
    "submit": ("ada", ["--no-workdir", "--", "true"], JobAnswer),
    "jobs": ("ada", [], list[JobAnswer]),
    "job": ("ada", ["JOB"], JobDetail),
    "why": ("ada", ["JOB"], JobDetail),
    "logs": ("ada", ["JOB"], LogPiece),
    "wait": ("ada", ["JOB"], list[JobDetail]),
    "cancel": ("ada", ["JOB"], list[JobAnswer]),
    "estimate": ("ada", ["--", "true"], EstimateAnswer),
    "events": ("ada", ["JOB", "--limit", "1"], EventAnswer),
    "login": ("ada", [], Identity),
    "logout": ("ada", [], dict[str, str]),
    "whoami": ("ada", [], Identity),
    "quota": ("ada", [], list[QuotaAnswer]),
    "usage": ("ada", [], UsageReport),
    "flavors": ("ada", [], list[FlavorAnswer]),
    "ops tenant create": ("operator", ["t1"], TenantAnswer),
    "ops tenant set": ("operator", ["acme", "--weight", "2"], TenantAnswer),
    "ops tenant list": ("operator", [], list[TenantAnswer]),
    "ops project create": ("operator", ["acme", "p1"], ProjectAnswer),
    "ops project list": ("operator", ["acme"], list[ProjectAnswer]),
    "ops user create": ("operator", ["u1", "--role", "finance"], UserAnswer),
    "ops user set": ("operator", ["ada", "--tenant", "acme", "--enable"], UserAnswer),
    "ops user list": ("operator", [], list[UserAnswer]),
    "ops key create": ("operator", ["ada", "--tenant", "acme"], KeyCreated),
    "ops key list": ("operator", [], list[KeyAnswer]),
    "ops key revoke": ("operator", ["KEY"], KeyAnswer),
    "ops quota set": ("operator", ["acme", "h200", "4"], QuotaAnswer),
    "ops quota get": ("operator", ["acme"], QuotaNodeAnswer),
    "ops quota list": ("operator", [], list[QuotaAnswer]),
    "ops quota tree": ("operator", [], QuotaTreeAnswer),
    "ops quota import": ("operator", ["queues.yaml", "--dry-run"], QuotaImportAnswer),
    "ops cohort create": ("operator", ["c1"], CohortAnswer),
    "ops cohort set": ("operator", ["fleet", "--weight", "2"], CohortAnswer),
    "ops cohort delete": ("operator", ["c1"], CohortAnswer),
    "ops cohort list": ("operator", [], list[CohortAnswer]),
    "ops reservation create": (
        "operator",
        ["r1", "--tenant", "acme", "--flavor", "h200", "--gpus", "1", "--from", "1h", "--to", "2h"],
        ReservationAnswer,
    ),
    "ops reservation cancel": ("operator", ["r1"], ReservationAnswer),
    "ops reservation list": ("operator", [], list[ReservationAnswer]),
    "ops maintenance create": ("operator", ["m1", "--node", NODE, "--from", "1h", "--to", "2h"], MaintenanceAnswer),
    "ops maintenance cancel": ("operator", ["m1"], MaintenanceAnswer),
    "ops maintenance list": ("operator", [], list[MaintenanceAnswer]),
    "ops policy get": ("operator", [], PolicyAnswer),
    "ops policy set": ("operator", ["--min-runtime", "10m"], PolicyAnswer),
    "ops node create": ("operator", ["n1"], NodeAnswer),
    "ops node set": ("operator", [NODE, "--uncordon"], NodeAnswer),
    "ops node gone": ("operator", ["lost"], NodeAnswer),
    "ops node show": ("operator", [NODE], NodeAnswer),
    "ops node list": ("operator", [], list[NodeAnswer]),
    "ops price set": ("operator", ["h200", "3"], PriceAnswer),
    "ops price list": ("operator", [], list[PriceAnswer]),
}


def test_no_command_is_missing_here() -> None:
    assert [path.removeprefix("terrace ") for path, _ in reference.commands()] == list(COMMANDS)


QUEUES = """apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: acme}
spec:
  namespaceSelector: {}
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors: [{name: h200, resources: [{name: nvidia.com/gpu, nominalQuota: 5}]}]
"""


class People:
    """A service with an ended job, its engineer and its operator."""

    def __init__(self, service: Service, command: Terrace) -> None:
        self.service, self.command = service, command
        self.keys = {"ada": service.member(), "operator": service.operator_key}
        service.add_node()
        with service.machines() as machines:
            machines.output, machines.script = b"hello\n", Script(duration_ms=50)
            command.speak_for(service.url, self.keys["ada"])
            self.job = command.ok("-q", "submit", "--no-workdir", "--", "true").out.strip()
            command.ok("wait", self.job)
        service.step()
        self.key = service.operator.create_key().id
        service.operator.create_node("lost")
        change(service.store, "UPDATE node SET is_lost = 1 WHERE name = 'lost'")
        Path("queues.yaml").write_text(QUEUES)

    def run(self, name: str, form: str) -> Ended:
        who, arguments, _ = COMMANDS[name]
        self.command.speak_for(self.service.url, self.keys[who])
        filled = [{"JOB": self.job, "KEY": self.key}.get(item, item) for item in arguments]
        return self.command.ok("--format", form, *name.split(), *filled, typed=self.keys[who])


@pytest.fixture
def people(service: Service, terrace_command: Terrace) -> People:
    return People(service, terrace_command)


def test_json_is_one_document_that_the_wire_model_reads_whole(people: People) -> None:
    for name, (_, _, kind) in COMMANDS.items():
        document = json.loads(people.run(name, "json").out)
        read = TypeAdapter(kind).validate_python(document)
        if isinstance(read, BaseModel) and name not in ("login", "whoami"):
            assert set(document) == set(type(read).model_fields), name


def test_quiet_is_words_one_per_line(people: People) -> None:
    said = {name: people.run(name, "quiet").out for name in COMMANDS if name != "ops key create"}
    assert said["logout"] == ""
    assert said["why"] == "succeeded\n"
    assert said["logs"] == "hello\n"
    assert said["ops node list"] == f"lost\nn1\n{NODE}\n"
    for name, out in said.items():
        assert all(len(line.split()) == 1 for line in out.splitlines()), name


def test_tables_are_aligned_lines_without_colours_in_a_pipe(people: People) -> None:
    for name in COMMANDS:
        out = people.run(name, "table").out
        assert out.endswith("\n"), name
        assert "\x1b" not in out, name
        assert all(line == line.rstrip() for line in out.splitlines()), name


def test_what_others_wrote_cannot_steer_the_terminal(ada: Terrace, service: Service) -> None:
    service.add_node()
    with service.machines() as machines:
        machines.script = Script(duration_ms=50, exit_code=1, failure_class="user_code", message="x\x1b[2J\ny")
        job_id = ada.ok("-q", "submit", "--no-workdir", "--", "echo", "\x07").out.strip()
        ada("wait", job_id)
    out = "".join(ada(*arguments).out for arguments in (["jobs"], ["job", job_id], ["why", job_id], ["events", job_id], ["wait", job_id]))
    assert "x\\x1b[2J\\ny" in out
    assert "echo \\x07" in out
    assert not {"\x1b", "\x07"} & set(out)
