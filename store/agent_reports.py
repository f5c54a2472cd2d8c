"""What agents send, made durable: observations for the scheduler to apply, log chunks for people, heartbeats.

Owns the insert of observation rows and of log chunks; applying observations is store/observations.py. A batch may be sent twice: a row
is named by (node, boot, sequence number), a chunk by (job, attempt, offset), and the second one changes nothing. What names a lease
that was never on this node is dropped, because a node speaks for its own leases only. An attempt's output has a cap; what lies beyond
is dropped, with one note at the cap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from store.assignments import node_id
from store.jobs import canonical
from store.tables import Lease, LeaseNode, LogChunk, Node, Observation

DROPPED_NOTE = b"\n[terrace: the output of this attempt has reached its limit; the rest was dropped]\n"
NOTHING_ACCEPTED = -1

_observation = Observation.__table__  # type: ignore[attr-defined]
_chunk = LogChunk.__table__  # type: ignore[attr-defined]
_lease = Lease.__table__  # type: ignore[attr-defined]
_part = LeaseNode.__table__  # type: ignore[attr-defined]
_node = Node.__table__  # type: ignore[attr-defined]

_insert_observation = {
    "sqlite": sqlite.insert(_observation).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(_observation).on_conflict_do_nothing(),
}
_insert_chunk = {"sqlite": sqlite.insert(_chunk).on_conflict_do_nothing(), "postgresql": postgresql.insert(_chunk).on_conflict_do_nothing()}
_heartbeat = update(_node).where(_node.c.id == bindparam("node")).values(heartbeat_at_ms=bindparam("at"))


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that an agent saw."""

    agent_seq: int
    kind: str
    lease_id: str | None
    observed_at_ms: int
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of a lease's output; `start_offset` counts bytes since the attempt began."""

    agent_seq: int
    lease_id: str
    start_offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class AcceptReports:
    """Keep a batch of one boot of one node's agent. Also the heartbeat."""

    node: str
    boot_id: str
    observations: Sequence[Seen]
    outputs: Sequence[Output]
    now_ms: int
    log_bytes_per_attempt_maximum: int

    def execute(self, connection: Connection, /) -> int:
        """Return the highest sequence number that is durable now, `NOTHING_ACCEPTED` for an empty batch; NotFoundError for the node."""
        node = node_id(connection, self.node)
        connection.execute(_heartbeat, {"node": node, "at": self.now_ms})
        leases = self._leases(connection, node)
        rows = [self._row(seen, node) for seen in self.observations if seen.lease_id is None or seen.lease_id in leases]
        if rows:
            connection.execute(_insert_observation[connection.dialect.name], rows)
        chunks = self._chunks(connection, leases)
        if chunks:
            connection.execute(_insert_chunk[connection.dialect.name], chunks)
        sequence_numbers = [seen.agent_seq for seen in self.observations] + [output.agent_seq for output in self.outputs]
        return max(sequence_numbers, default=NOTHING_ACCEPTED)

    def _leases(self, connection: Connection, node: str) -> dict[str, tuple[str, int]]:
        named = {seen.lease_id for seen in self.observations if seen.lease_id is not None} | {output.lease_id for output in self.outputs}
        if not named:
            return {}
        statement = (
            select(_lease.c.id, _lease.c.job_id, _lease.c.attempt)
            .select_from(_lease.join(_part, _part.c.lease_id == _lease.c.id))
            .where(_part.c.node_id == node, _lease.c.id.in_(sorted(named)))
        )
        return {row[0]: (row[1], row[2]) for row in connection.execute(statement)}

    def _row(self, seen: Seen, node: str) -> dict[str, object]:
        return {
            "node_id": node,
            "boot_id": self.boot_id,
            "agent_seq": seen.agent_seq,
            "kind": seen.kind,
            "lease_id": seen.lease_id,
            "data": canonical(seen.data),
            "observed_at_ms": seen.observed_at_ms,
            "received_at_ms": self.now_ms,
        }

    def _chunks(self, connection: Connection, leases: Mapping[str, tuple[str, int]]) -> list[dict[str, object]]:
        rows: dict[tuple[str, int, int], dict[str, object]] = {}
        for output in self.outputs:
            room = self.log_bytes_per_attempt_maximum - output.start_offset
            if output.lease_id not in leases or room < 0:
                continue
            job_id, attempt = leases[output.lease_id]
            data = output.data if len(output.data) <= room else output.data[:room] + DROPPED_NOTE
            key = (job_id, attempt, output.start_offset)
            rows[key] = {"job_id": job_id, "attempt": attempt, "start_offset": output.start_offset, "data": data}
        return list(rows.values())
