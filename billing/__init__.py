"""From closed leases to money: calc/ is pure arithmetic, service/ is the loop that stores what calc/ says."""
