"""The commands of an operator: tenants, projects, users, keys, nodes and prices; and where the others of `ops` are.

Each fetches and hands the answer to the session's output. What a key may do is the service's decision; a tenant's admin may use some of
these too. Amounts are typed as people say them (money, weights) and sent as integers. Quotas and cohorts are in quota_commands.py, the
calendar and the policy in calendar_commands.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from terrace import units
from terrace.cli import calendar_commands, moments, quota_commands
from terrace.cli.moments import Direction
from terrace.cli.session import Session, command, group
from terrace.models.people import Role
from terrace.sdk.errors import InputError
from terrace.sdk.scheduling import KEEP

TenantName = Annotated[str, typer.Argument(metavar="TENANT", help="Name of a tenant.")]
OfTenant = Annotated[str | None, typer.Option("--tenant", help="Name of the tenant.")]
Weight = Annotated[str | None, typer.Option(metavar="N", help="Weight in fair sharing, such as 1 or 2.5. (default: 1)")]
NodeName = Annotated[str, typer.Argument(metavar="NODE", help="Name of a node.")]


def register(app: typer.Typer) -> None:
    """Add `ops` with its groups to the `terrace` command."""
    ops = typer.Typer(no_args_is_help=True)
    group(ops)
    for name, help_text, commands in _GROUPS:
        nouns = typer.Typer(no_args_is_help=True)
        group(nouns)
        for verb, function in commands.items():
            command(nouns, verb)(function)
        ops.add_typer(nouns, name=name, help=help_text)
    app.add_typer(
        ops, name="ops", help="Operate the service: tenants, people, quotas, the calendar, nodes, prices.", rich_help_panel="Operators"
    )


def create_tenant(
    session: Session,
    name: TenantName,
    cohort: Annotated[str | None, typer.Option(help="Cohort to lend to and borrow from.")] = None,
    weight: Weight = None,
) -> None:
    """Make a tenant with a project named `default`."""
    weight_milli = units.MILLI if weight is None else units.cpu_milli("weight", weight)
    session.output.tenant(session.client.create_tenant(name, parent=cohort, weight_milli=weight_milli))


def set_tenant(
    session: Session,
    name: TenantName,
    weight: Annotated[str | None, typer.Option(metavar="N", help="Weight in fair sharing, such as 1 or 2.5.")] = None,
    suspend: Annotated[
        bool | None, typer.Option("--suspend/--resume", help="Stop its keys from working, or let them work again.", show_default=False)
    ] = None,
    cohort: Annotated[str | None, typer.Option(help="Move it to this cohort.")] = None,
    no_cohort: Annotated[bool, typer.Option("--no-cohort", help="Take it out of its cohort.")] = False,
) -> None:
    """Change a tenant; what is not named stays."""
    if cohort is not None and no_cohort:
        raise InputError("no-cohort", "--cohort and --no-cohort exclude each other")
    _need_one(weight=weight, suspend=suspend, cohort=cohort, no_cohort=no_cohort or None)
    weight_milli = None if weight is None else units.cpu_milli("weight", weight)
    parent = None if no_cohort else KEEP if cohort is None else cohort
    session.output.tenant(session.client.set_tenant(name, weight_milli=weight_milli, is_suspended=suspend, parent=parent))


def list_tenants(session: Session) -> None:
    """List tenants."""
    session.output.tenants(session.client.tenants())


def create_project(
    session: Session, tenant: TenantName, name: Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the project.")]
) -> None:
    """Make a project in a tenant."""
    session.output.project(session.client.create_project(tenant, name))


def list_projects(session: Session, tenant: TenantName) -> None:
    """List a tenant's projects."""
    session.output.projects(session.client.projects(tenant))


def create_user(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="USER", help="Name of the user.")],
    role: Annotated[Role, typer.Option(help="What the user may do. admin, member and viewer need --tenant.")],
    tenant: OfTenant = None,
) -> None:
    """Make a user, or a service account."""
    session.output.user(session.client.create_user(name, role=role, tenant=tenant))


