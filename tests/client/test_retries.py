"""What is asked again, under which key, how patiently, and what is not."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

import terrace
from terrace.models.jobs import JobSpec
from terrace.sdk import transport
from tests.client import carriers
from tests.client.service import Service

TRUE = JobSpec(entrypoint=["true"], gpus=1)
NOWHERE = "http://127.0.0.1:9"


def keys_of(carrier: carriers.Recorder) -> set[str]:
    return {request.headers["Idempotency-Key"] for request in carrier.asked}


def test_a_lost_answer_creates_one_job_under_one_key(service: Service) -> None:
    carrier = carriers.LosesTheFirstAnswer()
    client = terrace.Client(service.url, service.member(), carrier=carrier)
    carriers.impatient(client)
    accepted = client.submit_spec(TRUE)
    assert [job.id for job in client.jobs()] == [accepted.id]
    assert len(keys_of(carriers.Recorder(asked=carrier.asked[:2]))) == 1


def test_two_calls_have_two_keys(service: Service) -> None:
    carrier = carriers.Recorder()
    client = terrace.Client(service.url, service.member(), carrier=carrier)
    first, second = client.submit_spec(TRUE), client.submit_spec(TRUE)
    assert first.id != second.id
    assert len(keys_of(carrier)) == 2


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_service_is_asked_again_after_the_time_that_it_names(service: Service, status: int) -> None:
    carrier = carriers.BusyAtFirst(status=status, retry_after="3")
    client = terrace.Client(service.url, service.operator_key, carrier=carrier)
    pauses = carriers.impatient(client)
    assert client.me().role == "operator"
    assert pauses == [3.0, 3.0]


def test_without_a_time_the_pauses_grow_and_are_bounded(service: Service) -> None:
    client = terrace.Client(service.url, service.operator_key, carrier=carriers.BusyAtFirst(times=4))
    pauses = carriers.impatient(client)
    client.me()
    longest = [0.2, 0.4, 0.8, 1.6]
    assert [most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True)] == [True] * 4
    assert transport.backoff_seconds(60) <= transport.RETRY_SECONDS_MAXIMUM


def test_a_service_that_asks_for_much_patience_is_not_asked_again() -> None:
    carrier = carriers.BusyAtFirst(status=429, retry_after="57", times=99)
    client = terrace.Client(NOWHERE, "k", carrier=carrier)
    with pytest.raises(terrace.ApiError) as refused:
        client.me()
    assert (refused.value.status, refused.value.code, len(carrier.asked)) == (429, "busy", 1)


def test_a_service_that_stays_busy_refuses_in_the_end() -> None:
    carrier = carriers.BusyAtFirst(times=99)
    client = terrace.Client(NOWHERE, "k", carrier=carrier)
    carriers.impatient(client)
    with pytest.raises(terrace.ApiError):
        client.me()
    assert len(carrier.asked) == transport.TRIES_MAXIMUM


def test_nobody_there_is_said_after_every_try() -> None:
    carrier = carriers.NeverConnects()
    client = terrace.Client(NOWHERE, "k", carrier=carrier)
    carriers.impatient(client)
    with pytest.raises(terrace.UnreachableError, match="connection refused"):
        client.submit_spec(TRUE)
    assert (len(carrier.asked), len(keys_of(carrier))) == (transport.TRIES_MAXIMUM, 1)


def test_a_refusal_is_not_asked_again(service: Service) -> None:
    carrier = carriers.Recorder()
    client = terrace.Client(service.url, service.member(), carrier=carrier)
    with pytest.raises(terrace.ApiError) as refused:
        client.submit(["true"], gpus=1, flavors=["h300"])
    assert (refused.value.code, len(carrier.asked)) == ("unknown_flavor", 1)


@pytest.mark.parametrize(("status", "kind"), [(200, terrace.UnreachableError), (404, terrace.ApiError), (302, terrace.UnreachableError)])
def test_another_servers_page_is_not_taken_for_an_answer(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        terrace.Client(NOWHERE, "k", carrier=carriers.AnswersSomethingElse(status=status)).me()


def test_an_upload_that_was_cut_is_sent_again_from_its_beginning(service: Service, workdir: Path) -> None:
    (workdir / "data.bin").write_bytes(bytes(range(256)) * 4_096)
    key = service.member()

    class CutsTheFirstUpload(carriers.Recorder):
        def answer(self, request: httpx.Request) -> httpx.Response:
            if request.method == "PUT" and sum(item.method == "PUT" for item in self.asked) == 1:
                assert isinstance(request.stream, httpx.SyncByteStream)
                next(iter(request.stream))
                raise httpx.WriteError("the connection was cut", request=request)
            return self.inner.handle_request(request)

    client = terrace.Client(service.url, key, carrier=CutsTheFirstUpload())
    carriers.impatient(client)
    sha256 = client.upload(workdir)
    assert terrace.Client(service.url, key).has_archive(sha256)


def test_an_archive_that_the_service_has_is_not_sent_again(service: Service, workdir: Path) -> None:
    carrier = carriers.Recorder()
    client = terrace.Client(service.url, service.member(), carrier=carrier)
    told: list[tuple[int, int]] = []
    first = client.upload(workdir, on_upload=lambda sent, total: told.append((sent, total)))
    second = client.upload(workdir)
    assert first == second
    assert [request.method for request in carrier.asked] == ["HEAD", "PUT", "HEAD"]
    assert told[-1][0] == told[-1][1] > 0


def test_waiting_outlasts_a_silence_of_the_service(service: Service) -> None:
    key = service.member()
    job = terrace.Client(service.url, key).submit_spec(TRUE)
    terrace.Client(service.url, key).cancel(job.id)
    carrier = carriers.BusyAtFirst(times=3 * transport.TRIES_MAXIMUM)
    client = terrace.Client(service.url, key, carrier=carrier)
    carriers.impatient(client)
    assert client.wait(job.id).state == "cancelled"


def test_waiting_ends_at_its_deadline_even_in_silence(service: Service) -> None:
    client = terrace.Client(service.url, service.operator_key, carrier=carriers.NeverConnects())
    carriers.impatient(client)
    with pytest.raises(terrace.WaitTimeoutError):
        client.wait("job_x", timeout_seconds=0)


@pytest.mark.parametrize(
    ("url", "is_believed"),
    [("http://127.0.0.1:1", False), ("http://localhost:1", False), ("http://[::1]:1", False), ("http://terrace.example", True)],
)
def test_proxies_of_the_environment_are_for_other_machines_only(monkeypatch: pytest.MonkeyPatch, url: str, is_believed: bool) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    client = terrace.Client(url, "k")
    assert client._wire._http.trust_env is is_believed


@pytest.mark.parametrize("name", ["", ".", "..", "job_x/logs", "../nodes"])
def test_an_id_that_names_nothing_is_refused_before_it_is_sent(name: str) -> None:
    carrier = carriers.NeverConnects()
    with pytest.raises(terrace.InputError):
        terrace.Client(NOWHERE, "k", carrier=carrier).job(name)
    assert carrier.asked == []


@pytest.mark.parametrize("rest", ["?x=1", "#x", "%2Flogs", "\\", " ", "é"])
def test_whatever_an_id_holds_it_names_one_thing(service: Service, rest: str) -> None:
    client = terrace.Client(service.url, service.member())
    job = client.submit_spec(TRUE)
    with pytest.raises(terrace.ApiError) as refused:
        client.job(job.id + rest)
    assert refused.value.status == 404
