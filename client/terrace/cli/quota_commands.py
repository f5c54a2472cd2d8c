"""`terrace ops quota` and `terrace ops cohort`: what tenants and cohorts may hold, by which rules, and how it stands.

Each fetches and hands the answer to the session's output. Amounts are typed as people say them and sent as integers; `none` takes a cap or
a threshold away. Manifests of an import are read here and sent as they are: the service knows Kueue, this command does not.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from terrace import units
from terrace.cli import moments
from terrace.cli.moments import Direction
from terrace.cli.session import Session
from terrace.models.scheduling import MANIFEST_LENGTH_MAXIMUM, BorrowPreempt, Reclaim, WhenCanBorrow, WhenCanPreempt, WithinTenant
from terrace.sdk.errors import InputError
from terrace.sdk.scheduling import GPU_RESOURCE, KEEP

NONE = "none"
MANIFEST_SUFFIXES = (".yaml", ".yml", ".json")

CohortName = Annotated[str, typer.Argument(metavar="COHORT", help="Name of a cohort.")]
NodeOfTree = Annotated[str, typer.Argument(metavar="NAME", help="Name of a tenant, or with --cohort of a cohort.")]
OfProject = Annotated[str | None, typer.Option(help="A project of the tenant.")]
IsCohort = Annotated[bool, typer.Option("--cohort", help="NAME is a cohort.")]
Parent = Annotated[str | None, typer.Option(help="Cohort above.")]


@dataclass
class RuleOptions:
    """The rules of a tenant or project. What is None was not given."""

    within_tenant: Annotated[WithinTenant | None, typer.Option(help="Whose jobs its jobs may stop within the tenant.")] = None
    reclaim: Annotated[Reclaim | None, typer.Option(help="Whose jobs may be stopped to get lent quota back.")] = None
    borrow_preempts: Annotated[
        BorrowPreempt | None, typer.Option(help="Whether a borrowing job may stop others that borrow; not with fair sharing.")
    ] = None
    borrow_max_priority: Annotated[
        str | None, typer.Option(metavar="N", help="Such jobs stop only jobs up to this priority; none: no bound.")
    ] = None
    when_can_borrow: Annotated[WhenCanBorrow | None, typer.Option(help="Borrow in one flavor before the next is tried, or not.")] = None
    when_can_preempt: Annotated[WhenCanPreempt | None, typer.Option(help="Preempt in one flavor before the next is tried, or not.")] = None
    user_cap: Annotated[str | None, typer.Option(metavar="GPUS", help="The most that one user may hold; none: no cap.")] = None

    def changes(self) -> dict[str, Any]:
        """Return the fields that were given, as the wire names them."""
        names = {"reclaim": "reclaim_within_cohort", "borrow_preempts": "borrow_within_cohort", "user_cap": "user_cap_milli_gpu"}
        given = {item.name: getattr(self, item.name) for item in fields(self) if getattr(self, item.name) is not None}
        if self.user_cap is not None:
            given["user_cap"] = None if self.user_cap == NONE else units.milli_gpu("user-cap", self.user_cap)
        if self.borrow_max_priority is not None:
            given["borrow_max_priority"] = None if self.borrow_max_priority == NONE else _integer(self.borrow_max_priority)
        return {names.get(name, name): value for name, value in given.items()}


def set_quota(
    session: Session,
    name: NodeOfTree,
    rules: RuleOptions,
    resource: Annotated[str | None, typer.Argument(metavar="RESOURCE", help="A GPU model, cpu, or memory.")] = None,
    amount: Annotated[str | None, typer.Argument(metavar="AMOUNT", help="GPUs or CPUs such as 4 or 0.5; memory such as 64GiB.")] = None,
    project: OfProject = None,
    is_cohort: IsCohort = False,
    borrow: Annotated[str | None, typer.Option(metavar="AMOUNT", help="How much more may be borrowed. (default: no bound)")] = None,
    lend: Annotated[str | None, typer.Option(metavar="AMOUNT", help="How much may be lent. (default: all)")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Valid from. (default: now)")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Valid until. (default: without end)")] = None,
) -> None:
    """Set what a tenant, project or cohort may hold at once, or its rules. Cutting it below what is held stops nothing."""
    _check_kind(is_cohort=is_cohort, project=project)
    changes = rules.changes()
    if changes:
        if is_cohort:
            raise InputError("cohort", "rules are a tenant's or project's; cohorts have none")
        if any(item is not None for item in (resource, amount, borrow, lend, start, until)):
            raise InputError("resource", "amounts and rules are set by separate commands")
        session.output.rules(session.client.set_rules(name, project=project, **changes))
        return
    if resource is None or amount is None:
        raise InputError("resource", "nothing to change; name RESOURCE and AMOUNT, or a rule such as --reclaim")
    set_amounts = session.client.set_cohort_quota if is_cohort else partial(session.client.set_quota, project=project)
    quota = set_amounts(
        name,
        resource,
        nominal=_amount("amount", resource, amount),
        borrowing_limit=None if borrow is None else _amount("borrow", resource, borrow),
        lending_limit=None if lend is None else _amount("lend", resource, lend),
        valid_from=moments.read("from", start, Direction.AHEAD),
        valid_until=moments.read("until", until, Direction.AHEAD),
    )
    session.output.quota_set(quota)


def get_quota(session: Session, name: NodeOfTree, project: OfProject = None, is_cohort: IsCohort = False) -> None:
    """Show one tenant, project or cohort: quotas in force, what it holds, its share and its rules."""
    _check_kind(is_cohort=is_cohort, project=project)
    session.output.quota_node(session.client.quota_node(name, project=project, is_cohort=is_cohort))


def list_quotas(session: Session, tenant: Annotated[str | None, typer.Option("--tenant", help="Name of the tenant.")] = None) -> None:
    """Show quotas, what is held and what is queued against them."""
    session.output.quotas(session.client.quota(tenant))


def show_tree(session: Session) -> None:
    """Draw the quota tree: quotas in force, what is held, weights and shares."""
    session.output.quota_tree(session.client.quota_tree())


def import_quotas(
    session: Session,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files of Kueue's objects, or directories of them.")],
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made and changed.")] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="FLAVOR=MODEL", help="The GPU model of a ResourceFlavor that is not called so; repeat for more."),
    ] = None,
    gpu_resource: Annotated[str, typer.Option(metavar="NAME", help="The resource that counts GPUs.")] = GPU_RESOURCE,
) -> None:
    """Make the quotas that Kueue's Cohorts and ClusterQueues describe, all or nothing, and name what has no counterpart."""
    models = dict(_pair("model", item) for item in model or [])
    answer = session.client.import_quotas(_manifests(paths), models=models, gpu_resource=gpu_resource, is_dry_run=is_dry_run)
    session.output.quota_import(answer)


