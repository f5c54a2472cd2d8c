"""Where address and key come from, and that the file that holds a key is its owner's alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

import terrace
from terrace.sdk import config
from terrace.sdk.config import Config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "config.toml"


def test_an_argument_wins_over_the_environment_and_that_over_the_file(file: Path) -> None:
    config.write(Config("http://file", "file-key"), file)
    environment = {"TERRACE_CONFIG": str(file)}
    assert config.resolve(environment=environment) == Config("http://file", "file-key")
    environment |= {"TERRACE_URL": "http://env/", "TERRACE_API_KEY": "env-key"}
    assert config.resolve(environment=environment) == Config("http://env", "env-key")
    assert config.resolve("http://arg", "arg-key", environment=environment) == Config("http://arg", "arg-key")


def test_without_a_file_the_address_is_this_machine(file: Path) -> None:
    environment = {"TERRACE_CONFIG": str(file), "TERRACE_API_KEY": "k"}
    assert config.resolve(environment=environment) == Config("http://127.0.0.1:8470", "k")


def test_without_a_key_nobody_is_logged_in(file: Path) -> None:
    with pytest.raises(terrace.NotLoggedInError, match="terrace login"):
        config.resolve(environment={"TERRACE_CONFIG": str(file)})


def test_the_file_lies_where_the_environment_says() -> None:
    home = Path.home()
    assert config.path({}) == home / ".config/terrace/config.toml"
    assert config.path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/terrace/config.toml")
    assert config.path({"XDG_CONFIG_HOME": "/x", "TERRACE_CONFIG": "/y.toml"}) == Path("/y.toml")


def test_the_file_is_readable_by_its_owner_only_even_over_a_looser_one(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("")
    file.chmod(0o644)
    config.write(Config("http://h", 'k"\\'), file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert config.read(file) == {"url": "http://h", "key": 'k"\\'}
    assert [item.name for item in file.parent.iterdir()] == ["config.toml"]


def test_forgetting_removes_the_file_and_may_be_done_again(file: Path) -> None:
    config.write(Config("http://h", "k"), file)
    config.forget(file)
    config.forget(file)
    assert not file.exists()


BROKEN = {
    "no TOML": "url = ",
    "an unknown setting": 'token = "x"',
    "a key that is no text": "key = 1",
    "no text at all": b"\xff\xfe",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_by_name(file: Path, content: str | bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(terrace.ConfigError, match=r"config\.toml"):
        config.read(file)


def test_a_file_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(terrace.ConfigError, match="plain"):
        config.write(Config("http://h", "k"), tmp_path / "plain" / "config.toml")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8470", "ftp://h", "http://", "http://user:secret@h", "http://h?x=1", "http://h#x", "http://h:port", "http://h:99999",
        "http://[::1", "http://a b", "http://h\n",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(terrace.ConfigError, match=r"^url: "):
        config.check_url(url)


@pytest.mark.parametrize("url", ["http://h", "https://h:1/terrace", "http://[::1]:8470"])
def test_an_address_may_have_a_port_and_a_path(url: str) -> None:
    assert config.check_url(url + "/") == url


@pytest.mark.parametrize("key", ["", "  ", "a b", "k\nX-Header: y", "schlüssel"])
def test_a_key_that_cannot_stand_in_a_header_is_refused(key: str) -> None:
    with pytest.raises(terrace.ConfigError, match=r"^key: "):
        config.check_key(key)
