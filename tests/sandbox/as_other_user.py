"""Becomes an ordinary user in a mount namespace where the folders named are reachable for it, and runs a command.

Arguments: user id, "own-network" or "machine-network", folders..., "--", command. Run by root under `unshare --mount`, with
`--net` for an own network; by anybody else under `unshare --user` with kept capabilities, where only the network is arranged.
"""

from __future__ import annotations

import os
import sys

from agents.sandbox import mounts
from tests.sandbox import own_network


def main() -> None:
    """Arrange and become the command."""
    split = sys.argv.index("--")
    uid, network, folders, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:split], sys.argv[split + 1 :]
    if network == "own-network":
        own_network.arrange()
    if os.geteuid() == 0:
        covers = [mounts.Cover(path) for path in mounts.closed_ancestors(folders, uid)]
        mounts.apply(covers, [mounts.Exposure(path, is_read_only=False) for path in folders])
        command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all", *command]
    else:
        command = ["setpriv", "--ambient-caps=-all", *command]
    os.execvp(command[0], command)  # noqa: S606  # an argument list, no shell


if __name__ == "__main__":
    main()
