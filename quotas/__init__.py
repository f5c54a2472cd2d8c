"""Quota arithmetic: the tree of cohorts, tenants and projects, what each may still take, and fair shares.

Owns: amounts, the quota tree, borrowing and lending, weighted dominant shares. Does not own: devices, jobs or order of
service (scheduler/decision/), or rows (store/). Pure: standard library only, no clock, no chance.
"""
