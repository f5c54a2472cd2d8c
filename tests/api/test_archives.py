"""Archives: taken once, judged before they are kept, and refused without leaving anything behind."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from api.settings import ArchiveLimits
from tests.api.conftest import OpenApi
from tests.support.api import Api, Caller, problem_of, spec
from tests.support.businesses import packed

LIMITS = ArchiveLimits(
    compressed_bytes_maximum=200_000,
    unpacked_bytes_maximum=3_000_000,
    members_maximum=50,
    ratio_floor_bytes=100_000,
    path_length_maximum=300,
)
SPARSE = {"GNU.sparse.map": "0,0", "GNU.sparse.size": "9"}
GOOD = packed({"train.py": b"print('hello')\n", "data/digits.csv": b"1,2,3\n"})


@pytest.fixture
async def small(open_api: OpenApi) -> Api:
    """The application with small limits, and a tenant."""
    api = await open_api(archive=LIMITS)
    await api.tenant()
    return api


@pytest.fixture
async def ada(small: Api) -> Caller:
    """A member of acme."""
    return await small.user("member")


def named(data: bytes) -> str:
    """Return where an archive belongs."""
    return f"/v1/archives/{hashlib.sha256(data).hexdigest()}"


def tar_of(*members: tarfile.TarInfo, data: bytes = b"") -> bytes:
    """Return a gzipped tar of these members, each with the same data as far as its size says."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(data[: member.size]))
    return gzip.compress(plain.getvalue(), mtime=0)


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    """Return a member of an archive."""
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def claiming(size: int) -> bytes:
    """Return an archive whose only member says that it has so many bytes, and has none."""
    header = member("big", size=0).tobuf(tarfile.GNU_FORMAT)
    forged = bytearray(header)
    forged[124:136] = b"\x80" + size.to_bytes(11, "big")
    forged[148:156] = b" " * 8
    forged[148:156] = f"{sum(forged):06o}\0 ".encode()
    return gzip.compress(bytes(forged) + bytes(1_024), mtime=0)


