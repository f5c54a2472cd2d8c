"""The SDK's verbs against a running service, where the command line does not show what they promise."""

from __future__ import annotations

import threading

import pytest
from pydantic import ValidationError

import terrace
from executors.fake import Script
from store.agent_reports import AcceptReports, Output
from terrace.models.jobs import JobSpec
from terrace.sdk import config
from tests.client.service import NODE, Service

TRUE = JobSpec(entrypoint=["true"], gpus=1)


@pytest.fixture
def client(service: Service) -> terrace.Client:
    return terrace.Client(service.url, service.member())


def test_a_batch_is_accepted_whole_in_its_order(client: terrace.Client) -> None:
    names = [f"job-{number}" for number in range(5)]
    made = client.submit_batch([JobSpec(entrypoint=["true"], gpus=1, name=name) for name in names])
    assert [job.name for job in made] == names
    assert [job.name for job in reversed(client.jobs())] == names


def test_a_batch_with_one_bad_job_is_refused_whole_and_names_it(client: terrace.Client) -> None:
    with pytest.raises(terrace.ApiError) as refused:
        client.submit_batch([TRUE, JobSpec(entrypoint=["true"], gpus=1, flavors=["h300"])])
    assert refused.value.problem.errors[0].field == "jobs[1].flavors[0]"
    assert client.jobs() == []


def test_a_malformed_job_is_refused_before_it_is_sent(client: terrace.Client) -> None:
    with pytest.raises(ValidationError) as refused:
        client.submit(["true"], gpu=1)
    assert refused.value.errors()[0]["loc"] == ("gpu",)
    assert client.jobs() == []


def test_listings_go_through_all_their_pages(client: terrace.Client) -> None:
    client.submit_batch([TRUE] * 600)
    listed = client.jobs(limit=None)
    assert len({job.id for job in listed}) == len(listed) == 600
    assert [job.id for job in client.jobs(limit=550)] == [job.id for job in listed[:550]]
    assert len(client.jobs()) == 100


def test_a_long_log_is_read_whole_though_pages_cut_characters(client: terrace.Client, service: Service) -> None:
    service.add_node()
    job = client.submit_spec(TRUE)
    service.executor.script = Script(duration_ms=60_000)
    service.step()
    lease = client.job(job.id).attempts[0].lease_id
    whole = "äöü€ " * 1_000
    data = whole.encode()
    pieces = [Output(number, lease, start, data[start : start + 37]) for number, start in enumerate(range(0, len(data), 37))]
    service.call(service.store.run(AcceptReports(NODE, "long", [], pieces, 0, log_bytes_per_attempt_maximum=1 << 20)))
    assert client.logs_text(job.id) == whole


def test_waiting_longer_than_is_asked_says_how_the_job_stands(client: terrace.Client) -> None:
    job = client.submit_spec(TRUE)
    with pytest.raises(terrace.WaitTimeoutError, match=f"{job.id} is still queued"):
        client.wait(job.id, timeout_seconds=0)


def test_several_threads_may_share_a_client(client: terrace.Client) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(client.submit_spec(TRUE).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == sorted(job.id for job in client.jobs())


def test_every_error_but_one_is_a_terrace_error() -> None:
    kinds = [getattr(terrace, name) for name in terrace.__all__ if name.endswith("Error")]
    assert len(kinds) == 8
    assert all(issubclass(kind, terrace.TerraceError) for kind in kinds)


def test_a_name_that_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="Klient"):
        _ = terrace.Klient
    assert "Client" in dir(terrace)


def test_a_key_does_not_show_where_a_configuration_is_printed() -> None:
    assert "very-secret" not in repr(config.Config("http://h", "very-secret"))
