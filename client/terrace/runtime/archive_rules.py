"""What a member of an archive may be: one set of rules for who takes archives (the API) and who unpacks them (agents).

Owns: the rules about a member's kind, its path, and how members stand to one another, with their limits. Does not own: decompressing, the
bytes, or what becomes of a refusal. Two sets would differ one day, and an archive that only the second refuses costs a lease of GPUs. Every
rule needs a member's header alone. Standard library only: a lease's first steps use it.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath

SHOWN_CHARACTERS_MAX = 200
# Folders that members imply without naming them count too; an honest archive has fewer of them than of members.
PLACES_PER_MEMBER_MAX = 2


class Rule(StrEnum):
    """What was broken, as the API's problem codes say it."""

    KIND = "archive_member_kind"
    PATH = "archive_member_path"
    COUNT = "archive_too_many_members"


@dataclass(frozen=True, slots=True)
class MemberLimits:
    """Bounds of an archive's members. The defaults are what agents take; a service may take less, never more."""

    members: int = 20_000
    path_bytes: int = 1_024
    name_bytes: int = 255
    path_parts: int = 64


class MemberRefusedError(Exception):
    """A member breaks a rule; the message names the member and the limit."""

    def __init__(self, rule: Rule, message: str, limit: int | None = None) -> None:
        super().__init__(message)
        self.rule, self.limit = rule, limit


_Folder = dict[str, "_Folder | None"]  # None: a file


@dataclass(slots=True)
class Members:
    """The members of one archive, judged in their order."""

    limits: MemberLimits = field(default_factory=MemberLimits)
    _count: int = 0
    _places: int = 0
    _root: _Folder = field(default_factory=dict)

    def take(self, member: tarfile.TarInfo) -> tuple[str, ...]:
        """Return the parts of the member's relative path, () for the root folder; MemberRefusedError for what breaks a rule."""
        self._count += 1
        if self._count > self.limits.members:
            raise MemberRefusedError(Rule.COUNT, f"more than members = {self.limits.members} entries", self.limits.members)
        shown = ascii(member.name[:SHOWN_CHARACTERS_MAX])
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise MemberRefusedError(Rule.KIND, f"{shown}: only files and folders are accepted, no links, devices, pipes or sparse files")
        parts = self._parts(member.name, shown)
        self._place(parts, shown, is_folder=member.isdir())
        return parts

    def _parts(self, name: str, shown: str) -> tuple[str, ...]:
        limits, parts = self.limits, PurePosixPath(name).parts
        if "\0" in name or "\\" in name:
            raise MemberRefusedError(Rule.PATH, f"{shown}: NUL and backslash are not accepted in a path")
        if len(os.fsencode(name)) > limits.path_bytes:
            raise MemberRefusedError(Rule.PATH, f"{shown}: the path is longer than path_bytes = {limits.path_bytes}", limits.path_bytes)
        if name.startswith("/"):
            raise MemberRefusedError(Rule.PATH, f"{shown}: absolute paths are not accepted")
        if ".." in parts:
            raise MemberRefusedError(Rule.PATH, f"{shown}: '..' is not accepted in a path")
        if any(len(os.fsencode(part)) > limits.name_bytes for part in parts):
            words = f"{shown}: a name in the path is longer than name_bytes = {limits.name_bytes}"
            raise MemberRefusedError(Rule.PATH, words, limits.name_bytes)
        if len(parts) > limits.path_parts:
            raise MemberRefusedError(Rule.PATH, f"{shown}: deeper than path_parts = {limits.path_parts}", limits.path_parts)
        return parts

    def _place(self, parts: tuple[str, ...], shown: str, *, is_folder: bool) -> None:
        """Put the member into the tree of those before it. A folder may come again, a file may not."""
        if not parts and is_folder:
            return
        *above, last = parts or ("",)
        here = self._root
        for part in above:
            here = self._folder(here, part, shown)
        if is_folder:
            self._folder(here, last, shown)
        elif not last or last in here:
            raise MemberRefusedError(Rule.PATH, f"{shown}: named twice, or a file where a folder is needed")
        else:
            self._add(here, last, None)

    def _folder(self, here: _Folder, part: str, shown: str) -> _Folder:
        if part not in here:
            self._add(here, part, {})
        found = here[part]
        if found is None:
            raise MemberRefusedError(Rule.PATH, f"{shown}: named twice, or a file where a folder is needed")
        return found

    def _add(self, here: _Folder, part: str, what: _Folder | None) -> None:
        self._places += 1
        maximum = PLACES_PER_MEMBER_MAX * self.limits.members
        if self._places > maximum:
            raise MemberRefusedError(Rule.COUNT, f"its members lie in too many folders: {maximum} files and folders are the limit", maximum)
        here[part] = what
