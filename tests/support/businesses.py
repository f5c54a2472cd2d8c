"""Two businesses that do not trust one another, for tests of isolation: acme asks for everything that globex has."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.api import Agent, Api, Caller

OUTPUT = "globex: the secret accuracy is 0.99\n"


def packed(files: Mapping[str, bytes]) -> bytes:
    """Return a gzipped tar of these files."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=0)


@dataclass
class Businesses:
    """acme's people, two nodes' agents, and what globex has: by the names that paths use, and by any name that could leak."""

    api: Api
    acme: dict[str, Caller]
    globex: Caller
    agents: dict[str, Agent]
    theirs: dict[str, str]
    archive: bytes

    @property
    def secrets(self) -> set[str]:
        """What acme may never read."""
        return {*self.theirs.values(), "globex", "GPU-node-1", OUTPUT.strip()} - {"default", "fleet"}

    @classmethod
    async def founded(cls, api: Api) -> Businesses:
        """Give globex a project, a user, a key, an archive, a job that ran, usage, and a quota; give acme people only."""
        await api.tenant("acme")
        await api.tenant("globex")
        acme = {role: await api.user(role, tenant="acme", name=f"acme-{role}") for role in ("admin", "member", "viewer")}
        globex = await api.user("admin", tenant="globex", name="hank")
        agents = {name: await api.node(name) for name in ("node-1", "node-2")}
        await globex.create("/v1/tenants/globex/projects", {"name": "moonshot"})
        archive = packed({"train.py": b"print('globex')\n"})
        sha256 = hashlib.sha256(archive).hexdigest()
        assert (await globex.send("PUT", f"/v1/archives/{sha256}", content=archive)).status_code == 201
        window = {"start": "2099-01-01T00:00:00Z", "end": "2099-01-02T00:00:00Z"}
        reserved = {"name": "globex-course", "tenant": "globex", "flavor": "h200", "gpus": 1}
        await api.operator.create("/v1/reservations", reserved | window)
        await api.operator.create("/v1/maintenance", {"name": "firmware", "nodes": ["node-1"]} | window)
        job = await globex.submit(name="globex-job", project="moonshot", archive_sha256=sha256)
        await api.operator.change("PATCH", "/v1/nodes/node-2", {"is_cordoned": True})
        await api.schedule()
        (lease,) = await agents["node-1"].leases()
        await agents["node-1"].see("started", lease=lease["lease_id"])
        await agents["node-1"].write(lease["lease_id"], 0, OUTPUT)
        await api.schedule()
        theirs = {
            "job_id": job["id"],
            "key_id": str(globex.bearer).partition(".")[0],
            "user_id": (await globex.fetch("/v1/me"))["user_id"],
            "tenant": "globex",
            "tenant_id": lease["tenant_id"],
            "project": "moonshot",
            "sha256": sha256,
            "node": "node-1",
            "cohort": "fleet",
            "reservation": "globex-course",
            "maintenance": "firmware",
            "lease_id": lease["lease_id"],
        }
        return cls(api, acme, globex, agents, theirs, archive)
