from __future__ import annotations

from tests.client.command import Terrace


def test_submit_prints_the_id_only_when_quiet(ada: Terrace) -> None:
    ended = ada.ok("-q", "submit", "--name", "x", "--", "python", "train.py")
    assert ended.out.startswith("job_")
    assert ended.err == ""