def set_user(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="USER", help="Name of the user.")],
    tenant: OfTenant = None,
    disable: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Stop the user's keys from working, or undo it.", show_default=False)
    ] = None,
) -> None:
    """Disable a user, or enable it again."""
    if disable is None:
        raise InputError("disable", "nothing to change; name --disable or --enable")
    user = session.client.user(name, tenant=tenant)
    session.output.user(session.client.set_user(user.id, is_disabled=disable))


def list_users(
    session: Session, tenant: OfTenant = None, name: Annotated[str | None, typer.Option(help="Only users with this name.")] = None
) -> None:
    """List users."""
    session.output.users(session.client.users(tenant=tenant, name=name))


def create_key(
    session: Session,
    user: Annotated[str | None, typer.Argument(metavar="[USER]", help="Name of the user. (default: oneself)")] = None,
    tenant: OfTenant = None,
    node: Annotated[str | None, typer.Option(help="Make a key for this node's agent instead.")] = None,
    name: Annotated[str, typer.Option(help="A name for people, to tell keys apart.")] = "key",
    scope: Annotated[list[str] | None, typer.Option(help="Narrow what the key may do, such as jobs:read; repeat for more.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="2026-11-01, or 90d from now. (default: never)")] = None,
) -> None:
    """Make an API key. Its secret is shown once."""
    if node is not None and (user is not None or tenant is not None):
        raise InputError("node", "a key is for a user or for a node, not for both")
    user_id = None if user is None else session.client.user(user, tenant=tenant).id
    expires_at = moments.read("expires", expires, Direction.AHEAD)
    scopes = tuple(scope) if scope else ("*",)
    session.output.key_created(session.client.create_key(user_id=user_id, name=name, scopes=scopes, expires_at=expires_at, node=node))


def list_keys(session: Session) -> None:
    """List keys, without their secrets."""
    session.output.keys(session.client.keys())


def revoke_key(session: Session, key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key.")]) -> None:
    """Revoke a key; doing it again changes nothing."""
    session.output.key_revoked(session.client.revoke_key(key_id))


def create_node(
    session: Session,
    name: NodeName,
    site: Annotated[str, typer.Option(help="Data centre.")] = "local",
    rack: Annotated[str | None, typer.Option(help="Rack.")] = None,
) -> None:
    """Register a node that an agent will speak for."""
    session.output.node(session.client.create_node(name, site=site, rack=rack))


def set_node(
    session: Session,
    name: NodeName,
    cordon: Annotated[
        bool | None, typer.Option("--cordon/--uncordon", help="Start nothing new there; undo it.", show_default=False)
    ] = None,
    drain: Annotated[
        bool | None,
        typer.Option("--drain/--undrain", help="Cordon it and queue the jobs on it again; undo it.", show_default=False),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Add or change a label; repeat for more.")] = None,
    unlabel: Annotated[list[str] | None, typer.Option(metavar="K", help="Take a label away; repeat for more.")] = None,
    taint: Annotated[
        list[str] | None, typer.Option(metavar="T", help="Only jobs that tolerate it are placed there; repeat for more. Replaces all.")
    ] = None,
    no_taints: Annotated[bool, typer.Option("--no-taints", help="Take all taints away.")] = False,
    rack: Annotated[str | None, typer.Option(help="Rack.")] = None,
    no_rack: Annotated[bool, typer.Option("--no-rack", help="It stands in no rack.")] = False,
) -> None:
    """Cordon or drain a node, or undo it; label it, taint it, or say which rack it stands in."""
    _exclude(taint=taint, no_taints=no_taints)
    _exclude(rack=rack, no_rack=no_rack)
    labels: dict[str, str | None] = dict.fromkeys(unlabel or [])
    labels |= {key: value for key, _, value in (item.partition("=") for item in label or [])}
    taints = [] if no_taints else taint or None
    _need_one(cordon=cordon, drain=drain, label=labels or None, taint=taints, rack=rack or no_rack or None)
    place = None if no_rack else KEEP if rack is None else rack
    session.output.node(
        session.client.set_node(name, is_cordoned=cordon, is_draining=drain, labels=labels or None, taints=taints, rack=place)
    )


def declare_node_gone(session: Session, name: NodeName) -> None:
    """Say that a lost node does not come back, so that its jobs go on elsewhere."""
    session.output.node(session.client.declare_node_gone(name))


def show_node(session: Session, name: NodeName) -> None:
    """Show a node with its devices and the leases that hold them."""
    session.output.node(session.client.node(name))


def list_nodes(session: Session) -> None:
    """List nodes."""
    session.output.nodes(session.client.nodes())


def set_price(
    session: Session,
    flavor: Annotated[str, typer.Argument(metavar="FLAVOR", help="Kind of GPU.")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Price per slice and hour, such as 3.50.")],
    currency: Annotated[str, typer.Option(help="USD or VND.")] = "USD",
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Valid from. (default: now)")] = None,
) -> None:
    """Set a list price from a moment on. What is rated already keeps its price."""
    units_per_hour = units.money_units("amount", amount, currency)
    valid_from = moments.read("from", start, Direction.AHEAD)
    session.output.price(session.client.create_price(flavor, units_per_hour=units_per_hour, currency=currency, valid_from=valid_from))


def list_prices(session: Session) -> None:
    """List all list prices, past and future ones too."""
    session.output.prices(session.client.prices())


def _exclude(**options: object) -> None:
    if all(options.values()):
        one, other = (f"--{name.replace('_', '-')}" for name in options)
        raise InputError(list(options)[-1].replace("_", "-"), f"{one} and {other} exclude each other")


def _need_one(**options: object) -> None:
    if all(value is None for value in options.values()):
        raise InputError(
            next(iter(options)), f"nothing to change; name at least one of {', '.join('--' + name.replace('_', '-') for name in options)}"
        )


_GROUPS: tuple[tuple[str, str, dict[str, Callable[..., None]]], ...] = (
    ("tenant", "Businesses.", {"create": create_tenant, "set": set_tenant, "list": list_tenants}),
    ("project", "Bodies of work in a tenant.", {"create": create_project, "list": list_projects}),
    ("user", "People and service accounts.", {"create": create_user, "set": set_user, "list": list_users}),
    ("key", "API keys.", {"create": create_key, "list": list_keys, "revoke": revoke_key}),
    (
        "quota",
        "What tenants and cohorts may hold at once, and by which rules.",
        {
            "set": quota_commands.set_quota,
            "get": quota_commands.get_quota,
            "list": quota_commands.list_quotas,
            "tree": quota_commands.show_tree,
            "import": quota_commands.import_quotas,
        },
    ),
    (
        "cohort",
        "Inner nodes of the quota tree.",
        {
            "create": quota_commands.create_cohort,
            "set": quota_commands.set_cohort,
            "delete": quota_commands.delete_cohort,
            "list": quota_commands.list_cohorts,
        },
    ),
    (
        "reservation",
        "GPUs set aside for a tenant in a window.",
        {
            "create": calendar_commands.create_reservation,
            "cancel": calendar_commands.cancel_reservation,
            "list": calendar_commands.list_reservations,
        },
    ),
    (
        "maintenance",
        "Windows in which nodes rest.",
        {
            "create": calendar_commands.create_maintenance,
            "cancel": calendar_commands.cancel_maintenance,
            "list": calendar_commands.list_maintenance,
        },
    ),
    ("policy", "How the scheduler chooses.", {"get": calendar_commands.get_policy, "set": calendar_commands.set_policy}),
    ("node", "Machines.", {"create": create_node, "set": set_node, "gone": declare_node_gone, "show": show_node, "list": list_nodes}),
    ("price", "List prices.", {"set": set_price, "list": list_prices}),
)
