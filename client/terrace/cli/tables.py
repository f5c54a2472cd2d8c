"""What commands print for people: tables, and sentences with numbers.

Owns which columns there are and how values are spelt: times in this machine's time zone, amounts exact in the units that people use, names
of others made harmless. Does not own the difference between a terminal and a pipe (text.py) or the sentences of reasons
(terrace/reasons.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from terrace import reasons, units
from terrace.cli import scheduling_tables
from terrace.cli.output import Output
from terrace.cli.text import Grid, printable, write, write_grid, write_now
from terrace.models.fleet import FlavorAnswer, NodeAnswer, PriceAnswer, QuotaAnswer
from terrace.models.jobs import AttemptAnswer, EstimateAnswer, EventAnswer, JobAnswer, JobDetail, JobState, LogPiece, Within
from terrace.models.people import Identity, KeyAnswer, KeyCreated, ProjectAnswer, TenantAnswer, UserAnswer
from terrace.models.scheduling import (
    CohortAnswer,
    MaintenanceAnswer,
    PolicyAnswer,
    QuotaImportAnswer,
    QuotaNodeAnswer,
    QuotaTreeAnswer,
    ReservationAnswer,
    RulesAnswer,
)
from terrace.models.usage import UsageReport, UsageRow

NOTHING = "-"
SHORT_TEXT_LENGTH = 60
GROUP_FIELDS = {"tenant": "tenant", "project": "project", "user": "user", "flavor": "flavor", "job": "job_id"}


class TableOutput(Output):
    """Tables and sentences."""

    is_for_people = True

    def submitted(self, job: JobAnswer) -> None:
        say(f"{job.id}  {job.state.value}  {shape(job)}, limit {units.duration(job.limit_seconds)}")
        if job.state is JobState.QUEUED:
            write(f"  terrace why {job.id}      why it waits, and until when")
        write(f"  terrace logs -f {job.id}  its output")

    def jobs(self, jobs: Sequence[JobAnswer]) -> None:
        has_tenants = len({job.tenant for job in jobs}) > 1
        columns = ["id", *(["tenant"] if has_tenants else []), "name", "project", "state", "asks for", "submitted", "note"]
        grid = Grid(columns)
        for job in jobs:
            tenant = [job.tenant] if has_tenants else []
            grid.add(
                job.id, *tenant, job.name or NOTHING, job.project, job.state.value, shape(job), reasons.local(job.submitted_at), note(job)
            )
        write_grid(grid)

    def job(self, job: JobDetail) -> None:
        say_fields(
            ("id", job.id),
            ("name", job.name),
            ("state", job.state.value + (f", asked to {job.target}" if job.target != "run" and job.state.value != "cancelled" else "")),
            ("note", note(job) if note(job) != NOTHING else None),
            ("tenant, project, user", f"{job.tenant}, {job.project}, {job.user}"),
            ("command", " ".join(job.entrypoint)),
            ("asks for", shape(job)),
            ("where", place(job)),
            ("limit", f"{units.duration(job.limit_seconds)}, tier {job.tier}, priority {job.priority}"),
            ("submitted", moment(job.submitted_at)),
            ("started", moment(job.started_at)),
            ("ended", moment(job.ended_at)),
            ("exit code", None if job.exit_code is None else str(job.exit_code)),
            ("progress", progress(job.progress)),
            ("attempts", f"{job.attempt} of at most {job.maximum_attempts}"),
        )
        if job.attempts:
            write("")
            write_grid(attempts(job.attempts))

    def why(self, job: JobDetail) -> None:
        for line in why_lines(job):
            say(line)

    def ended(self, jobs: Sequence[JobDetail]) -> None:
        for job in jobs:
            say(ending(job))

    def cancelled(self, jobs: Sequence[JobAnswer]) -> None:
        for job in jobs:
            say(f"{job.id}  {'cancelled' if job.state is JobState.CANCELLED else ending(job, of=job.state.value + ', asked to end')}")

    def estimate(self, estimate: EstimateAnswer) -> None:
        now = reasons.now_utc()
        if estimate.starts_now:
            write("It would start now.")
        elif estimate.reason is not None:
            say(f"It would wait ({estimate.reason.code}). {reasons.sentence(estimate.reason.code, estimate.reason.data)}")
            say(reasons.unblocking(estimate.reason.unblocks_when))
            say(reasons.forecast(estimate.forecast, now))
        hold = units.price(estimate.hold_amount_units, estimate.currency)
        price = units.price(estimate.price_units_per_hour, estimate.currency)
        say(f"It would cost at most {hold}: {price} per GPU and hour, for {units.duration(estimate.limit_seconds)} and its grace.")

    def logs(self, pieces: Iterable[LogPiece]) -> None:
        for piece in pieces:
            write_now(piece.text)

    def events(self, events: Iterable[EventAnswer]) -> None:
        for event in events:
            about = " ".join(item for item in (event.tenant, event.job_id, event.lease_id, event.node) if item)
            data = " ".join(f"{name}={value}" for name, value in event.data.items())
            say(f"{reasons.local(event.at)}  {event.kind:<20}  {about}  {data}".rstrip())
            sys.stdout.flush()

    def quotas(self, quotas: Sequence[QuotaAnswer]) -> None:
        grid = Grid(["tenant", "project", "resource", "held", "quota", "queued", "may borrow"], frozenset({"held", "quota", "queued"}))
        for quota in quotas:
            held, nominal, queued = (amount(quota.resource, value) for value in (quota.held, quota.nominal, quota.queued))
            borrow = NOTHING if quota.borrowing_limit is None else amount(quota.resource, quota.borrowing_limit)
            resource = quota.resource + simulated(quota.is_simulated)
            grid.add(quota.tenant or NOTHING, quota.project or NOTHING, resource, held, nominal, queued, borrow)
        write_grid(grid)

    def quota_set(self, quota: QuotaAnswer) -> None:
        who = "/".join(name for name in (quota.tenant, quota.project) if name is not None)
        nominal = f"{amount(quota.resource, quota.nominal)} {quota.resource}"
        say(f"{who} may hold {nominal} at once." if quota.cohort is None else f"cohort {quota.cohort} owns {nominal}, for all below it.")
        for warning in quota.warnings:
            say(f"  warning: {warning}")

    def usage(self, report: UsageReport) -> None:
        say(f"Usage of ended leases from {moment(report.start)} to {moment(report.end)}{simulated(report.is_simulated)}")
        figures = ["leases", "gpu time", report.currency.lower()]
        grid = Grid([*report.group_by, *figures], frozenset(figures))
        for row in report.rows:
            grid.add(*_group(row, report.group_by), *_figures(row.leases, row.milli_gpu_ms, row.amount_units, report.currency))
        leases = sum(row.leases for row in report.rows)
        if report.group_by:
            blanks = [""] * (len(report.group_by) - 1)
            grid.add("total", *blanks, *_figures(leases, report.total_milli_gpu_ms, report.total_amount_units, report.currency))
        write_grid(grid)
        for line in check_lines(report):
            say(line)

    def flavors(self, flavors: Sequence[FlavorAnswer]) -> None:
        grid = Grid(["flavor", "gpu model", "mode", "gpus", "price per hour"], frozenset({"gpus", "price per hour"}))
        for flavor in flavors:
            is_priced = flavor.price_units_per_hour is not None and flavor.currency is not None
            price = units.price(flavor.price_units_per_hour or 0, flavor.currency or "") if is_priced else NOTHING
            model = flavor.gpu_model + simulated(flavor.is_simulated)
            grid.add(flavor.name, model, flavor.mode, units.gpus(flavor.milli_gpu), price)
        write_grid(grid)

    def identity(self, identity: Identity, url: str) -> None:
        of = f" of {identity.tenant}" if identity.tenant else ""
        scopes = "" if identity.scopes == ["*"] else f", scopes {', '.join(identity.scopes)}"
        say(f"{identity.user}{of} ({identity.role.value}{scopes}) at {url}, service {identity.service_version}")

    def logged_out(self, file: str) -> None:
        say(f"Logged out: {file} is gone.")

    def tenants(self, tenants: Sequence[TenantAnswer]) -> None:
        grid = Grid(["tenant", "cohort", "weight", "suspended", "created"], frozenset({"weight"}))
        for item in tenants:
            weight = units.gpus(item.weight_milli)
            grid.add(item.name, item.parent or NOTHING, weight, "yes" if item.is_suspended else "no", reasons.local(item.created_at))
        write_grid(grid)

    def tenant(self, tenant: TenantAnswer) -> None:
        state = "suspended" if tenant.is_suspended else "active"
        say(f"tenant {tenant.name}: {state}, weight {units.gpus(tenant.weight_milli)}")

    def projects(self, projects: Sequence[ProjectAnswer]) -> None:
        grid = Grid(["tenant", "project", "created"])
        for item in projects:
            grid.add(item.tenant, item.name, reasons.local(item.created_at))
        write_grid(grid)

    def project(self, project: ProjectAnswer) -> None:
        say(f"project {project.name} of {project.tenant}")

    def users(self, users: Sequence[UserAnswer]) -> None:
        grid = Grid(["id", "user", "tenant", "role", "disabled", "created"])
        for item in users:
            is_disabled = "yes" if item.is_disabled else "no"
            grid.add(item.id, item.name, item.tenant or NOTHING, item.role.value, is_disabled, reasons.local(item.created_at))
        write_grid(grid)

    def user(self, user: UserAnswer) -> None:
        state = ", disabled" if user.is_disabled else ""
        say(f"user {user.name}{f' of {user.tenant}' if user.tenant else ''}: {user.role.value}{state}, {user.id}")

    def keys(self, keys: Sequence[KeyAnswer]) -> None:
        grid = Grid(["id", "user id", "name", "node", "scopes", "created", "expires", "revoked"])
        for item in keys:
            dates = [moment(item.expires_at) or NOTHING, moment(item.revoked_at) or NOTHING]
            scopes = ", ".join(item.scopes)
            grid.add(item.id, item.user_id, item.name, item.node or NOTHING, scopes, reasons.local(item.created_at), *dates)
        write_grid(grid)

    def key_created(self, key: KeyCreated) -> None:
        expires = moment(key.expires_at)
        say(f"key {key.id}{f' for node {key.node}' if key.node else ''}, {f'valid until {expires}' if expires else 'without end'}")
        write("This is the only time that its secret is shown:")
        say(key.secret)

    def key_revoked(self, key: KeyAnswer) -> None:
        say(f"key {key.id}: revoked {moment(key.revoked_at)}")

    def nodes(self, nodes: Sequence[NodeAnswer]) -> None:
        right = frozenset({"gpus", "leased", "cpus", "memory"})
        grid = Grid(["node", "site", "rack", "state", "model", "gpus", "leased", "cpus", "memory", "isolation", "heard of"], right)
        for item in nodes:
            model = (item.gpu_model or NOTHING) + simulated(item.is_simulated)
            gpus = units.gpus(item.milli_gpu_total), units.gpus(item.milli_gpu_leased)
            rest = units.cpus(item.cpu_milli), units.memory_about(item.memory_bytes), item.isolation or NOTHING
            grid.add(item.name, item.site, item.rack or NOTHING, item.state, model, *gpus, *rest, moment(item.heartbeat_at) or "never")
        write_grid(grid)

    def node(self, node: NodeAnswer) -> None:
        leased = f"{units.gpus(node.milli_gpu_leased)} of {units.gpus(node.milli_gpu_total)} GPUs leased"
        say(f"node {node.name} at {node.site}: {node.state}, {leased}")
        if node.devices:
            grid = Grid(["device", "uuid", "model", "mode", "health", "lease"], frozenset({"device"}))
            for item in node.devices:
                health = item.health + (f" ({item.health_detail})" if item.health_detail else "")
                grid.add(str(item.device_index), item.uuid, item.gpu_model, item.mode, health, item.lease_id or NOTHING)
            write_grid(grid)

    def prices(self, prices: Sequence[PriceAnswer]) -> None:
        grid = Grid(["id", "flavor", "price per hour", "from"], frozenset({"price per hour"}))
        for item in prices:
            grid.add(item.id, item.flavor, units.price(item.units_per_hour, item.currency), reasons.local(item.valid_from))
        write_grid(grid)

    def price(self, price: PriceAnswer) -> None:
        say(f"{price.flavor}: {units.price(price.units_per_hour, price.currency)} per slice and hour from {moment(price.valid_from)}")

    def rules(self, rules: RulesAnswer) -> None:
        say("/".join(name for name in (rules.tenant, rules.project) if name is not None))
        for line in scheduling_tables.rules_lines(rules):
            say(f"  {line}")

    def quota_node(self, node: QuotaNodeAnswer) -> None:
        for line in scheduling_tables.node_lines(node):
            say(line)
        write_grid(scheduling_tables.node_grid(node))

    def quota_tree(self, tree: QuotaTreeAnswer) -> None:
        write_grid(scheduling_tables.tree(tree.nodes))

    def quota_import(self, answer: QuotaImportAnswer) -> None:
        for line in scheduling_tables.import_lines(answer):
            say(line)

    def cohort(self, cohort: CohortAnswer) -> None:
        below = f" below {cohort.parent}" if cohort.parent else ""
        say(f"cohort {cohort.name}{below}, weight {units.gpus(cohort.weight_milli)}")

    def cohort_deleted(self, cohort: CohortAnswer) -> None:
        say(f"cohort {cohort.name} is gone.")

    def cohorts(self, cohorts: Sequence[CohortAnswer]) -> None:
        grid = Grid(["cohort", "below", "weight"], frozenset({"weight"}))
        for cohort in cohorts:
            grid.add(cohort.name, cohort.parent or NOTHING, units.gpus(cohort.weight_milli))
        write_grid(grid)

    def reservation(self, reservation: ReservationAnswer) -> None:
        write_grid(scheduling_tables.reservations([reservation]))

    def reservations(self, reservations: Sequence[ReservationAnswer]) -> None:
        write_grid(scheduling_tables.reservations(reservations))

    def maintenance(self, window: MaintenanceAnswer) -> None:
        write_grid(scheduling_tables.maintenance([window]))

    def maintenance_windows(self, windows: Sequence[MaintenanceAnswer]) -> None:
        write_grid(scheduling_tables.maintenance(windows))

    def policy(self, policy: PolicyAnswer) -> None:
        write_grid(scheduling_tables.policy(policy))


def say(line: str) -> None:
    """Write a line that may hold names of others."""
    write(printable(line))


def say_fields(*fields: tuple[str, str | None]) -> None:
    """Write names and values, one per line, without those that have no value."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value:
            say(f"{name.ljust(width)}  {value}")


