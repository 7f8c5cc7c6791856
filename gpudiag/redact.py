"""Snapshot -> the same snapshot without what names a person, a machine or a network."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gpudiag.snapshot import Snapshot

HIDDEN = "redacted"
# CUDA accepts the first block of a UUID, so a shortened one still names its GPU.
UUID = re.compile(r"\b((?:GPU|MIG)-[0-9a-fA-F]{8})-[0-9a-fA-F]{4}-[0-9a-fA-F-]{22}\b")
HOME = re.compile(r"(?:/home|/Users)/[^/\s:'\"]+|/root(?=[/\s:'\"]|$)")
MAC = re.compile(r"\b[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}\b")
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")
IPV6 = re.compile(r"\b(?:[0-9a-fA-F]{1,4}:){4,7}[0-9a-fA-F]{1,4}\b")
TOKEN = re.compile(r"\b(?:hf_|ghp_|github_pat_|sk-|AKIA)[A-Za-z0-9_-]{12,}|(?<=//)[^/@\s]+(?=@)")
VERSION_FIELDS = frozenset({"version", "build", "installed", "specifier"})  # look like addresses


def redact(snapshot: Snapshot, *, host_name: str | None = None) -> Snapshot:
    """Hide user names, home paths, the host name, network addresses and tokens.

    Args:
        snapshot: What the probes saw.
        host_name: The machine's name; it is hidden wherever it stands as a word.

    Returns:
        A snapshot with the same facts; UUIDs keep their first block, which is enough for CUDA.

    Example:
        >>> from gpudiag.snapshot import Environment, Variable
        >>> seen = Variable(name="LD_LIBRARY_PATH", value="/home/ada/lib")
        >>> redact(Snapshot(environment=Environment(variables=(seen,)))).environment.variables
        (Variable(name='LD_LIBRARY_PATH', value='~/lib'),)
    """
    host = _host_pattern(host_name)
    return msgspec.convert(_clean(msgspec.to_builtins(snapshot), host, ""), Snapshot)


def _clean(value: Any, host: re.Pattern[str] | None, name: str) -> Any:
    if isinstance(value, dict):
        if name == "processes" and isinstance(value.get("user"), str):
            value = value | {"user": value["user"] if value["user"] == "root" else HIDDEN}
        return {key: _clean(item, host, key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, host, name) for item in value]
    if isinstance(value, str) and name not in VERSION_FIELDS:
        return _text(value, host)
    return value


def _text(text: str, host: re.Pattern[str] | None) -> str:
    text = UUID.sub(r"\1", text)
    text = HOME.sub("~", text)
    for pattern in (MAC, IPV6, TOKEN):
        text = pattern.sub(HIDDEN, text)
    text = IPV4.sub(_unless_version, text)
    return host.sub(HIDDEN, text) if host else text


def _unless_version(found: re.Match[str]) -> str:
    """Four numbers are an address only if each fits a byte; a driver's 13.3.5.600 is none."""
    return HIDDEN if all(int(part) < 256 for part in found[0].split(".")) else found[0]  # noqa: PLR2004


def _host_pattern(host_name: str | None) -> re.Pattern[str] | None:
    if not host_name or host_name == "localhost":
        return None
    return re.compile(rf"(?<![\w-]){re.escape(host_name)}(?![\w-])")
