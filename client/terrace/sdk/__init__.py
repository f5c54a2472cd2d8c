"""The Python SDK: what `terrace.Client` is made of. Import names from `terrace`, not from here."""