def moment(time_given: datetime | None) -> str | None:
    """Return a moment in local time, None for none."""
    return None if time_given is None else reasons.local(time_given)


def amount(resource: str, value: int) -> str:
    """Return an amount of a quota's resource in the unit that people use."""
    if resource == "memory":
        return units.memory_about(value)
    return units.cpus(value) if resource == "cpu" else units.gpus(value)


def shape(job: JobAnswer) -> str:
    """Return what a job asks for: `2 x 1 h200`."""
    flavors = " or ".join(job.flavors)
    parts = [f"{job.gpus} {flavors}".strip()] if job.gpus else []
    if job.cpu_milli:
        parts.append(f"{units.cpus(job.cpu_milli)} CPUs")
    if job.memory_bytes:
        parts.append(units.memory_about(job.memory_bytes))
    each = " + ".join(parts)
    return each if job.replicas == 1 else f"{job.replicas} x {each}"


def simulated(is_simulated: bool) -> str:
    """Return what stands behind everything that is not of real GPUs."""
    return " (simulated)" if is_simulated else ""


def place(job: JobAnswer) -> str | None:
    """Return where a job may run, when it said so: `on hanoi, never on hue, label disk=nvme`."""
    said = []
    if job.sites:
        said.append(f"on {' or '.join(job.sites)}")
    if job.deny_sites:
        said.append(f"never on {' or '.join(job.deny_sites)}")
    if job.prefer_sites:
        said.append(f"first on {', then '.join(job.prefer_sites)}")
    said += [f"label {name}={value}" for name, value in job.node_labels.items()]
    if job.tolerates:
        said.append(f"tolerates {', '.join(job.tolerates)}")
    if job.within != Within.SITE:
        said.append(f"within one {job.within}")
    return ", ".join(said) or None


