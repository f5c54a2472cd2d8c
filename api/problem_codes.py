"""Every code that a problem of this API can have: its status, and what it means in one sentence.

Owns the registry that clients build on: a code is never reused for something else, sentences may change. Routes declare theirs with
`responses`; docs/api.md lists all of them. It raises nothing; problems.py maps exceptions. Tests compare the table with every code in the
source, and every answer that a test sees with what its route declares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = "application/problem+json"
PROBLEM_REFERENCE = {"$ref": "#/components/schemas/Problem"}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code says."""

    status: int
    text: str


CODES: dict[str, Meaning] = {
    # Any request.
    "malformed_request": Meaning(400, "The request is not what HTTP or this API can read; `detail` says where."),
    "unauthenticated": Meaning(401, "There is no API key, or one that is unknown, wrong or revoked, or whose user is disabled."),
    "key_expired": Meaning(401, "The API key has expired."),
    "permission_missing": Meaning(403, "The key's role or scopes do not grant what the route needs."),
    "tenant_suspended": Meaning(403, "The key's tenant is suspended."),
    "route_not_found": Meaning(404, "There is no such path."),
    "method_not_allowed": Meaning(405, "The path does not take this method; `Allow` names those that it takes."),
    "body_too_large": Meaning(413, "The body is larger than body_bytes_maximum."),
    "not_json": Meaning(415, "The body's Content-Type is not application/json."),
    "malformed_json": Meaning(422, "The body is not JSON: NaN and Infinity, bad Unicode and nesting beyond 200 levels are not."),
    "invalid_request": Meaning(422, "A field, parameter or header is malformed or out of range; `errors` names each with its limit."),
    "invalid_cursor": Meaning(422, "`cursor` is not a `next_cursor` of this listing."),
    "not_ready": Meaning(503, "The database does not answer, or nobody can operate the service yet; `detail` says which."),
    "internal_error": Meaning(500, "The service failed. Quote the request_id."),
    "store_busy": Meaning(503, "Too many changes wait already, or another process holds the database. Nothing was changed; try again."),
    "store_closing": Meaning(503, "The service is stopping. Nothing was changed; try again."),
    "database_unavailable": Meaning(503, "The database does not answer. Nothing was changed; try again."),
    "outcome_unknown": Meaning(504, "The database went away during the commit: the change may be there. Send it again with the same key."),
    "http_error": Meaning(400, "The request was refused by the HTTP layer."),
    # Creating requests.
    "idempotency_key_reused": Meaning(409, "The Idempotency-Key came before with another route or body."),
    "idempotency_race": Meaning(409, "Other requests with this Idempotency-Key are under way; send it again."),
    "secret_shown_once": Meaning(409, "This Idempotency-Key has made a key already, and its secret is shown once only."),
    # What is not there, or is somebody else's.
    "archive_not_found": Meaning(404, "No lease on this node uses this archive, or the tenant does not have it."),
    "attempt_not_found": Meaning(404, "The job has no such attempt."),
    "cohort_not_found": Meaning(404, "There is no such cohort."),
    "job_not_found": Meaning(404, "There is no such job."),
    "key_not_found": Meaning(404, "There is no such key."),
    "maintenance_not_found": Meaning(404, "There is no such maintenance window."),
    "node_not_found": Meaning(404, "There is no such node, or the key does not speak for it."),
    "project_not_found": Meaning(404, "The tenant has no such project."),
    "reservation_not_found": Meaning(404, "There is no such capacity reservation."),
    "tenant_not_found": Meaning(404, "There is no such tenant."),
    "user_not_found": Meaning(404, "There is no such user."),
    # What exists already or has moved on.
    "borrows_with_fair_sharing": Meaning(409, "borrow_within_cohort other than never and fair sharing exclude each other."),
    "cannot_disable_oneself": Meaning(409, "Nobody can disable the user that the presented key belongs to."),
    "cohort_exists": Meaning(409, "There is a cohort of this name."),
    "cohort_not_empty": Meaning(409, "Tenants or cohorts stand below the cohort."),
    "device_elsewhere": Meaning(409, "Another node has reported this device."),
    "job_moved": Meaning(409, "The job changed while it was being cancelled; try again."),
    "maintenance_exists": Meaning(409, "There is a maintenance window of this name, or was one."),
    "node_exists": Meaning(409, "There is a node of this name."),
    "node_not_lost": Meaning(409, "Only a node whose agent is not heard can be declared gone."),
    "over_capacity": Meaning(409, "With the reservations beside it, more would be set aside at some time than the fleet has."),
    "price_exists": Meaning(409, "A price of this flavor and currency begins at this moment already."),
    "project_exists": Meaning(409, "The tenant has a project of this name."),
    "reservation_exists": Meaning(409, "There is a capacity reservation of this name, or was one."),
    "tenant_exists": Meaning(409, "There is a tenant of this name."),
    "user_exists": Meaning(409, "There is a user of this name."),
    # What the key may not hand out.
    "expiry_not_grantable": Meaning(403, "A key that expires cannot make one that lives longer."),
    "role_not_grantable": Meaning(403, "A tenant's admin cannot make users or keys of this role."),
    "scope_not_grantable": Meaning(403, "A key cannot make one with more scopes than it has."),
    # Submitting and estimating.
    "archive_not_uploaded": Meaning(422, "The tenant has no archive of this hash; PUT it to /v1/archives/{sha256} first."),
    "contradictory_place": Meaning(
        422, "A site is wanted and denied, or preferred and not allowed, or an island is asked for without GPUs."
    ),
    "exceeds_maximum": Meaning(422, "More than any node has, or than the tenant's quota could ever give."),
    "flavor_twice": Meaning(422, "A flavor is named twice."),
    "flavors_without_gpus": Meaning(422, "A job without GPUs names flavors."),
    "limit_over_tier": Meaning(422, "The time limit is over the tier's maximum."),
    "no_tenant": Meaning(422, "The key belongs to no tenant, so it has no jobs or archives."),
    "no_such_place": Meaning(422, "No node is where the job may run, with its labels and only taints that it tolerates."),
    "not_permitted": Meaning(422, "The tenant has no quota for the GPU model."),
    "nothing_asked_for": Meaning(422, "A job without GPUs needs CPUs."),
    "priority_outside_tier": Meaning(422, "The tier does not allow this priority."),
    "unknown_flavor": Meaning(422, "There is no flavor of this name."),
    "unknown_label": Meaning(422, "No node carries this label with this value."),
    "unknown_project": Meaning(422, "The tenant has no project of this name."),
    "unknown_site": Meaning(422, "No node is on a site of this name."),
    "unknown_tier": Meaning(422, "There is no tier of this name."),
    "too_many_open_jobs": Meaning(429, "The tenant has open_jobs_maximum jobs that have not ended."),
    "estimates_rate": Meaning(429, "The tenant asks for more than estimates_per_minute; `Retry-After` says when to come back."),
    # Archives.
    "archive_too_large": Meaning(413, "The archive has more bytes than is allowed."),
    "archive_hash_differs": Meaning(422, "The body's SHA-256 is not the one in the path."),
    "archive_header_too_large": Meaning(422, "A member's header is too large."),
    "archive_malformed": Meaning(422, "The body is not a gzipped tar archive."),
    "archive_member_kind": Meaning(422, "A member is neither a file nor a directory: links and devices are not taken."),
    "archive_member_path": Meaning(422, "A member's path is absolute, leaves the directory, or is too long."),
    "archive_quota_exceeded": Meaning(409, "The tenant keeps as many archives, or bytes of them, as it may."),
    "archive_ratio": Meaning(422, "The archive unpacks to too many times its size."),
    "archive_too_many_members": Meaning(422, "The archive has too many members."),
    "archive_unpacks_too_large": Meaning(422, "The archive unpacks to more bytes than is allowed."),
    "upload_too_slow": Meaning(408, "The archive was not here after upload_seconds_maximum."),
    "too_many_uploads": Meaning(429, "uploads_maximum archives are being received already; try again."),
    # Streams.
    "too_many_streams": Meaning(429, "Too many event streams are open, of the tenant or of all; try again."),
    # People, quotas, prices, usage.
    "cohort_ring": Meaning(422, "The cohort would stand below itself."),
    "empty_window": Meaning(422, "A window ends before it begins."),
    "expires_in_past": Meaning(422, "The key would have expired already."),
    "flavors_of_one_model": Meaning(422, "Two flavors of a ClusterQueue or Cohort stand for one GPU model."),
    "invalid_groups": Meaning(422, "`by` names something that a report cannot be grouped by, or names it twice."),
    "lending_over_nominal": Meaning(422, "A tenant or project cannot lend more than it owns."),
    "manifest_refused": Meaning(422, "Kueue would refuse a manifest, or a name in it cannot be one here; `detail` says where."),
    "node_does_not_fit": Meaning(422, "`node` is for keys of users with role node, which need it."),
    "nobody_to_borrow_from": Meaning(422, "A tenant without a cohort, or a cohort without one above, has nobody to borrow from."),
    "price_in_the_past": Meaning(422, "A price cannot begin in the past: that time is rated already."),
    "quota_tree_too_deep": Meaning(422, "The quota tree would have more levels than it may."),
    "report_too_large": Meaning(422, "The window holds more usage lines than one report takes."),
    "role_does_not_fit": Meaning(422, "The role needs a tenant, or belongs to none."),
    "too_many_labels": Meaning(422, "A node has at most 64 labels."),
    "unknown_cohort": Meaning(422, "There is no cohort of this name."),
    "unknown_currency": Meaning(422, "The currency is not one that the service accounts in."),
    "unknown_node": Meaning(422, "There is no node of this name."),
    "unknown_resource": Meaning(422, "The resource is neither a known GPU model nor cpu nor memory."),
    "unknown_scope": Meaning(422, "The scope grants nothing."),
    "unknown_time_zone": Meaning(422, "There is no IANA time zone of this name."),
    "window_is_over": Meaning(422, "The window is over already."),
    "window_repeats_too_often": Meaning(422, "The window would recur more often than one row may."),
    "window_repeats_too_soon": Meaning(422, "The window would recur before it is over."),
    "window_too_far_ahead": Meaning(422, "The window lies more than a hundred years ahead."),
    "window_too_long": Meaning(422, "A report covers at most 400 days."),
}

