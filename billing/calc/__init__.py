"""Pure billing arithmetic: price segments, rated lines, reports. Integers only; the one rounding function is domain.money's."""
