"""A lease's private Ray cluster on this machine: launched, supervised and proven gone as one process tree."""
