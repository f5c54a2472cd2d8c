"""docs/settings.md says what the code says: every setting with its default, its unit and who should change it."""

from __future__ import annotations

from pathlib import Path

from terraced import settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def rows() -> list[str]:
    """Return the lines of the table as the code would have them."""
    return [f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |" for name, default, meaning in settings.documented()]


def test_page_lists_every_setting_as_it_is() -> None:
    written = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]

    assert written == rows(), "the table should read\n" + "\n".join(rows())


def test_every_plain_setting_says_who_should_change_it() -> None:
    assert [name for name, _, meaning in settings.documented() if "__" not in name and not meaning.endswith(".")] == []
