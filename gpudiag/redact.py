"""Snapshot -> the same snapshot without what names a person, a machine or a network."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gpudiag.snapshot import GpuProcess, Snapshot, Variable, known_or

HIDDEN = "redacted"
# CUDA accepts the first block of a UUID, so a shortened one still names its GPU.
UUID = re.compile(r"\b((?:GPU|MIG)-[0-9a-fA-F]{8})-[0-9a-fA-F]{4}-[0-9a-fA-F-]{22}\b")
LONG_UUID = re.compile(r"(?<![\w-])((?:GPU|MIG)-[0-9a-fA-F]{8})-[0-9a-fA-F-]+(?![\w-])")
HOME = re.compile(r"(?<![\w.-])(?:(?:/home|/Users)/[^/\s:'\"]+|/root(?=[/\s:'\"]|$))")
HOME_ELSEWHERE = re.compile(r"(/home/|/Users/)[^/\s:'\"]+")  # /mnt/home/ada
MAC = re.compile(r"(?<![A-Za-z0-9])[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}(?![A-Za-z0-9:])")
IPV4 = re.compile(r"(?<![A-Za-z0-9.])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9.])")
GROUP = r"[0-9a-fA-F]{1,4}"
IPV6 = re.compile(
    rf"(?<![\w:])(?:(?:{GROUP}:){{7}}{GROUP}|{GROUP}(?::{GROUP})*::(?:{GROUP}(?::{GROUP})*)?)(?![\w:])"
)
TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_|gh[oprsu]_|github_pat_|glpat-|nvapi-|sk-|[rs]k_live_|xox[a-z]-|xapp-"
    r"|pypi-|npm_|AKIA|ASIA|AIza|eyJ)[A-Za-z0-9_.-]{12,}"
    # the password in https://user:password@host, also one with a slash or @ of its own; no port
    r"|(?<=://)[^/@:\s]{0,64}:(?!\d+/)[^\s'\"<>]{1,256}(?=@)|(?<=//)[^/@\s]+(?=@)"
    r"|(?<=hooks\.slack\.com/)[^\s'\"<>]+"
)
MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
# What stands behind these words: the word stays, what it gives away goes.
TELLING_NAME = (
    r"(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|(?:access|account|private)[_-]key)"
)
TELLING = re.compile(
    r"(?i)("
    # prose, where most words behind them give nothing away: "token expected"
    rf"(?:\bserial(?: number)?(?: is)?|{TELLING_NAME})(?![A-Za-z])[=:\s]\s*(?=[^\s;,&'\"]*\d)"
    rf"|(?<![A-Za-z]){TELLING_NAME}['\"]?\s?[=:]\s*['\"]?(?=[^\s;,&'\"])"
    rf"|(?<!\S)--?[\w-]*{TELLING_NAME}\s+(?!-)"
    r"|[?&](?:sig|[\w-]*signature|[\w-]*credential)="  # signed addresses of Azure, AWS, Google
    r"|\bauthorization['\"]?\s*[=:]\s*['\"]?(?:[a-z]+\s+)?|\bbearer\s+(?=[\w.~+/-]{8})"
    r")[^\s;,&'\"]+"
)
MAC_IN_NAME = re.compile(r"(?<![A-Za-z0-9])(enx|wlx|wwx)[0-9a-f]{12}(?![A-Za-z0-9])")
CHOSEN_GPUS = "CUDA_VISIBLE_DEVICES"
HOST_OF_RANK_0 = "NCCL_COMM_ID"  # host:port, often of another machine
# Names that thousands of machines share say nothing about a person or a machine; hiding them would
# hide facts: /dev/nvidia0 from a user "dev", the driver from a host "nvidia".
SHARED_NAMES = frozenset(
    {
        *("root", "user", "ubuntu", "debian", "admin", "ec2-user", "jovyan", "localhost", "host"),
        *("dev", "lib", "usr", "opt", "bin", "tmp", "home", "data", "local", "linux", "test"),
        *("nvidia", "cuda", "torch", "pytorch", "python", "conda", "venv", "gpu", "node", "slurm"),
    }
)
SHORTEST_NAME = 2  # a single letter is a word of its own too often
USER_VARIABLES = ("USER", "LOGNAME", "USERNAME", "SUDO_USER", "SLURM_JOB_USER", "PBS_O_LOGNAME")
VERSION_FIELDS = frozenset({"version", "build", "installed", "specifier"})  # look like addresses


class Identity(Struct, frozen=True, kw_only=True):
    """What must not be told: who works here, where, and what the machine is called."""

    users: tuple[str, ...] = ()
    home: str | None = None
    host_name: str | None = None


def identity_of(environment: Mapping[str, str], *, login: str | None, host_name: str) -> Identity:
    """Who is to be hidden, from what a process knows of itself.

    Args:
        environment: Its variables: the user, whoever called sudo, and whose batch job it is.
        login: The name of its user in the password file, None where it has none.
        host_name: What the machine is called.

    Example:
        >>> identity_of({"USER": "root", "SUDO_USER": "ada"}, login="root", host_name="n1").users
        ('ada', 'root')
    """
    names = {environment.get(variable, "") for variable in USER_VARIABLES} | {login or ""}
    return Identity(
        users=tuple(sorted(names - {""})), home=environment.get("HOME"), host_name=host_name
    )


def this_identity(environment: Mapping[str, str]) -> Identity:
    """Who is to be hidden in what this process saw with these variables."""
    import pwd

    try:
        login = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # the number has no name
        login = None
    return identity_of(environment, login=login, host_name=os.uname().nodename)


def redact(snapshot: Snapshot, identity: Identity | None = None) -> Snapshot:
    """Hide user names, home paths, the host name, addresses, serial numbers and tokens.

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
    cleaner = _Cleaner(_names(identity or Identity()), uuids=_uuids(snapshot))
    cleaned: Snapshot = cleaner.clean(snapshot, "")
    return cleaned


