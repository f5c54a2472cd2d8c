from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from api import auth, bootstrap
from store.engine import Store
from store.identity import PrincipalByKey
from tests.api.conftest import OpenApi
from tests.support.api import Api, EveryText, RowCounts, problem_of


def test_first_operator_is_made_once(store: Store, tmp_path: Path) -> None:
    key_path = tmp_path / "operator.key"

    made = [bootstrap.first_operator(store, key_path) for _ in range(3)]

    rows = store.read_blocking(RowCounts())
    assert made == [True, False, False]
    assert (rows["account"], rows["api_key"]) == (1, 1)


def test_replicas_that_start_together_leave_the_one_key_that_works(store: Store, tmp_path: Path) -> None:
    key_path = tmp_path / "operator.key"
    together = threading.Barrier(4)

    def start() -> bool:
        together.wait()
        return bootstrap.first_operator(store, key_path)

    with ThreadPoolExecutor(4) as threads:
        made = [started.result() for started in [threads.submit(start) for _ in range(4)]]

    key_id, _, secret = key_path.read_text().strip().partition(".")
    operator = store.read_blocking(PrincipalByKey(key_id))
    assert sorted(made) == [False, False, False, True]
    assert operator is not None
    assert operator.secret_sha256 == auth.digest(secret)


def test_key_file_can_be_read_by_its_owner_only(store: Store, tmp_path: Path) -> None:
    key_path = tmp_path / "operator.key"

    bootstrap.first_operator(store, key_path)

    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.glob("*.key*")] == ["operator.key"]


def test_start_after_a_crash_between_file_and_row_writes_both_anew(store: Store, tmp_path: Path) -> None:
    key_path = tmp_path / "operator.key"
    key_path.write_text("key_of.nobody\n")
    (tmp_path / ".operator.key.part").write_text("half a k")

    made = bootstrap.first_operator(store, key_path)

    assert made
    assert key_path.read_text() != "key_of.nobody\n"
    assert not (tmp_path / ".operator.key.part").exists()


async def test_key_in_the_file_is_the_operators(api: Api) -> None:
    me = await api.operator.fetch("/v1/me")

    assert (me["user"], me["role"], me["tenant"], me["scopes"]) == ("operator", "operator", None, ["*"])


async def test_secrets_are_nowhere_in_the_database(api: Api) -> None:
    await api.tenant()
    ada = await api.user()
    await ada.create("/v1/keys", {"name": "second"}, key="once")

    kept = await api.store.read(EveryText())

    secrets = [str(caller.bearer).partition(".")[2] for caller in (api.operator, ada)]
    assert not [value for value in kept if any(secret in value for secret in secrets)]


async def test_node_key_is_kept_while_it_works_and_made_anew_when_it_does_not(api: Api, tmp_path: Path) -> None:
    await api.operator.create("/v1/nodes", {"name": "node-1"})
    key_path = tmp_path / "node.key"
    was_made = bootstrap.node_key(api.store, key_path, node="node-1")
    first = key_path.read_text()

    was_made_again = bootstrap.node_key(api.store, key_path, node="node-1")
    await api.operator.change("DELETE", f"/v1/keys/{first.partition('.')[0]}")
    was_made_after_revocation = bootstrap.node_key(api.store, key_path, node="node-1")

    assert (was_made, was_made_again, was_made_after_revocation) == (True, False, True)
    assert key_path.read_text() != first


async def test_service_that_nobody_can_operate_is_not_ready(open_api: OpenApi, tmp_path: Path) -> None:
    api = await open_api(has_operator=False)

    before = await api.caller().get("/readyz")
    bootstrap.first_operator(api.store, tmp_path / "operator.key")
    after = await api.caller().get("/readyz")

    assert problem_of(before) == (503, "not_ready", None, None)
    assert (after.status_code, after.json()) == (200, {"status": "ok"})


async def test_operator_whose_keys_are_all_revoked_gets_a_new_one_at_the_next_start(api: Api, tmp_path: Path) -> None:
    key_path = tmp_path / "second.key"
    (key,) = (await api.operator.fetch("/v1/keys"))["items"]
    await api.operator.change("DELETE", f"/v1/keys/{key['id']}")

    made = bootstrap.first_operator(api.store, key_path)

    assert made
    assert (await api.caller(key_path.read_text().strip()).fetch("/v1/me"))["user_id"] == key["user_id"]
