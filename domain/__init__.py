"""Plain values that every part of Terrace shares.

Owns: identifiers, slices and flavors, job specifications, the state table, reasons, intervals and money.
Does not own: rules (quotas/, scheduler/decision/, billing/calc/) or anything that remembers or touches the world.
Everything here is standard library only, frozen and comparable.
"""
