"""Nodes and what they have, flavors, prices.

Operators make and switch nodes; an agent fills in what its own node has. Every tenant may see flavors and list prices; nodes are the
operators' and finance's business.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from api import answers, clock, pages, problem_codes, replays, routing
from api.permissions import Needs
from api.replays import IdempotencyKey
from api.routes.agents import Agent, check_node
from domain.money import Currency
from store import fleet
from store.errors import InvalidError
from store.identity import Principal
from store.lost_nodes import DeclareGone
from terrace.models.agents import InventoryReport
from terrace.models.common import Page
from terrace.models.fleet import FlavorAnswer, NodeAnswer, NodeCreate, NodeSet, PriceAnswer, PriceCreate

router = routing.router("/v1", "fleet")

ReadsNodes = Annotated[Principal, Depends(Needs("nodes:read"))]
WritesNodes = Annotated[Principal, Depends(Needs("nodes:write"))]
ReadsFlavors = Annotated[Principal, Depends(Needs("flavors:read"))]
ReadsPrices = Annotated[Principal, Depends(Needs("prices:read"))]
WritesPrices = Annotated[Principal, Depends(Needs("prices:write"))]
_MISSING = problem_codes.responses("node_not_found")
_PAGE = problem_codes.responses("invalid_cursor")


@router.post(
    "/nodes", status_code=201, response_model=NodeAnswer, responses=problem_codes.responses("node_exists", *problem_codes.CREATION)
)
async def create_node(request: Request, principal: WritesNodes, sent: NodeCreate, key: IdempotencyKey = None) -> Response:
    """Make a node. It takes no leases before its agent reports what it has."""
    command = fleet.CreateNode(clock.new_id("nod"), sent.name, sent.site, sent.rack, clock.now_ms())
    return await replays.create(request, principal, key=key, command=command, answer=answers.node)


@router.get("/nodes", response_model=Page[NodeAnswer], responses=_PAGE)
async def list_nodes(request: Request, principal: ReadsNodes, cursor: pages.Cursor = None, limit: pages.Limit = pages.LIMIT_DEFAULT) -> Any:
    """List nodes with their devices in order of name."""
    found = await request.app.state.store.read(fleet.Nodes(pages.decode(cursor), limit))
    return {"items": [answers.node(item) for item in found], "next_cursor": pages.next_cursor(found, limit, lambda item: item.name)}


@router.get("/nodes/{node}", response_model=NodeAnswer, responses=_MISSING)
async def read_node(request: Request, principal: ReadsNodes, node: str) -> Any:
    """Return a node with its devices and the leases that hold them."""
    return answers.node(await request.app.state.store.read(fleet.NodeByName(node)))


@router.patch("/nodes/{node}", response_model=NodeAnswer, responses=problem_codes.responses("node_not_found", "too_many_labels"))
async def set_node(request: Request, principal: WritesNodes, node: str, sent: NodeSet) -> Any:
    """Cordon (nothing new starts there) or drain (running leases are evicted too); label, taint, or say which rack it stands in."""
    command = fleet.SetNode(
        node,
        sent.is_cordoned,
        sent.is_draining,
        clock.now_ms(),
        principal.user_id,
        labels=sent.labels,
        taints=sent.taints,
        is_moved="rack" in sent.model_fields_set,
        rack=sent.rack,
    )
    return answers.node(await request.app.state.store.run(command))


@router.post("/nodes/{node}/gone", response_model=NodeAnswer, responses=problem_codes.responses("node_not_found", "node_not_lost"))
async def declare_node_gone(request: Request, principal: WritesNodes, node: str) -> Any:
    """Say that a lost node does not come back: its jobs go on elsewhere, its devices are quarantined until its agent starts anew."""
    return answers.node(await request.app.state.store.run(DeclareGone(node, clock.now_ms(), principal.user_id)))


@router.post("/nodes/{node}/inventory", response_model=NodeAnswer, responses=problem_codes.responses("node_not_found", "device_elsewhere"))
async def report_inventory(request: Request, agent: Agent, node: str, sent: InventoryReport) -> Any:
    """Take what the node has, from its own agent; sending it twice changes nothing."""
    check_node(agent, node)
    devices = tuple(fleet.ReportedDevice(**device.model_dump()) for device in sent.devices)
    command = fleet.AcceptInventory(
        node, sent.boot_id, sent.agent_version, sent.cpu_milli, sent.memory_bytes, sent.isolation, devices, clock.now_ms()
    )
    return answers.node(await request.app.state.store.run(command))


@router.get("/flavors", response_model=Page[FlavorAnswer], responses=_PAGE)
async def list_flavors(
    request: Request, principal: ReadsFlavors, cursor: pages.Cursor = None, limit: pages.Limit = pages.LIMIT_DEFAULT
) -> Any:
    """List what can be asked for, with the list price now, in order of name."""
    found = await request.app.state.store.read(fleet.Flavors(request.app.state.settings.currency, clock.now_ms()))
    simulated = (await request.app.state.catalogs.fleet(is_fresh=True)).simulated_models
    return pages.cut(
        found, cursor, limit, key=lambda item: item.name, answer=lambda item: {**asdict(item), "is_simulated": item.gpu_model in simulated}
    )


@router.post(
    "/prices",
    status_code=201,
    response_model=PriceAnswer,
    responses=problem_codes.responses("price_exists", "price_in_the_past", "unknown_currency", "unknown_flavor", *problem_codes.CREATION),
)
async def create_price(request: Request, principal: WritesPrices, sent: PriceCreate, key: IdempotencyKey = None) -> Response:
    """Set a list price from a moment on; what is rated already keeps its price."""
    known = [currency.code for currency in Currency]
    if sent.currency not in known:
        message = f"currency: {sent.currency!r} is not one of {', '.join(known)}"
        raise InvalidError("unknown_currency", message, field="currency", limit=known)
    now_ms = clock.now_ms()
    valid_from_ms = clock.to_ms(sent.valid_from) if sent.valid_from else now_ms
    command = fleet.CreatePrice(clock.new_id("pri"), sent.flavor, sent.currency, sent.units_per_hour, valid_from_ms, now_ms)
    return await replays.create(request, principal, key=key, command=command, answer=answers.price)


@router.get("/prices", response_model=Page[PriceAnswer], responses=_PAGE)
async def list_prices(
    request: Request, principal: ReadsPrices, cursor: pages.Cursor = None, limit: pages.Limit = pages.LIMIT_DEFAULT
) -> Any:
    """List the price book, in order of flavor, currency and start."""
    found = await request.app.state.store.read(fleet.Prices())
    key = "{0.flavor} {0.currency} {0.valid_from_ms:020d}".format
    return pages.cut(found, cursor, limit, key=key, answer=answers.price)
