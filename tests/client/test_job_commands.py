"""`jobs`, `job`, `why`, `logs`, `wait`, `cancel`, `estimate` and `events`: what people read and programs get."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from executors.fake import Script
from terrace import units
from tests.client.command import Terrace
from tests.client.service import Service

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def submit(person: Terrace, *options: str) -> str:
    return person.ok("-q", "submit", "--no-workdir", "--limit", "5m", *options, "--", "true").out.strip()


def test_jobs_are_listed_newest_first_with_what_is_worth_knowing(ada: Terrace, service: Service) -> None:
    service.add_node()
    first, second = submit(ada, "--gpus", "3", "--name", "big"), submit(ada, "--gpus", "2")
    service.executor.script = Script(duration_ms=60_000)
    service.step()
    lines = ada.ok("jobs").lines
    assert lines[0].split() == ["ID", "NAME", "PROJECT", "STATE", "ASKS", "FOR", "SUBMITTED", "NOTE"]
    assert re.fullmatch(rf"{second}  -     default  queued    2 h200    {TIME}  quota_exceeded", lines[1])
    assert re.fullmatch(rf"{first}  big   default  starting  3 h200    {TIME}  -", lines[2])


def test_jobs_are_chosen_by_state_project_and_number(ada: Terrace, operator: Terrace, service: Service) -> None:
    service.operator.create_project("acme", "vision")
    key = service.operator.create_key(user_id=service.operator.user("ada", tenant="acme").id).secret
    ada.speak_for(service.url, key)
    in_default, in_vision = submit(ada), submit(ada, "--project", "vision")
    ada.ok("cancel", in_default)
    assert ada.ok("-q", "jobs", "--state", "cancelled").lines == [in_default]
    assert ada.ok("-q", "jobs", "--project", "vision").lines == [in_vision]
    assert ada.ok("-q", "jobs", "--limit", "1").lines == [in_vision]
    assert ada.ok("-q", "jobs", "--all", "--state", "queued", "--state", "cancelled").lines == [in_vision, in_default]


def test_an_operator_sees_whose_jobs_they_are(ada: Terrace, service: Service) -> None:
    submit(ada)
    submit(ada.speak_for(service.url, service.member("borealis", user="binh")))
    operator = ada.speak_for(service.url, service.operator_key)
    assert [line.split()[1] for line in operator.ok("jobs").lines] == ["TENANT", "borealis", "acme"]
    assert len(operator.ok("-q", "jobs", "--tenant", "acme").lines) == 1


def test_a_job_is_shown_with_its_attempts_and_devices(ada: Terrace, service: Service) -> None:
    service.add_node()
    with service.machines() as machines:
        machines.progress = {"step": 3, "total": 4, "accuracy": 0.93}
        job_id = submit(ada, "--gpus", "2", "--name", "digits")
        ada.ok("wait", job_id)
    fields = dict(re.split(r"  +", line, maxsplit=1) for line in ada.ok("job", job_id).lines[:13] if line)
    assert fields["name"] == "digits"
    assert fields["state"] == "succeeded"
    assert fields["asks for"] == "2 h200"
    assert fields["progress"] == "3/4 accuracy 0.93"
    assert re.fullmatch(TIME, fields["ended"])
    assert re.search(rf"1  lea_\w+  {TIME}  {TIME}  \w+ +0  node-a\[0,1\] simulated$", ada.ok("job", job_id).lines[-1])


def test_a_job_shows_where_it_may_run(ada: Terrace) -> None:
    wishes = ("--site", "hanoi", "--site", "hue", "--deny-site", "danang", "--prefer-site", "hue", "--label", "disk=nvme")
    job_id = submit(ada, *wishes, "--tolerate", "pilot", "--within", "node")
    fields = dict(re.split(r"  +", line, maxsplit=1) for line in ada.ok("job", job_id).lines if line)
    assert fields["where"] == "on hanoi or hue, never on danang, first on hue, label disk=nvme, tolerates pilot, within one node"
    assert "where" not in ada.ok("job", submit(ada)).out


def test_why_tells_the_reason_in_words_what_unblocks_and_when(ada: Terrace, service: Service) -> None:
    service.add_node()
    service.executor.script = Script(duration_ms=60_000)
    submit(ada, "--gpus", "3")
    waiting = submit(ada, "--gpus", "2", "--name", "wide")
    service.step()
    lines = ada.ok("why", waiting).lines
    assert re.fullmatch(rf"{waiting} \(wide\) is queued: quota_exceeded, answered {TIME}", lines[0])
    assert lines[1:3] == [
        "  Its tenant holds 3 h200 of a quota of 4 h200. This job needs 2 h200, and 1 h200 may still be taken.",
        "  It can start when other jobs of its tenant end, or with more quota.",
    ]
    assert re.fullmatch(rf"  Expected to start at {TIME} \(in [45] min.*; computed .*\)\.", lines[3])


def test_why_of_a_job_that_does_not_wait_says_what_it_does(ada: Terrace) -> None:
    job_id = submit(ada)
    ada.ok("cancel", job_id)
    assert ada.ok("why", job_id).out == f"{job_id}  cancelled\n"
    assert ada.ok("-q", "why", job_id).out == "cancelled\n"


def test_logs_are_printed_as_they_were_written(ada: Terrace, service: Service) -> None:
    service.add_node()
    with service.machines() as machines:
        machines.output = "grün \x1b[1mbold\x1b[0m\nno end".encode()
        job_id = submit(ada)
        ada.ok("wait", job_id)
    for arguments in (["logs", job_id], ["logs", "-f", job_id], ["-q", "logs", "--attempt", "1", job_id]):
        assert ada.ok(*arguments).out == "grün \x1b[1mbold\x1b[0m\nno end"
    pieces = [json.loads(line) for line in ada.ok("--format", "json", "logs", job_id).lines]
    assert [(piece["attempt"], piece["text"]) for piece in pieces] == [(1, "grün \x1b[1mbold\x1b[0m\nno end")]


def test_waiting_for_jobs_ends_with_their_outcome(ada: Terrace, service: Service) -> None:
    service.add_node()
    with service.machines():
        good, other = submit(ada), submit(ada)
        ended = ada.ok("wait", good, other)
    assert [line.split()[:2] for line in ended.lines] == [[good, "succeeded"], [other, "succeeded"]]
    cancelled = submit(ada)
    ada.ok("cancel", cancelled)
    ended = ada("wait", good, cancelled)
    assert (ended.code, [line.split()[1] for line in ended.lines]) == (1, ["succeeded", "cancelled"])


def test_waiting_gives_up_in_time_and_the_job_goes_on(ada: Terrace) -> None:
    job_id = submit(ada)
    ended = ada("wait", "--timeout", "1s", job_id)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines()[-1] == f"terrace: wait_timeout: {job_id} had not ended in time; it goes on"
    assert ada.ok("--format", "json", "job", job_id).json["state"] == "queued"


def test_cancelling_asks_for_each_and_says_which_is_not_there(ada: Terrace) -> None:
    first, second = submit(ada), submit(ada)
    ended = ada("cancel", first, "job_absent", second)
    assert ended.code == 4
    assert ended.lines == [f"{first}  cancelled", f"{second}  cancelled"]
    assert ended.err == "terrace: job_not_found: job: there is no job 'job_absent'\n"
    assert ada.ok("-q", "cancel", first).lines == [first]


def test_an_estimate_says_when_and_what_it_costs_at_most(ada: Terrace, service: Service) -> None:
    service.add_node()
    service.step()
    asked = ("estimate", "--gpus", "2", "--limit", "2h", "--", "true")
    most = units.price(ada.ok("--format", "json", *asked).json["hold_amount_units"], "USD")
    assert ada.ok(*asked).lines == [
        "It would start now.",
        f"It would cost at most {most}: 3.50 USD per GPU and hour, for 2h and its grace.",
    ]
    assert most.startswith("14.")
    assert ada.ok("-q", "estimate", "--", "true").out == "starts_now\n"
    assert ada.ok("-q", "jobs").out == ""


def test_an_estimate_of_a_job_that_would_wait_says_why(ada: Terrace, service: Service) -> None:
    service.add_node(gpus=2)
    service.executor.script = Script(duration_ms=60_000)
    submit(ada, "--gpus", "2")
    service.step()
    ended = ada.ok("estimate", "--gpus", "1", "--", "true")
    assert ended.lines[:2] == ["It would wait (no_capacity). It needs 1 h200; 0 h200 are free now.", "It can start when running jobs end."]
    assert ada.ok("-q", "estimate", "--", "true").out == "no_capacity\n"


def test_events_are_told_oldest_first(ada: Terrace, service: Service, workdir: Path) -> None:
    job_id = submit(ada)
    ada.ok("cancel", job_id)
    lines = ada.ok("events", job_id).lines
    kinds = [line.split()[2] for line in lines]
    assert kinds[0] == "job_submitted"
    assert all(re.match(rf"{TIME}  \w+ +acme {job_id}", line) for line in lines)
    documents = [json.loads(line) for line in ada.ok("events", "--format", "json").lines]
    documents = [document for document in documents if document["job_id"] == job_id]
    assert [document["kind"] for document in documents] == kinds
    assert ada.ok("-q", "events", job_id, "--limit", "1").lines == [str(documents[0]["id"])]
    assert ada.ok("events", "-f", job_id).lines == lines


def test_following_events_has_no_limit(ada: Terrace) -> None:
    ended = ada("events", "-f", "--limit", "3")
    assert (ended.code, ended.err) == (2, "terrace: invalid_input: limit: does not go with --follow\n")


@pytest.mark.parametrize("verb", ["job", "why", "logs", "wait", "events"])
def test_a_job_of_somebody_else_is_not_found(ada: Terrace, service: Service, verb: str) -> None:
    job_id = submit(ada)
    binh = ada.speak_for(service.url, service.member("borealis", user="binh"))
    ended = binh(verb, job_id)
    assert (ended.code, ended.out) == (4, "")
    assert ended.err == f"terrace: job_not_found: job: there is no job '{job_id}'\n"