# What a check of a job specification can refuse, and what any creating request can.
SUBMISSION = (
    "no_tenant", "contradictory_place", "exceeds_maximum", "flavor_twice", "flavors_without_gpus", "limit_over_tier", "no_such_place",
    "not_permitted", "nothing_asked_for", "priority_outside_tier", "unknown_flavor", "unknown_label", "unknown_project", "unknown_site",
    "unknown_tier",
)  # fmt: skip
CREATION = ("idempotency_key_reused", "idempotency_race")


def responses(*codes: str, also: Mapping[int | str, dict[str, Any]] | None = None) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that can refuse with these codes, and `also`; KeyError for a code that is not in the table."""
    found: dict[int | str, dict[str, Any]] = dict(also or {})
    for code in codes:
        meaning = CODES[code]
        examples = found.setdefault(meaning.status, _response(meaning.status))["content"][MEDIA_TYPE]["examples"]
        examples[code] = {"summary": meaning.text, "value": example(code)}
    return found


def example(code: str) -> dict[str, Any]:
    """Return what a problem with this code looks like."""
    meaning = CODES[code]
    return {
        "type": "about:blank",
        "title": HTTPStatus(meaning.status).phrase,
        "status": meaning.status,
        "detail": meaning.text,
        "code": code,
        "errors": [],
        "data": {},
        "request_id": "5f0c6c8f7a3d9b12",
    }


def _response(status: int) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": PROBLEM_REFERENCE, "examples": {}}}}
