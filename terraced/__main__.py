"""`python -m terraced`: the same command as `terraced`."""

from terraced.cli import main

main()
