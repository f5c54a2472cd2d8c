"""Where a job may run: kept as it was asked, refused where it contradicts itself or no node could offer it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import OpenApi
from tests.support.api import Agent, Api, Caller, problem_of, spec

ANYWHERE = {"sites": [], "deny_sites": [], "prefer_sites": [], "node_labels": {}, "tolerates": [], "within": "site"}


async def node(
    api: Api, name: str, site: str, *, gpus: int = 4, labels: dict[str, str] | None = None, taints: list[str] | None = None
) -> None:
    """Register a node on a site and let its agent report."""
    await api.operator.create("/v1/nodes", {"name": name, "site": site})
    await Agent(api, (await api.operator.create("/v1/keys", {"node": name}))["secret"], name).report_inventory(gpus=gpus)
    await api.operator.change("PATCH", f"/v1/nodes/{name}", {"labels": labels or {}, "taints": taints or []})


@pytest.fixture
async def ada(api: Api) -> Caller:
    """A member of acme on a fleet of three sites, of which the last is for those only who tolerate it."""
    await node(api, "hanoi-1", "hanoi", labels={"disk": "nvme"})
    await node(api, "hue-1", "hue", gpus=8, labels={"disk": "sata"})
    await node(api, "danang-1", "danang", taints=["pilot"])
    await api.tenant(gpus=32)
    return await api.user("member")


async def test_wishes_are_kept_as_they_were_asked(ada: Caller) -> None:
    wishes = {
        "sites": ["hanoi", "hue"], "deny_sites": ["danang"], "prefer_sites": ["hue", "hanoi"], "node_labels": {"disk": "nvme"},
        "tolerates": ["pilot", "later"], "within": "node",
    }  # fmt: skip

    accepted = await ada.submit(**wishes)
    read = await ada.fetch(f"/v1/jobs/{accepted['id']}")

    kept = wishes | {"tolerates": ["later", "pilot"]}
    assert {name: accepted[name] for name in wishes} == kept
    assert {name: read[name] for name in wishes} == kept


async def test_job_without_wishes_says_anywhere(ada: Caller) -> None:
    accepted = await ada.submit()

    assert {name: accepted[name] for name in ANYWHERE} == ANYWHERE


async def test_jobs_with_different_wishes_are_different_for_the_scheduler(api: Api, ada: Caller) -> None:
    for wishes in ({}, ANYWHERE, {"sites": ["hue"]}, {"deny_sites": ["hanoi"]}, {"sites": ["hue", "hue"]}):
        await ada.submit(**wishes)

    assert (await api.rows())["job_class"] == 3


BAD: dict[str, tuple[dict[str, Any], str, str, Any]] = {
    "unknown site": ({"sites": ["hanoi", "hanio"]}, "unknown_site", "sites[1]", ["danang", "hanoi", "hue"]),
    "unknown denied site": ({"deny_sites": ["hanio"]}, "unknown_site", "deny_sites[0]", ["danang", "hanoi", "hue"]),
    "unknown preferred site": ({"prefer_sites": ["hanio"]}, "unknown_site", "prefer_sites[0]", ["danang", "hanoi", "hue"]),
    "unknown label": ({"node_labels": {"rack": "1"}}, "unknown_label", "node_labels.rack", []),
    "unknown value of a label": ({"node_labels": {"disk": "tape"}}, "unknown_label", "node_labels.disk", ["nvme", "sata"]),
    "a site that is denied": ({"sites": ["hue"], "deny_sites": ["hue"]}, "contradictory_place", "deny_sites[0]", None),
    "a preferred site that is denied": ({"deny_sites": ["hue"], "prefer_sites": ["hue"]}, "contradictory_place", "prefer_sites[0]", None),
    "a preferred site beside the allowed": ({"sites": ["hue"], "prefer_sites": ["hanoi"]}, "contradictory_place", "prefer_sites[0]", None),
    "an island without GPUs": (
        {"gpus": 0, "flavors": [], "cpu_milli": 100, "within": "island"}, "contradictory_place", "within", None,
    ),
    "a label that is elsewhere": ({"sites": ["hue"], "node_labels": {"disk": "nvme"}}, "no_such_place", "sites", None),
    "a site with a taint": ({"sites": ["danang"]}, "no_such_place", "sites", None),
    "all sites but the one with a taint": ({"deny_sites": ["hanoi", "hue"]}, "no_such_place", "deny_sites", None),
    "more than any node of the site": ({"sites": ["hanoi"], "gpus": 8}, "exceeds_maximum", "gpus", 4),
    "more than any node with the label": ({"node_labels": {"disk": "nvme"}, "gpus": 8}, "exceeds_maximum", "gpus", 4),
    "too many sites": ({"sites": ["hue"] * 33}, "invalid_request", "sites", 32),
    "too many labels": ({"node_labels": {f"l{number}": "1" for number in range(17)}}, "invalid_request", "node_labels", 16),
    "too many taints": ({"tolerates": ["pilot"] * 17}, "invalid_request", "tolerates", 16),
    "a closeness that nobody knows": ({"within": "planet"}, "invalid_request", "within", None),
}  # fmt: skip


@pytest.mark.parametrize(("wishes", "code", "field", "limit"), BAD.values(), ids=BAD)
async def test_place_that_cannot_be_is_refused_by_name(
    api: Api, ada: Caller, wishes: dict[str, Any], code: str, field: str, limit: Any
) -> None:
    before = await api.rows()

    alone = await ada.post("/v1/jobs", spec(**wishes))
    batch = await ada.post("/v1/jobs/batch", {"jobs": [spec(), spec(**wishes)]})

    assert problem_of(alone)[:3] == (422, code, field)
    assert limit is None or problem_of(alone)[3] == limit
    assert problem_of(batch)[:3] == (422, code, f"jobs[1].{field}")
    assert await api.rows() == before


async def test_wishes_that_are_sent_empty_are_like_none(api: Api) -> None:
    await node(api, "danang-1", "danang", taints=["pilot"])
    await api.tenant()
    ada = await api.user("member")

    states = [(await ada.submit(**wishes))["state"] for wishes in ({}, ANYWHERE)]

    assert states == ["queued", "queued"]
    assert (await api.rows())["job_class"] == 1


async def test_taint_that_is_tolerated_opens_the_site(ada: Caller) -> None:
    assert (await ada.submit(sites=["danang"], tolerates=["pilot"]))["state"] == "queued"


@pytest.mark.parametrize("within", ["node", "island"])
async def test_gang_within_one_node_is_measured_against_one_node(open_api: OpenApi, within: str) -> None:
    api = await open_api(gangs_span_nodes=True)
    await node(api, "hanoi-1", "hanoi")
    await api.tenant(gpus=32)
    ada = await api.user("member")

    refused = await ada.post("/v1/jobs", spec(gpus=4, replicas=2, within=within))

    assert problem_of(refused)[:3] == (422, "exceeds_maximum", "replicas")
    assert (await ada.submit(gpus=4, replicas=2, within="rack"))["state"] == "queued"


async def test_fleet_without_nodes_takes_every_wish(api: Api) -> None:
    await api.tenant()
    ada = await api.user("member")

    accepted = await ada.submit(sites=["to-be-built"], node_labels={"disk": "nvme"})

    assert (accepted["sites"], accepted["node_labels"]) == (["to-be-built"], {"disk": "nvme"})


async def test_estimate_heeds_the_place(ada: Caller) -> None:
    refused = await ada.post("/v1/estimates", spec(sites=["nowhere"]))
    taken = await ada.post("/v1/estimates", spec(sites=["hue"]))

    assert problem_of(refused)[:3] == (422, "unknown_site", "sites[0]")
    assert taken.status_code == 200
