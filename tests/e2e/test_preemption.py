"""Preemption with real Ray: a borrower's training is stopped for the owner of the quota, saves, and goes on from there afterwards."""

from __future__ import annotations

import re

import pytest

import terrace
from tests.e2e.conftest import make_member
from tests.support.service import REPOSITORY, Service
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.timeout(400)]

FOLDER = REPOSITORY / "examples/digits_checkpoint"
OWNER = "print('the owner runs', flush=True)"


def make_owner(service: Service) -> terrace.Client:
    """Make a second startup, which lends what it does not use and takes it back; return its member's client."""
    operator = terrace.Client(url=service.url, key=service.operator_key)
    operator.create_cohort("alliance")
    operator.set_tenant("acme", parent="alliance")
    operator.create_tenant("zeta", parent="alliance")
    operator.set_quota("zeta", "h200", nominal=4_000)
    operator.set_rules("zeta", reclaim_within_cohort="any")
    user = operator.create_user("bo", role="member", tenant="zeta")
    return terrace.Client(url=service.url, key=operator.create_key(user_id=user.id).secret)


@pytest.mark.parametrize("service_database_url", [None], ids=["sqlite"])
def test_borrower_is_stopped_with_notice_and_resumes_from_its_checkpoint(service: Service) -> None:
    service.start()
    borrower = make_member(service)
    owner = make_owner(service)
    command = ["python", "train.py", "--epochs", "4000", "--hidden", "16"]
    borrowed = borrower.submit(command, gpus=8, limit_seconds=600, maximum_attempts=1, working_directory=FOLDER)
    wait_until(lambda: "epoch  10/" in borrower.logs_text(borrowed.id), seconds=90)

    owned = owner.submit(["python", "-c", OWNER], gpus=4, limit_seconds=60)
    assert owner.wait(owned.id, timeout_seconds=120).state == "succeeded"

    first, *_ = borrower.job(borrowed.id).attempts
    assert (first.outcome, first.number) == ("reclaimed", 1)
    told = re.search(r"told to stop \((.*)\): saved epoch (\d+), leaving", borrower.logs_text(borrowed.id, attempt=1))
    assert told is not None
    assert '"cause": "stop"' in told[1]
    wait_until(lambda: "resumed from epoch" in borrower.logs_text(borrowed.id), seconds=90)
    assert f"attempt 2: resumed from epoch {told[2]}" in borrower.logs_text(borrowed.id)
    borrower.cancel(borrowed.id)
