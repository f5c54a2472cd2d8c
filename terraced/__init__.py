"""The composition root: settings, the `terraced` command, and the all-in-one embedded mode.

The only package that knows every other one. It owns wiring and process supervision; it decides nothing and keeps nothing.
"""
