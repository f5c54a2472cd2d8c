"""Where a job may stand beside its shape: labels that a node must carry, taints that are accepted, sites, and how close a gang stays.

Owns the constraint and its meaning for one node. Does not own the search (place.py) or the sites that a shape names itself. A node with
taints takes only jobs that tolerate all of them. Denied sites are never used, preferred ones are tried first, in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scheduler.decision.nodes import Node


class Within(StrEnum):
    """How close together all replicas of a gang must stand. Without a wish they stay as close as there is room, on one site."""

    SITE = "site"
    RACK = "rack"
    NODE = "node"
    ISLAND = "island"  # devices of one node that NVLink joins


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """What a job demands of its nodes."""

    labels: tuple[tuple[str, str], ...] = ()
    tolerates: tuple[str, ...] = ()
    denied_sites: tuple[str, ...] = ()
    preferred_sites: tuple[str, ...] = ()
    within: Within = Within.SITE

    def accepts(self, node: Node) -> bool:
        """Tell whether a node could take the job at all."""
        if node.site in self.denied_sites or any(taint not in self.tolerates for taint in node.taints):
            return False
        return all(node.labels.get(name) == value for name, value in self.labels)


ANYWHERE = Where()