def _names(identity: Identity) -> list[tuple[re.Pattern[str], str]]:
    patterns = []
    if identity.home and identity.home.strip("/"):
        patterns.append(
            (re.compile(rf"(?<![\w.-]){re.escape(identity.home.rstrip('/'))}(?![\w.-])"), "~")
        )
    host = (identity.host_name or "").partition(".")[0]
    domain = r"(?:\.[A-Za-z0-9-]+)*"
    patterns += [
        (re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9]){behind}"), HIDDEN)
        for name, behind in (*((user, "") for user in identity.users), (host, domain))
        if len(name) >= SHORTEST_NAME and name.lower() not in SHARED_NAMES
    ]
    return patterns


def _uuids(snapshot: Snapshot) -> tuple[str, ...]:
    gpus = known_or(snapshot.nvml.gpus, ())
    return tuple(
        uuid
        for gpu in gpus
        for uuid in (gpu.uuid, *known_or(gpu.mig_uuids, ()))
        if isinstance(uuid, str)
    )


class _Cleaner:
    """Goes through a snapshot; a text that comes again, as most do, is not searched again."""

    def __init__(self, names: list[tuple[re.Pattern[str], str]], *, uuids: tuple[str, ...]) -> None:
        self._names = names
        self._uuids = uuids
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
            value = replace(value, user=value.user if value.user in SHARED_NAMES else HIDDEN)
        if isinstance(value, Variable) and value.name == CHOSEN_GPUS:
            value = replace(value, value=LONG_UUID.sub(self._short_uuid, value.value))
        if isinstance(value, Variable) and value.name == HOST_OF_RANK_0:
            value = replace(value, value=re.sub(r".+?(?=:\d+$|$)", HIDDEN, value.value, count=1))
        before = {name: getattr(value, name) for name in value.__struct_fields__}
        after = {name: self.clean(item, name) for name, item in before.items()}
        return type(value)(**after)

    def _short_uuid(self, found: re.Match[str]) -> str:
        """The first block of a GPU's UUID; where the rest fits no GPU, that is still to be seen."""
        if not self._uuids or any(uuid.startswith(found[0]) for uuid in self._uuids):
            return found[1]
        return f"{found[1]}-{HIDDEN}"

    def _text(self, text: str) -> str:
        if text not in self._seen:
            self._seen[text] = _text(text, self._names)
        return self._seen[text]


def _text(text: str, names: list[tuple[re.Pattern[str], str]]) -> str:
    if "-" in text:
        text = UUID.sub(r"\1", text)
    for pattern, shown in names:
        text = pattern.sub(shown, text)
    if "/" in text:
        text = HOME_ELSEWHERE.sub(rf"\1{HIDDEN}", HOME.sub("~", text))
    if ":" in text:
        text = IPV6.sub(HIDDEN, MAC.sub(HIDDEN, text))
    if "@" in text:
        text = MAIL.sub(HIDDEN, text)
    text = MAC_IN_NAME.sub(rf"\1{HIDDEN}", TELLING.sub(rf"\1{HIDDEN}", TOKEN.sub(HIDDEN, text)))
    return IPV4.sub(_unless_version, text) if "." in text else text


def _unless_version(found: re.Match[str]) -> str:
    """Four numbers are an address only if each fits a byte; a wheel's 13.3.5.600 is none."""
    return HIDDEN if all(int(part) < 256 for part in found[0].split(".")) else found[0]  # noqa: PLR2004
