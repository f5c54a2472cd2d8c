"""What a new installation starts with: tiers, the flavors of common GPU models, a first price list, the fleet's cohort.

Run at every start; it adds what is missing and changes nothing that is there. The prices are examples that an operator replaces.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from domain.slices import MILLI_GPU_PER_DEVICE
from store.tables import Flavor, Price, QuotaNode, Tier

HOUR_MS = 3_600_000
FLEET_COHORT = "fleet"

_tier = Tier.__table__  # type: ignore[attr-defined]
_flavor = Flavor.__table__  # type: ignore[attr-defined]
_price = Price.__table__  # type: ignore[attr-defined]
_place = QuotaNode.__table__  # type: ignore[attr-defined]

TIERS = (
    {"name": "standard", "default_limit_ms": HOUR_MS, "maximum_limit_ms": 24 * HOUR_MS, "grace_ms": 10_000, "is_preemptible": True},
    {"name": "short", "default_limit_ms": HOUR_MS // 4, "maximum_limit_ms": HOUR_MS, "grace_ms": 5_000, "is_preemptible": True},
    {"name": "long", "default_limit_ms": 24 * HOUR_MS, "maximum_limit_ms": 14 * 24 * HOUR_MS, "grace_ms": 60_000, "is_preemptible": True},
)
PRICES_MICRO_USD_PER_HOUR = {"h200": 3_500_000, "h100": 2_500_000, "a100": 1_600_000, "l40s": 900_000}


@dataclass(frozen=True, slots=True)
class Seed:
    """Add what is missing. `price_currency` None leaves the price book empty."""

    now_ms: int
    price_currency: str | None = "USD"

    def execute(self, connection: Connection, /) -> None:
        """Insert rows that are not there."""
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        bounds = {"priority_minimum": -1_000, "priority_maximum": 1_000}
        connection.execute(insert(_tier).on_conflict_do_nothing(), [{**row, **bounds} for row in TIERS])
        cohort = {"id": FLEET_COHORT, "kind": "cohort", "name": FLEET_COHORT, "weight_milli": 1_000}
        connection.execute(insert(_place).on_conflict_do_nothing(), [cohort])
        models = [
            {"name": name, "gpu_model": name, "mode": "whole", "milli_gpu": MILLI_GPU_PER_DEVICE} for name in PRICES_MICRO_USD_PER_HOUR
        ]
        connection.execute(insert(_flavor).on_conflict_do_nothing(), models)
        if self.price_currency != "USD" or connection.execute(select(_price.c.id).limit(1)).first() is not None:
            return
        rows = [
            {
                "id": f"pri_{name}",
                "flavor": name,
                "currency": "USD",
                "units_per_hour": units,
                "valid_from_ms": 0,
                "created_at_ms": self.now_ms,
            }
            for name, units in PRICES_MICRO_USD_PER_HOUR.items()
        ]
        connection.execute(insert(_price).on_conflict_do_nothing(), rows)
