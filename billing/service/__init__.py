"""The billing loop: rates closed leases in bounded batches. See `loop.run`."""

from billing.service.loop import BillingSettings, run

__all__ = ["BillingSettings", "run"]