def commented(size: int) -> bytes:
    """Return an archive whose only member has a comment of so many letters."""
    return tar_of(member("a", pax_headers={"comment": (_noise(10_000).hex() * (size // 20_000 + 1))[:size]}))


def long_names(count: int) -> bytes:
    """Return an archive in which so many headers announce the name of the next header."""
    link = member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=2).tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")
    return gzip.compress(link * count + member("a").tobuf(tarfile.GNU_FORMAT) + bytes(1_024), mtime=0)


BAD: dict[str, tuple[Callable[[], bytes], str, Any]] = {
    "no gzip": (lambda: b"PK\3\4 a zip file", "archive_malformed", None),
    "an empty body": (lambda: b"", "archive_malformed", None),
    "gzip of no tar": (lambda: gzip.compress(b"hello" * 200), "archive_malformed", None),
    "a tar that is not zipped": (lambda: gzip.decompress(GOOD), "archive_malformed", None),
    "a gzip that is cut off": (lambda: GOOD[:-20], "archive_malformed", None),
    "a gzip with a wrong checksum": (lambda: GOOD[:-8] + bytes(8), "archive_malformed", None),
    "a gzip with something after it": (lambda: GOOD + b"something", "archive_malformed", None),
    "a parent directory": (lambda: tar_of(member("../evil")), "archive_member_path", None),
    "a parent directory inside": (lambda: tar_of(member("a/../../evil")), "archive_member_path", None),
    "an absolute path": (lambda: tar_of(member("/etc/passwd")), "archive_member_path", None),
    "a path with a backslash": (lambda: tar_of(member("..\\evil")), "archive_member_path", None),
    "a path that is too long": (lambda: tar_of(member("x/" * 200)), "archive_member_path", 300),
    "a symbolic link": (lambda: tar_of(member("a", tarfile.SYMTYPE, linkname="/etc/passwd")), "archive_member_kind", None),
    "a harmless symbolic link": (lambda: tar_of(member("a", tarfile.SYMTYPE, linkname="b")), "archive_member_kind", None),
    "a hard link": (lambda: tar_of(member("b"), member("a", tarfile.LNKTYPE, linkname="b")), "archive_member_kind", None),
    "a character device": (lambda: tar_of(member("null", tarfile.CHRTYPE, devmajor=1, devminor=3)), "archive_member_kind", None),
    "a block device": (lambda: tar_of(member("sda", tarfile.BLKTYPE)), "archive_member_kind", None),
    "a pipe": (lambda: tar_of(member("pipe", tarfile.FIFOTYPE)), "archive_member_kind", None),
    "a kind that nobody knows": (lambda: tar_of(member("a", b"Z")), "archive_member_kind", None),
    "a sparse file": (lambda: tar_of(member("a", pax_headers=SPARSE)), "archive_member_kind", None),
    "too many members": (lambda: tar_of(*(member(f"f{number}") for number in range(51))), "archive_too_many_members", 50),
    "a bomb of zeros": (lambda: packed({"zeros": bytes(2_900_000)}), "archive_ratio", 200),
    "more than may be unpacked": (lambda: packed({"noise": _noise(20_000) * 175}), "archive_unpacks_too_large", 3_000_000),
    "a size that nothing has": (lambda: claiming(1 << 62), "archive_unpacks_too_large", 3_000_000),
    "a header as large as a file": (lambda: commented(1_200_000), "archive_header_too_large", 1 << 20),
    "headers that announce headers": (lambda: long_names(2_000), "archive_header_too_large", 1 << 20),
    "too many gzip members": (lambda: gzip.compress(b"", mtime=0) * 70 + GOOD, "archive_malformed", 64),
}  # fmt: skip


def _noise(size: int) -> bytes:
    """Return bytes that do not compress: a hash of hashes."""
    blocks = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(size // 32)]
    return b"".join(blocks)


def files(api: Api) -> list[str]:
    """Return every file below the archives' directory."""
    return sorted(path.name for path in (api.state_dir / "archives").rglob("*") if path.is_file())


async def test_archive_is_kept_once_under_its_hash(small: Api, ada: Caller) -> None:
    first = await ada.send("PUT", named(GOOD), content=GOOD)
    again = await ada.send("PUT", named(GOOD), content=GOOD)
    seen = await ada.send("HEAD", named(GOOD))

    sha256 = hashlib.sha256(GOOD).hexdigest()
    (path,) = (small.state_dir / "archives").rglob(sha256)
    assert (first.status_code, again.status_code, seen.status_code) == (201, 200, 200)
    assert first.json() == again.json() == {"sha256": sha256, "size_bytes": len(GOOD)}
    assert seen.headers["x-archive-bytes"] == str(len(GOOD))
    assert path.read_bytes() == GOOD
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent)] == [0o600, 0o700]
    assert (await small.rows())["blob"] == 1


async def test_bad_archive_is_refused_and_nothing_of_it_is_kept(small: Api, ada: Caller) -> None:
    bodies = {name: make() for name, (make, _, _) in BAD.items()}
    assert max(map(len, bodies.values())) <= LIMITS.compressed_bytes_maximum
    before = await small.rows()

    answers = {name: await ada.send("PUT", named(body), content=body) for name, body in bodies.items()}

    assert {name: problem_of(answer) for name, answer in answers.items()} == {
        name: (422, code, "body", limit) for name, (_, code, limit) in BAD.items()
    }
    assert await small.rows() == before
    assert files(small) == []


async def test_body_with_another_hash_is_refused(small: Api, ada: Caller) -> None:
    answer = await ada.send("PUT", f"/v1/archives/{'0' * 64}", content=GOOD)

    assert problem_of(answer) == (422, "archive_hash_differs", "sha256", "0" * 64)
    assert hashlib.sha256(GOOD).hexdigest() in answer.json()["detail"]
    assert files(small) == []


@pytest.mark.parametrize("is_declared", [True, False], ids=["length declared", "in chunks"])
async def test_archive_with_too_many_bytes_is_refused(small: Api, ada: Caller, is_declared: bool) -> None:
    body = bytes(LIMITS.compressed_bytes_maximum + 1)

    async def pieces() -> AsyncIterator[bytes]:
        for first in range(0, len(body), 50_000):
            yield body[first : first + 50_000]

    answer = await ada.send("PUT", named(body), content=body if is_declared else pieces())

    assert problem_of(answer) == (413, "archive_too_large", "body", LIMITS.compressed_bytes_maximum)
    assert files(small) == []


@pytest.mark.parametrize("name", ["abc", "../../../etc/passwd", "0" * 63, "A" * 64], ids=["short", "a path", "63 digits", "capitals"])
async def test_name_that_is_no_hash_is_refused(small: Api, ada: Caller, name: str) -> None:
    answer = await ada.send("PUT", f"/v1/archives/{name}", content=GOOD)

    assert answer.status_code in (404, 422)
    assert files(small) == []


async def test_same_archive_sent_at_once_is_kept_once(small: Api, ada: Caller) -> None:
    answers = await asyncio.gather(*(ada.send("PUT", named(GOOD), content=GOOD) for _ in range(4)))

    assert {answer.status_code for answer in answers} <= {200, 201}
    assert (await small.rows())["blob"] == 1
    assert files(small) == [hashlib.sha256(GOOD).hexdigest()]


async def test_parallel_compressors_archive_is_taken(small: Api, ada: Caller) -> None:
    plain = gzip.decompress(GOOD)
    several = gzip.compress(plain[:700], mtime=0) + gzip.compress(plain[700:], mtime=0) + bytes(512)

    answer = await ada.send("PUT", named(several), content=several)

    assert answer.status_code == 201


@pytest.mark.parametrize("name", ["uploads_maximum", "uploads_per_tenant_maximum"])
async def test_uploads_over_a_limit_are_refused_until_one_is_done(open_api: OpenApi, name: str) -> None:
    api = await open_api(archive=ArchiveLimits(**{name: 1}))
    for tenant in ("acme", "globex"):
        await api.tenant(tenant)
    ada, eve = await api.user("member"), await api.user("member", tenant="globex")
    is_begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        is_begun.set()
        yield GOOD[:10]
        await may_end.wait()
        yield GOOD[10:]

    upload = asyncio.create_task(ada.send("PUT", named(GOOD), content=slow()))
    await is_begun.wait()
    own, others = [await caller.send("PUT", named(GOOD), content=GOOD) for caller in (ada, eve)]
    may_end.set()

    assert problem_of(own)[:2] == (429, "too_many_uploads")
    assert others.status_code == (429 if name == "uploads_maximum" else 201)
    assert (await upload).status_code == 201


async def test_upload_that_takes_too_long_is_refused(open_api: OpenApi) -> None:
    api = await open_api(archive=ArchiveLimits(upload_seconds_maximum=0.05))
    await api.tenant()
    ada = await api.user("member")

    async def endless() -> AsyncIterator[bytes]:
        yield GOOD[:10]
        await asyncio.Event().wait()

    answer = await ada.send("PUT", named(GOOD), content=endless())

    assert problem_of(answer) == (408, "upload_too_slow", "body", 0.05)
    assert files(api) == []


async def test_job_runs_with_the_archive_that_it_names(small: Api, ada: Caller) -> None:
    agent = await small.node()
    await ada.send("PUT", named(GOOD), content=GOOD)
    await ada.create("/v1/jobs", spec(archive_sha256=hashlib.sha256(GOOD).hexdigest()))
    await small.schedule()
    (lease,) = await agent.leases()

    answer = await agent.get(f"/v1/nodes/node-1/archives/{lease['tenant_id']}/{lease['archive_sha256']}")

    assert (answer.content, answer.headers["content-type"]) == (GOOD, "application/gzip")


async def test_agent_of_a_row_without_its_file_is_told_that_it_is_missing(small: Api, ada: Caller) -> None:
    agent = await small.node()
    await ada.send("PUT", named(GOOD), content=GOOD)
    await ada.create("/v1/jobs", spec(archive_sha256=hashlib.sha256(GOOD).hexdigest()))
    await small.schedule()
    (lease,) = await agent.leases()
    next((small.state_dir / "archives").rglob(lease["archive_sha256"])).unlink()

    answer = await agent.get(f"/v1/nodes/node-1/archives/{lease['tenant_id']}/{lease['archive_sha256']}")

    assert problem_of(answer)[:2] == (404, "archive_not_found")


async def test_what_a_crash_left_behind_is_swept_and_what_is_under_way_is_not(small: Api) -> None:
    place = small.state_dir / "archives" / "ten_00000000000000000000"
    place.mkdir(parents=True)
    for name in (".old.part", ".new.part", "0" * 64):
        (place / name).write_bytes(b"x")
    old = (place / ".old.part").stat().st_mtime - 3 * LIMITS.upload_seconds_maximum
    os.utime(place / ".old.part", (old, old))

    small.app.state.uploads.sweep()

    assert files(small) == [".new.part", "0" * 64]
