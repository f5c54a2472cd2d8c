"""Executors turn a lease into a private Ray cluster. See `base` for the interface; `nodes` and `fake` for the two that there are."""
