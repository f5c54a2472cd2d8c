"""The command as the shell runs it: on a terminal, between pipes, interrupted, and completed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import terrace
from executors.fake import Script
from tests.client import terminal
from tests.client.service import Service
from tests.support.service import BIN
from tests.support.waiting import wait_until

DRAWN = "\r\x1b[K"


@pytest.fixture
def of_ada(service: Service, tmp_path: Path) -> dict[str, str]:
    return terminal.environment(
        TERRACE_URL=service.url, TERRACE_API_KEY=service.member(), TERRACE_CONFIG=str(tmp_path / "c.toml"), HOME=str(tmp_path / "home")
    )


def submit(env: dict[str, str], **fields: str) -> str:
    with terrace.Client(env["TERRACE_URL"], env["TERRACE_API_KEY"]) as client:
        return client.submit(["true"], gpus=1, **fields).id


def piped(*arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*terminal.PROGRAM, *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_a_start_loads_nothing_that_only_paints() -> None:
    program = "import sys; sys.argv = ['terrace', '--version']\nfrom terrace.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0
    assert {"pygments", "rich", "yaml", "terrace.cli.app"} & set(answer.stdout.split()) == {"terrace.cli.app"}


def test_the_installed_program_runs() -> None:
    assert (BIN / "terrace").exists()
    answer = subprocess.run([str(BIN / "terrace"), "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.startswith("terrace ")


def test_login_asks_for_the_key_and_does_not_show_it(service: Service, workdir: Path, tmp_path: Path) -> None:
    env = terminal.environment(TERRACE_CONFIG=str(tmp_path / "c.toml"))
    key = service.member()
    with terminal.on_terminal("login", "--url", service.url, cwd=workdir, env=env) as shell:
        shell.wait_for("API key: ")
        assert not shell.echoes
        shell.type(key + "\n")
        assert shell.end() == 0
        assert "ada of acme (member)" in shell.shown
        assert key not in shell.shown
    assert piped("whoami", env=env, cwd=workdir).returncode == 0


def test_leaving_the_prompt_of_login_is_an_interruption(service: Service, workdir: Path, tmp_path: Path) -> None:
    env = terminal.environment(TERRACE_CONFIG=str(tmp_path / "c.toml"))
    for key in ("\x04", "\x03"):
        with terminal.on_terminal("login", "--url", service.url, cwd=workdir, env=env) as shell:
            shell.wait_for("API key: ")
            shell.type(key)
            assert shell.end() == 130
            assert "Traceback" not in shell.shown
    assert not (tmp_path / "c.toml").exists()


def test_a_table_on_a_terminal_is_drawn_with_colours(of_ada: dict[str, str], workdir: Path) -> None:
    submit(of_ada, name="[red]x[/red]")
    with terminal.on_terminal("jobs", cwd=workdir, env=of_ada) as shell:
        assert shell.end() == 0
        assert "\x1b[" in shell.shown
        assert "[red]x[/red]" in shell.shown
        assert "queued" in shell.shown


def test_a_terminal_without_colours_gets_none(of_ada: dict[str, str], workdir: Path) -> None:
    with terminal.on_terminal("quota", cwd=workdir, env={**of_ada, "NO_COLOR": "1"}) as shell:
        assert shell.end() == 0
        assert "\x1b[3" not in shell.shown


def test_watching_on_a_terminal_rewrites_one_line_and_keeps_it_off_the_output(
    of_ada: dict[str, str], workdir: Path, service: Service
) -> None:
    service.add_node()
    service.executor.script, service.executor.output = Script(duration_ms=2_500), b"epoch 1\nepoch 2\n"
    service.executor.progress = {"step": 1, "total": 2}
    with terminal.on_terminal("submit", "--watch", "--", "true", cwd=workdir, env=of_ada) as shell:
        shell.wait_for("The scheduler has not looked at it yet")
        with service.machines():
            assert shell.end() == 0
        assert "running" in shell.shown
        assert "1/2" in shell.shown
        last = shell.shown.rsplit(DRAWN, maxsplit=1)[-1]
        assert "succeeded  after" in last
        shown_lines = [line.rsplit(DRAWN, maxsplit=1)[-1] for line in shell.shown.split("\r\n")]
        assert {"epoch 1", "epoch 2"} <= set(shown_lines)


def test_ctrl_c_while_watching_leaves_the_job_running(of_ada: dict[str, str], workdir: Path, service: Service) -> None:
    with terminal.on_terminal("submit", "--watch", "--", "true", cwd=workdir, env=of_ada) as shell:
        shell.wait_for("The scheduler has not looked at it yet")
        shell.type("\x03")
        assert shell.end() == 130
        assert "goes on; `terrace cancel job_" in shell.shown
        assert "Traceback" not in shell.shown
    assert piped("-q", "jobs", "--state", "queued", env=of_ada, cwd=workdir).stdout.startswith("job_")


def test_ctrl_c_while_waiting_or_following_ends_with_130(of_ada: dict[str, str], workdir: Path) -> None:
    job_id = submit(of_ada)
    for arguments in (["wait", job_id], ["logs", "-f", job_id], ["--format", "json", "events", "-f"]):
        process = subprocess.Popen([*terminal.PROGRAM, *arguments], env=of_ada, cwd=workdir, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(lambda process=process: _is_waiting(process), seconds=30)  # type: ignore[misc]  # bound to this turn of the loop
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert (process.returncode, b"Traceback" in said) == (130, False), said


def _is_waiting(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether the process has connected to the service, which is what it waits for."""
    return any(item.raddr for item in psutil.Process(process.pid).net_connections())


def test_a_reader_that_has_left_ends_the_command_quietly_with_141(of_ada: dict[str, str], workdir: Path) -> None:
    process = subprocess.Popen([*terminal.PROGRAM, "quota"], env=of_ada, cwd=workdir, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(30), said) == (141, b"")


def test_a_terminal_that_knows_ascii_only_gets_escapes_and_no_error(of_ada: dict[str, str], workdir: Path) -> None:
    env = {**of_ada, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    submit(of_ada, name="grün")
    answer = piped("jobs", env=env, cwd=workdir)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "gr\\xfcn" in answer.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_gets_a_script_that_completes(shell: str, workdir: Path) -> None:
    env = terminal.environment(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    answer = piped("--show-completion", shell, env=env, cwd=workdir)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "_TERRACE_COMPLETE=complete_" + shell in answer.stdout


@pytest.mark.parametrize(
    ("words", "position", "found"),
    [
        (["terrace", "su"], 1, ["submit"]),
        (["terrace", "ops", "no"], 2, ["node"]),
        (["terrace", "jobs", "--format", "j"], 3, ["json"]),
        (["terrace", "submit", "--repl"], 2, ["--replicas"]),
    ],
)
def test_commands_options_and_choices_are_completed(words: list[str], position: int, found: list[str], workdir: Path) -> None:
    env = terminal.environment(_TERRACE_COMPLETE="complete_bash", COMP_WORDS=" ".join(words), COMP_CWORD=str(position))
    assert piped(env=env, cwd=workdir).stdout.split() == found