def progress(reported: dict[str, Any] | None) -> str | None:
    """Return what a job last reported: `12/60 accuracy 0.93`."""
    if not reported:
        return None
    step, total = reported.get("step"), reported.get("total")
    steps = [] if step is None else [f"{step}/{total}" if total is not None else str(step)]
    rest = [f"{name} {value}" for name, value in reported.items() if name not in ("step", "total") and value is not None]
    return " ".join([*steps, *rest]) or None


def note(job: JobAnswer) -> str:
    """Return the one thing worth knowing of a job in a listing: why it waits, how far it is, how it failed."""
    if job.reason is not None:
        return job.reason.code
    if job.state is JobState.FAILED:
        text = f"{job.failure_class or 'failed'}: {job.message}" if job.message else job.failure_class or NOTHING
        return text if len(text) <= SHORT_TEXT_LENGTH else text[: SHORT_TEXT_LENGTH - 1] + "…"
    return progress(job.progress) or NOTHING


def ending(job: JobAnswer, *, of: str | None = None) -> str:
    """Return how a job ended, in one line."""
    words = [job.id, of or job.state.value]
    if job.state is JobState.FAILED:
        words.append(f"{job.failure_class or 'unknown cause'}{f': {job.message}' if job.message else ''}")
    if job.started_at is not None and job.ended_at is not None:
        words.append(f"after {units.duration_about(int((job.ended_at - job.started_at).total_seconds()))}")
    reported = progress(job.progress)
    return "  ".join([*words, *([reported] if reported else [])])


