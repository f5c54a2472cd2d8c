"""`terrace.Client`: one object with every verb of the service.

Owns: finding the address and key, and the life of the connections. The verbs are in jobs.py, operations.py and scheduling.py. Example:
`with terrace.Client() as client: print(client.wait(client.submit(["python", "train.py"], gpus=1, working_directory=".").id).state)`
"""

from __future__ import annotations

from types import TracebackType

import httpx

from terrace.sdk import config
from terrace.sdk.jobs import JobVerbs
from terrace.sdk.operations import OperatorVerbs
from terrace.sdk.scheduling import SchedulingVerbs
from terrace.sdk.transport import Transport


class Client(JobVerbs, OperatorVerbs, SchedulingVerbs):
    """Speaks to one service with one key.

    Without arguments: TERRACE_URL and TERRACE_API_KEY, then the file that `terrace login` wrote. ConfigError when there is no key.
    `carrier` replaces the network, for tests.
    """

    def __init__(self, url: str | None = None, key: str | None = None, *, carrier: httpx.BaseTransport | None = None) -> None:
        resolved = config.resolve(url, key)
        self.url = resolved.url
        self._wire = Transport(resolved, carrier=carrier)

    def close(self) -> None:
        """Close all connections."""
        self._wire.close()

    def __enter__(self) -> Client:
        """Return the client itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close all connections."""
        self.close()
