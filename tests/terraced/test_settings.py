from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from agents.settings import AgentSettings
from api.settings import ApiSettings
from billing.service import BillingSettings
from scheduler.decision.snapshot import Policy
from scheduler.service import SchedulerSettings
from terraced import parts
from terraced.settings import Settings, unknown_variables


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without anything of ours, to add to."""
    for name in [name for name in os.environ if name.startswith(parts.PREFIX)]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_limit_of_the_api_is_set_by_its_name(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TERRACED_API__OPEN_JOBS_MAXIMUM", "7")
    environment.setenv("TERRACED_API__ARCHIVE__MEMBERS_MAXIMUM", "9")

    filled = parts.with_given(ApiSettings(Path("/state")), Settings().api)

    assert (filled.open_jobs_maximum, filled.archive.members_maximum) == (7, 9)
    assert filled.archive.ratio_maximum == ApiSettings(Path("/state")).archive.ratio_maximum


def test_settings_of_scheduler_and_billing_are_set_by_their_names(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TERRACED_SCHEDULER__TERM_MS", "9000")
    environment.setenv("TERRACED_SCHEDULER__POLICY__FAIR_SHARING", "false")
    environment.setenv("TERRACED_BILLING__CURRENCY", "VND")

    given = Settings()

    scheduler = parts.with_given(SchedulerSettings(), given.scheduler)
    assert (scheduler.term_ms, scheduler.policy.fair_sharing, scheduler.policy.spans_nodes) == (9_000, False, False)
    assert parts.with_given(BillingSettings(), given.billing) == BillingSettings(currency="VND")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TERRACED_API__OPEN_JOBS_MAXIMUM", "many", "TERRACED_API__OPEN_JOBS_MAXIMUM: Input should be a valid integer"),
        ("TERRACED_AGENT__CPU_MILLI", "-1", "TERRACED_AGENT__CPU_MILLI: Input should be greater than or equal to 0"),
        ("TERRACED_API__OPEN_JOB_MAXIMUM", "5", "TERRACED_API__OPEN_JOB_MAXIMUM: Extra inputs are not permitted"),
        ("TERRACED_API__STATE_DIR", "/elsewhere", "TERRACED_API__STATE_DIR: Extra inputs are not permitted"),
        ("TERRACED_SCHEDULER__POLICY__VICTIMS", "anyone", "TERRACED_SCHEDULER__POLICY__VICTIMS: Input should be"),
        ("TERRACED_API_URL", "ftp://host", "must be http:// or https://"),
    ],
    ids=["not a number", "negative", "misspelt", "filled elsewhere", "not a policy", "not an address"],
)
def test_bad_setting_is_refused_by_its_name(environment: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    environment.setenv(name, value)

    with pytest.raises(ValidationError) as refused:
        Settings()

    assert said in str(refused.value)


def test_unknown_variable_is_named_with_the_one_that_was_meant() -> None:
    given = {"TERRACED_PORT": "1", "TERRACED_SUPERVISOR_PID": "1", "TERRACED_API__X": "1", "PATH": "", "TERRACED_STATE_DIRECTORY": "/s"}

    assert unknown_variables(given) == ["TERRACED_STATE_DIRECTORY: there is no such setting; did you mean TERRACED_STATE_DIR?"]


def test_what_the_composition_root_fills_is_a_field_of_its_part() -> None:
    kinds: dict[str, type[ApiSettings | AgentSettings]] = {"api": ApiSettings, "agent": AgentSettings}
    for name, kind in kinds.items():
        plain = {field.partition(".")[0] for field in parts.PARTS[name].filled}
        assert plain <= {field.name for field in dataclasses.fields(kind)}


def test_every_setting_of_the_policy_is_documented() -> None:
    named = {name for name, _, _ in parts.documented() if name.startswith("TERRACED_SCHEDULER__POLICY__")}

    assert named == {f"TERRACED_SCHEDULER__POLICY__{name.upper()}" for name in Policy.__dataclass_fields__}


@pytest.mark.parametrize(
    ("given", "is_clear"),
    [
        ({"api_url": "http://terrace.example"}, True),
        ({"api_url": "https://terrace.example"}, False),
        ({"api_url": "http://127.0.0.1:8470"}, False),
        ({"host": "10.0.0.5"}, True),
        ({"host": "10.0.0.5", "is_embedded": True}, False),
        ({"host": "::"}, False),
        ({"host": "::1"}, False),
    ],
    ids=["http", "https", "loopback", "an address of a network", "the same embedded", "every address", "loopback of IPv6"],
)
def test_key_in_clear_on_a_network_is_noticed(environment: pytest.MonkeyPatch, given: dict[str, str], is_clear: bool) -> None:
    assert Settings.model_validate(given).sends_keys_in_clear is is_clear


def test_simulation_is_allowed_by_nobody_who_does_not_say_so(environment: pytest.MonkeyPatch) -> None:
    assert not Settings().is_simulation_allowed
