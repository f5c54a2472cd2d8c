from __future__ import annotations

import json
import re
import shlex
import tomllib

from tests.deploy.chart import ROOT

DOCKERFILE = ROOT / "deploy" / "image" / "Dockerfile"
IMAGES = {"service", "job"}


def instructions() -> list[tuple[str, str, str]]:
    """Return (stage, instruction, arguments) of each line of the Dockerfile; the stage is empty before the first FROM."""
    found, stage = [], ""
    for line in DOCKERFILE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            instruction, arguments = line.split(maxsplit=1)
            stage = arguments.split(" AS ")[1] if instruction == "FROM" else stage
            found.append((stage, instruction, arguments))
    return found


def copied_from_the_tree() -> list[str]:
    arguments = [shlex.split(text) for _, instruction, text in instructions() if instruction == "COPY"]
    return [source.rstrip("/") for words in arguments if not words[0].startswith("--from") for source in words[:-1]]


def ignore_file() -> list[str]:
    return (ROOT / "deploy" / "image" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()


def test_everything_copied_exists() -> None:
    assert all((ROOT / source).exists() for source in copied_from_the_tree())


def test_the_packages_of_the_service_are_copied_and_no_other_folder() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert {source for source in copied_from_the_tree() if (ROOT / source).is_dir()} == {*packages, "client"}


def test_the_builder_sees_what_is_copied_and_nothing_more() -> None:
    let_in = {line.removeprefix("!") for line in ignore_file() if line.startswith("!")}

    assert "*" in ignore_file()
    assert let_in == {source.split("/")[0] for source in copied_from_the_tree()}


def test_every_install_is_locked_by_hash_or_our_own_wheel() -> None:
    installs = [text for _, instruction, text in instructions() if instruction == "RUN" and "pip install" in text]

    assert len(installs) == 5
    assert all("--require-hashes" in text or ("--no-deps /wheels/" in text) for text in installs)


def test_each_image_is_built_from_its_own_lock() -> None:
    runs = [(stage, text) for stage, instruction, text in instructions() if instruction == "RUN"]
    locks = {image: [lock for stage, text in runs if stage == image for lock in re.findall(r"(\w+)\.txt", text)] for image in IMAGES}

    assert locks == {"service": ["service"], "job": ["job"]}


def test_job_image_holds_nothing_of_the_service() -> None:
    wheels = [text for stage, name, text in instructions() if stage == "job" and name == "RUN" and "/wheels/" in text]

    assert [text.split("/wheels/")[1] for text in wheels] == ["terrace-*.whl"]


def test_images_run_as_the_user_of_the_chart() -> None:
    helpers = (ROOT / "deploy/helm/terrace/templates/_helpers.tpl").read_text(encoding="utf-8")
    users = {stage: text for stage, instruction, text in instructions() if instruction == "USER"}

    assert users == dict.fromkeys(IMAGES, "10001:10001")
    assert "runAsUser: 10001" in helpers


def test_base_image_names_no_registry_host() -> None:
    bases = [text.partition("=")[2] for _, instruction, text in instructions() if instruction == "ARG"]

    assert bases == ["python:3.11-slim-bookworm"]


def test_commands_are_written_as_lists() -> None:
    commands = {stage: json.loads(text) for stage, instruction, text in instructions() if instruction == "CMD"}

    assert set(commands) == IMAGES
