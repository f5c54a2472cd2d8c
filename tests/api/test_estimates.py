from __future__ import annotations

import pytest

from api.problems import TooManyRequestsError
from api.routes.estimates import RateLimit
from store.seed import PRICES_MICRO_USD_PER_HOUR
from tests.api.conftest import OpenApi
from tests.support.api import Api, Caller, problem_of, spec

HOUR_SECONDS = 3_600
STANDARD_GRACE_SECONDS = 10


@pytest.fixture
async def ada(api: Api) -> Caller:
    """A member of a tenant that may hold 4 of the 8 GPUs of the fleet."""
    await api.node(gpus=8)
    await api.tenant(gpus=4)
    return await api.user("member")


async def test_job_that_could_start_now_is_told_so_and_nothing_is_kept(api: Api, ada: Caller) -> None:
    before = await api.rows()

    answer = (await ada.post("/v1/estimates", spec(gpus=2, limit_seconds=HOUR_SECONDS))).json()

    held = round(PRICES_MICRO_USD_PER_HOUR["h200"] * 2 * (HOUR_SECONDS + STANDARD_GRACE_SECONDS) / HOUR_SECONDS)
    assert answer == {
        "starts_now": True,
        "reason": None,
        "forecast": None,
        "currency": "USD",
        "hold_amount_units": held,
        "price_units_per_hour": PRICES_MICRO_USD_PER_HOUR["h200"],
        "limit_seconds": HOUR_SECONDS,
    }
    assert await api.rows() == before


async def test_job_over_its_quota_is_told_why_it_would_wait_and_until_when(api: Api, ada: Caller) -> None:
    await ada.submit(gpus=4, limit_seconds=60)
    await api.schedule()
    before = await api.rows()

    answer = (await ada.post("/v1/estimates", spec(gpus=1))).json()

    assert not answer["starts_now"]
    assert answer["reason"]["code"].startswith("quota")
    assert answer["forecast"]["start_at"] is not None
    assert await api.rows() == before


async def test_estimate_agrees_with_what_the_scheduler_then_does(api: Api, ada: Caller) -> None:
    await ada.submit(gpus=3)
    await api.schedule()
    estimates = [(await ada.post("/v1/estimates", spec(gpus=gpus))).json()["starts_now"] for gpus in (1, 2)]

    jobs = [await ada.submit(gpus=gpus) for gpus in (2, 1)]
    await api.schedule()

    states = [(await ada.fetch(f"/v1/jobs/{job['id']}"))["state"] for job in jobs]
    assert estimates == [True, False]
    assert states == ["queued", "starting"]


async def test_job_that_takes_several_flavors_is_told_the_price_of_the_dearest(api: Api, ada: Caller) -> None:
    await api.operator.change("PUT", "/v1/quotas/acme", {"resource": "h100", "nominal": 4_000})

    asked = (["h100", "h200"], ["h200", "h100"], ["h100"])
    answers = [(await ada.post("/v1/estimates", spec(flavors=flavors))).json() for flavors in asked]

    dear, cheap = PRICES_MICRO_USD_PER_HOUR["h200"], PRICES_MICRO_USD_PER_HOUR["h100"]
    assert [answer["price_units_per_hour"] for answer in answers] == [dear, dear, cheap]
    assert answers[0]["hold_amount_units"] == answers[1]["hold_amount_units"] > answers[2]["hold_amount_units"]


async def test_job_without_gpus_costs_nothing(ada: Caller) -> None:
    answer = (await ada.post("/v1/estimates", {"entrypoint": ["true"], "gpus": 0, "cpu_milli": 100})).json()

    assert (answer["starts_now"], answer["hold_amount_units"], answer["price_units_per_hour"]) == (True, 0, 0)


async def test_tenant_asks_at_most_so_often(open_api: OpenApi) -> None:
    api = await open_api(estimates_per_minute=2)
    for name in ("acme", "globex"):
        await api.tenant(name)
    ada, bob, eve = await api.user("member"), await api.user("admin"), await api.user("member", tenant="globex")

    statuses = [(await caller.post("/v1/estimates", spec())).status_code for caller in (ada, bob, ada, eve)]
    refused = await bob.post("/v1/estimates", spec())

    assert statuses == [200, 200, 429, 200]
    assert problem_of(refused)[:2] == (429, "estimates_rate")
    assert refused.json()["data"]["limit"] == 2
    assert 1 <= int(refused.headers["retry-after"]) <= 61


def test_rate_limit_remembers_a_bounded_number_of_tenants() -> None:
    rate = RateLimit(per_minute=1)
    for number in range(10_001):
        rate.count(f"tenant-{number}")

    rate.count("tenant-0")
    with pytest.raises(TooManyRequestsError):
        rate.count("tenant-10000")
