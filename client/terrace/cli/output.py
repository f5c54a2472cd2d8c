"""What commands print, in the forms for programs: one JSON document, or only what a script needs next.

Owns the `Output` that every command prints through: one method per kind of answer, so a new command is a new method on all three forms
(the third, for people, is tables.py). JSON is the wire's: RFC 3339 times, integers with their unit in the name; streams are one document
per line. Quiet prints identifiers, and a new key's secret. Does not own what is fetched or errors (exits.py).
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from pydantic import BaseModel
from pydantic_core import to_json

from terrace.cli.text import printable, write, write_now
from terrace.models.fleet import FlavorAnswer, NodeAnswer, PriceAnswer, QuotaAnswer
from terrace.models.jobs import EstimateAnswer, EventAnswer, JobAnswer, JobDetail, LogPiece
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
from terrace.models.usage import UsageReport


class Output(ABC):
    """One form of printing. A method is named for what it prints."""

    is_for_people = False  # whether live progress and logs are shown beside the answer

    @abstractmethod
    def submitted(self, job: JobAnswer) -> None:
        """A job that was just accepted."""

    @abstractmethod
    def jobs(self, jobs: Sequence[JobAnswer]) -> None:
        """A listing of jobs."""

    @abstractmethod
    def job(self, job: JobDetail) -> None:
        """A job with its attempts."""

    @abstractmethod
    def why(self, job: JobDetail) -> None:
        """Why a job waits, or what became of it."""

    @abstractmethod
    def ended(self, jobs: Sequence[JobDetail]) -> None:
        """Jobs that were waited for."""

    @abstractmethod
    def cancelled(self, jobs: Sequence[JobAnswer]) -> None:
        """Jobs that were asked to end."""

    @abstractmethod
    def estimate(self, estimate: EstimateAnswer) -> None:
        """What would happen to a job."""

    @abstractmethod
    def logs(self, pieces: Iterable[LogPiece]) -> None:
        """Output of a job, as it comes."""

    @abstractmethod
    def events(self, events: Iterable[EventAnswer]) -> None:
        """What happened, as it comes."""

    @abstractmethod
    def quotas(self, quotas: Sequence[QuotaAnswer]) -> None:
        """Quotas and what is held against them."""

    @abstractmethod
    def quota_set(self, quota: QuotaAnswer) -> None:
        """A quota that was just set."""

    @abstractmethod
    def usage(self, report: UsageReport) -> None:
        """A usage report with its proof."""

    @abstractmethod
    def flavors(self, flavors: Sequence[FlavorAnswer]) -> None:
        """What can be asked for."""

    @abstractmethod
    def identity(self, identity: Identity, url: str) -> None:
        """Who the key speaks for."""

    @abstractmethod
    def logged_out(self, file: str) -> None:
        """The file that held the key and is gone."""

    @abstractmethod
    def tenants(self, tenants: Sequence[TenantAnswer]) -> None:
        """A listing of tenants."""

    @abstractmethod
    def tenant(self, tenant: TenantAnswer) -> None:
        """A tenant that was made or changed."""

    @abstractmethod
    def projects(self, projects: Sequence[ProjectAnswer]) -> None:
        """A listing of projects."""

    @abstractmethod
    def project(self, project: ProjectAnswer) -> None:
        """A project that was made."""

    @abstractmethod
    def users(self, users: Sequence[UserAnswer]) -> None:
        """A listing of users."""

    @abstractmethod
    def user(self, user: UserAnswer) -> None:
        """A user that was made."""

    @abstractmethod
    def keys(self, keys: Sequence[KeyAnswer]) -> None:
        """A listing of keys, without secrets."""

    @abstractmethod
    def key_created(self, key: KeyCreated) -> None:
        """A new key; the only place where its secret is shown."""

    @abstractmethod
    def key_revoked(self, key: KeyAnswer) -> None:
        """A key that was revoked."""

    @abstractmethod
    def nodes(self, nodes: Sequence[NodeAnswer]) -> None:
        """A listing of nodes."""

    @abstractmethod
    def node(self, node: NodeAnswer) -> None:
        """A node with its devices."""

    @abstractmethod
    def prices(self, prices: Sequence[PriceAnswer]) -> None:
        """The price book."""

    @abstractmethod
    def price(self, price: PriceAnswer) -> None:
        """A price that was just set."""

    @abstractmethod
    def rules(self, rules: RulesAnswer) -> None:
        """Rules that were changed."""

    @abstractmethod
    def quota_node(self, node: QuotaNodeAnswer) -> None:
        """A node of the quota tree."""

    @abstractmethod
    def quota_tree(self, tree: QuotaTreeAnswer) -> None:
        """The quota tree."""

    @abstractmethod
    def quota_import(self, answer: QuotaImportAnswer) -> None:
        """What an import does, or did."""

    @abstractmethod
    def cohort(self, cohort: CohortAnswer) -> None:
        """A cohort that was made or changed."""

    @abstractmethod
    def cohort_deleted(self, cohort: CohortAnswer) -> None:
        """A cohort that is gone."""

    @abstractmethod
    def cohorts(self, cohorts: Sequence[CohortAnswer]) -> None:
        """A listing of cohorts."""

    @abstractmethod
    def reservation(self, reservation: ReservationAnswer) -> None:
        """A capacity reservation that was made or cancelled."""

    @abstractmethod
    def reservations(self, reservations: Sequence[ReservationAnswer]) -> None:
        """A listing of capacity reservations."""

    @abstractmethod
    def maintenance(self, window: MaintenanceAnswer) -> None:
        """A maintenance window that was made or cancelled."""

    @abstractmethod
    def maintenance_windows(self, windows: Sequence[MaintenanceAnswer]) -> None:
        """A listing of maintenance windows."""

    @abstractmethod
    def policy(self, policy: PolicyAnswer) -> None:
        """The scheduling policy."""


class JsonOutput(Output):
    """One JSON document per command; one per line for streams."""

    def _one(self, answer: BaseModel) -> None:
        write(to_json(answer, indent=2).decode())

    def _many(self, answers: Sequence[BaseModel]) -> None:
        write(to_json(answers, indent=2).decode())

    def _lines(self, answers: Iterable[BaseModel]) -> None:
        for answer in answers:
            write(to_json(answer).decode())
            sys.stdout.flush()

    def submitted(self, job: JobAnswer) -> None:
        self._one(job)

    def jobs(self, jobs: Sequence[JobAnswer]) -> None:
        self._many(jobs)

    def job(self, job: JobDetail) -> None:
        self._one(job)

    def why(self, job: JobDetail) -> None:
        self._one(job)

    def ended(self, jobs: Sequence[JobDetail]) -> None:
        self._many(jobs)

    def cancelled(self, jobs: Sequence[JobAnswer]) -> None:
        self._many(jobs)

    def estimate(self, estimate: EstimateAnswer) -> None:
        self._one(estimate)

    def logs(self, pieces: Iterable[LogPiece]) -> None:
        self._lines(pieces)

    def events(self, events: Iterable[EventAnswer]) -> None:
        self._lines(events)

    def quotas(self, quotas: Sequence[QuotaAnswer]) -> None:
        self._many(quotas)

    def quota_set(self, quota: QuotaAnswer) -> None:
        self._one(quota)

    def usage(self, report: UsageReport) -> None:
        self._one(report)

    def flavors(self, flavors: Sequence[FlavorAnswer]) -> None:
        self._many(flavors)

    def identity(self, identity: Identity, url: str) -> None:
        write(to_json({**identity.model_dump(), "url": url}, indent=2).decode())

    def logged_out(self, file: str) -> None:
        write(to_json({"file": file}, indent=2).decode())

    def tenants(self, tenants: Sequence[TenantAnswer]) -> None:
        self._many(tenants)

    def tenant(self, tenant: TenantAnswer) -> None:
        self._one(tenant)

    def projects(self, projects: Sequence[ProjectAnswer]) -> None:
        self._many(projects)

    def project(self, project: ProjectAnswer) -> None:
        self._one(project)

    def users(self, users: Sequence[UserAnswer]) -> None:
        self._many(users)

    def user(self, user: UserAnswer) -> None:
        self._one(user)

    def keys(self, keys: Sequence[KeyAnswer]) -> None:
        self._many(keys)

    def key_created(self, key: KeyCreated) -> None:
        self._one(key)

    def key_revoked(self, key: KeyAnswer) -> None:
        self._one(key)

    def nodes(self, nodes: Sequence[NodeAnswer]) -> None:
        self._many(nodes)

    def node(self, node: NodeAnswer) -> None:
        self._one(node)

    def prices(self, prices: Sequence[PriceAnswer]) -> None:
        self._many(prices)

    def price(self, price: PriceAnswer) -> None:
        self._one(price)

    def rules(self, rules: RulesAnswer) -> None:
        self._one(rules)

    def quota_node(self, node: QuotaNodeAnswer) -> None:
        self._one(node)

    def quota_tree(self, tree: QuotaTreeAnswer) -> None:
        self._one(tree)

    def quota_import(self, answer: QuotaImportAnswer) -> None:
        self._one(answer)

    def cohort(self, cohort: CohortAnswer) -> None:
        self._one(cohort)

    def cohort_deleted(self, cohort: CohortAnswer) -> None:
        self._one(cohort)

    def cohorts(self, cohorts: Sequence[CohortAnswer]) -> None:
        self._many(cohorts)

    def reservation(self, reservation: ReservationAnswer) -> None:
        self._one(reservation)

    def reservations(self, reservations: Sequence[ReservationAnswer]) -> None:
        self._many(reservations)

    def maintenance(self, window: MaintenanceAnswer) -> None:
        self._one(window)

    def maintenance_windows(self, windows: Sequence[MaintenanceAnswer]) -> None:
        self._many(windows)

    def policy(self, policy: PolicyAnswer) -> None:
        self._one(policy)


class QuietOutput(Output):
    """Only what a script needs next, one per line."""

    def _ids(self, names: Iterable[object]) -> None:
        for name in names:
            write(printable(str(name)))

    def submitted(self, job: JobAnswer) -> None:
        self._ids([job.id])

    def jobs(self, jobs: Sequence[JobAnswer]) -> None:
        self._ids(job.id for job in jobs)

    def job(self, job: JobDetail) -> None:
        self._ids([job.id])

    def why(self, job: JobDetail) -> None:
        self._ids([job.state if job.reason is None else job.reason.code])

    def ended(self, jobs: Sequence[JobDetail]) -> None:
        self._ids(job.id for job in jobs)

    def cancelled(self, jobs: Sequence[JobAnswer]) -> None:
        self._ids(job.id for job in jobs)

    def estimate(self, estimate: EstimateAnswer) -> None:
        self._ids(["starts_now" if estimate.reason is None else estimate.reason.code])

    def logs(self, pieces: Iterable[LogPiece]) -> None:
        for piece in pieces:
            write_now(piece.text)

    def events(self, events: Iterable[EventAnswer]) -> None:
        for event in events:
            self._ids([event.id])
            sys.stdout.flush()

    def quotas(self, quotas: Sequence[QuotaAnswer]) -> None:
        self._ids(dict.fromkeys(quota.resource for quota in quotas))

    def quota_set(self, quota: QuotaAnswer) -> None:
        self._ids([quota.resource])

    def usage(self, report: UsageReport) -> None:
        self._ids([report.total_amount_units])

    def flavors(self, flavors: Sequence[FlavorAnswer]) -> None:
        self._ids(flavor.name for flavor in flavors)

    def identity(self, identity: Identity, url: str) -> None:
        self._ids([identity.user_id])

    def logged_out(self, file: str) -> None:
        return

    def tenants(self, tenants: Sequence[TenantAnswer]) -> None:
        self._ids(tenant.name for tenant in tenants)

    def tenant(self, tenant: TenantAnswer) -> None:
        self._ids([tenant.name])

    def projects(self, projects: Sequence[ProjectAnswer]) -> None:
        self._ids(project.name for project in projects)

    def project(self, project: ProjectAnswer) -> None:
        self._ids([project.name])

    def users(self, users: Sequence[UserAnswer]) -> None:
        self._ids(user.id for user in users)

    def user(self, user: UserAnswer) -> None:
        self._ids([user.id])

    def keys(self, keys: Sequence[KeyAnswer]) -> None:
        self._ids(key.id for key in keys)

    def key_created(self, key: KeyCreated) -> None:
        self._ids([key.secret])

    def key_revoked(self, key: KeyAnswer) -> None:
        self._ids([key.id])

    def nodes(self, nodes: Sequence[NodeAnswer]) -> None:
        self._ids(node.name for node in nodes)

    def node(self, node: NodeAnswer) -> None:
        self._ids([node.name])

    def prices(self, prices: Sequence[PriceAnswer]) -> None:
        self._ids(price.id for price in prices)

    def price(self, price: PriceAnswer) -> None:
        self._ids([price.id])

    def rules(self, rules: RulesAnswer) -> None:
        self._ids([rules.tenant])

    def quota_node(self, node: QuotaNodeAnswer) -> None:
        self._ids([node.name])

    def quota_tree(self, tree: QuotaTreeAnswer) -> None:
        self._ids(node.name for node in tree.nodes)

    def quota_import(self, answer: QuotaImportAnswer) -> None:
        self._ids(dict.fromkeys(change.name for change in answer.changes))

    def cohort(self, cohort: CohortAnswer) -> None:
        self._ids([cohort.name])

    def cohort_deleted(self, cohort: CohortAnswer) -> None:
        self._ids([cohort.name])

    def cohorts(self, cohorts: Sequence[CohortAnswer]) -> None:
        self._ids(cohort.name for cohort in cohorts)

    def reservation(self, reservation: ReservationAnswer) -> None:
        self._ids([reservation.name])

    def reservations(self, reservations: Sequence[ReservationAnswer]) -> None:
        self._ids(item.name for item in reservations)

    def maintenance(self, window: MaintenanceAnswer) -> None:
        self._ids([window.name])

    def maintenance_windows(self, windows: Sequence[MaintenanceAnswer]) -> None:
        self._ids(window.name for window in windows)

    def policy(self, policy: PolicyAnswer) -> None:
        self._ids(policy.chosen)
