"""Snapshot -> the same snapshot without what names a person, a machine or a network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gpudiag.snapshot import GpuProcess, Snapshot

HIDDEN = "redacted"
# CUDA accepts the first block of a UUID, so a shortened one still names its GPU.
UUID = re.compile(r"\b((?:GPU|MIG)-[0-9a-fA-F]{8})-[0-9a-fA-F]{4}-[0-9a-fA-F-]{22}\b")
HOME = re.compile(r"(?:/home|/Users)/[^/\s:'\"]+|/root(?=[/\s:'\"]|$)")
MAC = re.compile(r"(?<![A-Za-z0-9])[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}(?![A-Za-z0-9:])")
IPV4 = re.compile(r"(?<![A-Za-z0-9.])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9.])")
GROUP = r"[0-9a-fA-F]{1,4}"
IPV6 = re.compile(
    rf"(?<![\w:])(?:(?:{GROUP}:){{7}}{GROUP}|{GROUP}(?::{GROUP})*::(?:{GROUP}(?::{GROUP})*)?)(?![\w:])"
)
TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_|ghp_|gho_|github_pat_|glpat-|nvapi-|sk-|xox[bp]-|AKIA)[A-Za-z0-9_-]{12,}"
    r"|(?<=//)[^/@\s]+(?=@)"  # the password in https://user:password@host
)
# Names that thousands of machines share say nothing about a person.
SHARED_USERS = frozenset({"root", "user", "ubuntu", "debian", "admin", "ec2-user", "jovyan"})
VERSION_FIELDS = frozenset({"version", "build", "installed", "specifier"})  # look like addresses


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What must not be told: who works here, where, and what the machine is called."""

    user: str | None = None
    home: str | None = None
    host_name: str | None = None


def redact(snapshot: Snapshot, identity: Identity | None = None) -> Snapshot:
    """Hide user names, home paths, the host name, network addresses and tokens.

    Args:
        snapshot: What the probes saw.
        identity: The names to hide wherever they stand as a word; what looks like a home path,
            an address or a token is hidden without it.

    Returns:
        A snapshot with the same facts; UUIDs keep their first block, which is enough for CUDA.

    Example:
        >>> from gpudiag.snapshot import Environment, Variable
        >>> seen = Variable(name="LD_LIBRARY_PATH", value="/home/ada/lib")
        >>> redact(Snapshot(environment=Environment(variables=(seen,)))).environment.variables
        (Variable(name='LD_LIBRARY_PATH', value='~/lib'),)
    """
    cleaned: Snapshot = _Cleaner(_names(identity or Identity())).clean(snapshot, "")
    return cleaned


def _names(identity: Identity) -> list[tuple[re.Pattern[str], str]]:
    patterns = []
    if identity.home and identity.home.strip("/"):
        patterns.append((re.compile(re.escape(identity.home.rstrip("/")) + r"(?![\w.-])"), "~"))
    if identity.user and identity.user not in SHARED_USERS:
        patterns.append(
            (re.compile(rf"(?<![A-Za-z0-9]){re.escape(identity.user)}(?![A-Za-z0-9])"), HIDDEN)
        )
    if identity.host_name and identity.host_name != "localhost":
        short = identity.host_name.partition(".")[0]
        domain = r"(?:\.[A-Za-z0-9-]+)*"
        patterns.append(
            (re.compile(rf"(?<![A-Za-z0-9]){re.escape(short)}(?![A-Za-z0-9]){domain}"), HIDDEN)
        )
    return patterns


class _Cleaner:
    """Goes through a snapshot; a text that comes again, as most do, is not searched again."""

    def __init__(self, names: list[tuple[re.Pattern[str], str]]) -> None:
        self._names = names
        self._seen: dict[str, str] = {}

    def clean(self, value: Any, field: str) -> Any:
        """The same value without what must not be told; *field* is where it stands."""
        if isinstance(value, str):
            return value if field in VERSION_FIELDS else self._text(value)
        if isinstance(value, tuple):
            return tuple([self.clean(item, field) for item in value])
        if isinstance(value, dict):
            return {key: self.clean(item, key) for key, item in value.items()}
        if isinstance(value, Struct):
            return self._struct(value)
        return value

    def _struct(self, value: Struct) -> Struct:
        if isinstance(value, GpuProcess) and isinstance(value.user, str):
            value = replace(value, user=value.user if value.user in SHARED_USERS else HIDDEN)
        before = {name: getattr(value, name) for name in value.__struct_fields__}
        after = {name: self.clean(item, name) for name, item in before.items()}
        return type(value)(**after)

    def _text(self, text: str) -> str:
        if text not in self._seen:
            self._seen[text] = _text(text, self._names)
        return self._seen[text]


def _text(text: str, names: list[tuple[re.Pattern[str], str]]) -> str:
    text = UUID.sub(r"\1", text)
    for pattern, shown in names:
        text = pattern.sub(shown, text)
    text = HOME.sub("~", text)
    for pattern in (MAC, IPV6, TOKEN):
        text = pattern.sub(HIDDEN, text)
    return IPV4.sub(_unless_version, text)


def _unless_version(found: re.Match[str]) -> str:
    """Four numbers are an address only if each fits a byte; a wheel's 13.3.5.600 is none."""
    return HIDDEN if all(int(part) < 256 for part in found[0].split(".")) else found[0]  # noqa: PLR2004
