"""Scenarios: one world written down in a file, decided once or replayed in virtual time.

Owns the file format (docs/scenario.md), the virtual world and its metrics. Does not own any scheduling rule: every decision
is made by scheduler/decision/, the same code as in the live service. Called by `terraced decide` and `terraced simulate`.
"""