def why_lines(job: JobDetail) -> list[str]:
    """Return why a job waits, what would let it start and when; of one that does not wait, what it does instead."""
    title = f"{job.id}{f' ({job.name})' if job.name else ''}"
    if job.reason is None:
        state = f"{title} is {job.state.value}, it does not wait." if job.state not in _ENDED else ending(job)
        return [state]
    answered = "" if job.reason.answered_at is None else f", answered {moment(job.reason.answered_at)}"
    return [
        f"{title} is {job.state.value}: {job.reason.code}{answered}",
        f"  {reasons.sentence(job.reason.code, job.reason.data)}",
        f"  {reasons.unblocking(job.reason.unblocks_when)}",
        f"  {reasons.forecast(job.forecast, reasons.now_utc())}",
    ]


_ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


def attempts(found: Sequence[AttemptAnswer]) -> Grid:
    """Return the attempts of a job as a grid, with where they ran."""
    grid = Grid(["attempt", "lease", "granted", "ended", "outcome", "exit", "devices"], frozenset({"attempt", "exit"}))
    for item in found:
        places: dict[str, list[str]] = {}
        for part in item.slices:
            places.setdefault(part.node, []).append(str(part.device_index))
        devices = ", ".join(f"{node}[{','.join(indices)}]" for node, indices in places.items())
        mark = " simulated" if any(part.is_simulated for part in item.slices) else ""
        outcome = item.outcome or ("running" if item.ended_at is None else NOTHING)
        exit_code = NOTHING if item.exit_code is None else str(item.exit_code)
        ended = moment(item.ended_at) or NOTHING
        grid.add(str(item.number), item.lease_id, reasons.local(item.created_at), ended, outcome, exit_code, (devices or NOTHING) + mark)
    return grid


def check_lines(report: UsageReport) -> list[str]:
    """Return the proof of a report: the totals of its lines beside those computed from the leases."""
    check = report.check
    verdict = "equal" if check.is_equal else "DIFFERENT"
    leases = f"{check.leases} leases: {units.gpu_time(check.lease_milli_gpu_ms)}, {units.price(check.lease_amount_units, report.currency)}"
    lines = f"lines: {units.gpu_time(check.line_milli_gpu_ms)}, {units.price(check.line_amount_units, report.currency)}"
    left = []
    if check.unrated_leases:
        left.append(f"{check.unrated_leases} ended a moment ago and have no lines yet")
    if check.open_leases:
        left.append(f"{check.open_leases} still run and are in no report yet")
    return [f"Check: {leases}; {lines}: {verdict}.", *([f"Leases beside: {'; '.join(left)}."] if left else [])]


def _group(row: UsageRow, groups: Sequence[str]) -> list[str]:
    return [getattr(row, GROUP_FIELDS.get(group, group), None) or NOTHING for group in groups]


def _figures(leases: int, milli_gpu_ms: int, amount_units: int, currency: str) -> tuple[str, str, str]:
    return str(leases), units.gpu_time(milli_gpu_ms), units.money(amount_units, currency)
