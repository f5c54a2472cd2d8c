from __future__ import annotations

import re

import pytest

from store import migrate
from tests.deploy.chart import CHART

DOCUMENTED = re.search(r"--from-literal=url='([^']+)'", (CHART / "README.md").read_text(encoding="utf-8"))


@pytest.mark.postgres
def test_database_url_as_the_readme_writes_it_is_taken(postgres_url: str) -> None:
    assert DOCUMENTED is not None
    scheme, _, _ = DOCUMENTED[1].partition("://")
    _, _, place = postgres_url.partition("://")

    assert migrate.check(f"{scheme}://{place}") == migrate.check(postgres_url)