def create_cohort(
    session: Session,
    name: CohortName,
    parent: Parent = None,
    weight: Annotated[str | None, typer.Option(metavar="N", help="Weight in fair sharing, such as 1 or 2.5. (default: 1)")] = None,
) -> None:
    """Make a cohort: an inner node of the quota tree, whose members lend to one another."""
    weight_milli = units.MILLI if weight is None else units.cpu_milli("weight", weight)
    session.output.cohort(session.client.create_cohort(name, parent=parent, weight_milli=weight_milli))


def set_cohort(
    session: Session,
    name: CohortName,
    parent: Parent = None,
    root: Annotated[bool, typer.Option("--root", help="Let it stand below no cohort.")] = False,
    weight: Annotated[str | None, typer.Option(metavar="N", help="Weight in fair sharing, such as 1 or 2.5.")] = None,
) -> None:
    """Move a cohort with all that stands below it, or change its weight."""
    if parent is None and weight is None and not root:
        raise InputError("parent", "nothing to change; name at least one of --parent, --root, --weight")
    if parent is not None and root:
        raise InputError("root", "--parent and --root exclude each other")
    weight_milli = KEEP if weight is None else units.cpu_milli("weight", weight)
    place = None if root else KEEP if parent is None else parent
    session.output.cohort(session.client.set_cohort(name, parent=place, weight_milli=weight_milli))


def delete_cohort(session: Session, name: CohortName) -> None:
    """Take an empty cohort away."""
    session.output.cohort_deleted(session.client.delete_cohort(name))


def list_cohorts(session: Session) -> None:
    """List cohorts."""
    session.output.cohorts(session.client.cohorts())


def _check_kind(*, is_cohort: bool, project: str | None) -> None:
    if is_cohort and project is not None:
        raise InputError("project", "a cohort has no projects")


def _amount(field: str, resource: str, text: str) -> int:
    if resource == "memory":
        return units.memory_bytes(field, text)
    return units.cpu_milli(field, text) if resource == "cpu" else units.milli_gpu(field, text)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError("borrow-max-priority", f"{text!r} is neither an integer nor `{NONE}`") from error


def _pair(field: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise InputError(field, f"{text!r} is not {field.upper()} as NAME=VALUE")
    return name, value


def _manifests(paths: list[Path]) -> dict[str, str]:
    """Return the texts of files, and of the manifests in directories, by name; InputError for what cannot be read or is too large."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(item for item in path.rglob("*") if item.is_file() and item.suffix in MANIFEST_SUFFIXES)
            if not found:
                raise InputError("path", f"{path} holds no file that ends with {', '.join(MANIFEST_SUFFIXES)}")
            files += found
        else:
            files.append(path)
    texts: dict[str, str] = {}
    left = MANIFEST_LENGTH_MAXIMUM
    for file in dict.fromkeys(files):
        try:
            with file.open("rb") as opened:
                data = opened.read(left + 1)
            left -= len(data)
            texts[str(file)] = data.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("path", f"{file} cannot be read: {error}") from error
        if left < 0:
            raise InputError("path", "the manifests are too large together", limit=f"{MANIFEST_LENGTH_MAXIMUM} bytes")
    return texts
