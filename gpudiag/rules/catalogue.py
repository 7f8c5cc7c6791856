"""The catalogue: one page per rule and docs/rules.md, both read from the rules themselves.

A rule's docstring says how it is seen; its causes and cures are the texts of the findings in its
code, with a name in angle brackets for what a machine fills in. ``make docs`` writes docs/rules.md.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from gpudiag.finding import Rule
from gpudiag.rules import CATALOGUE

FAMILIES = {
    "GD1": "Driver",
    "GD2": "torch and its packages",
    "GD3": "Visibility: what a process gets to see",
    "GD4": "Hardware",
    "GD5": "GPU memory",
    "GD6": "System and environment",
    "GD7": "Several GPUs",
    "GD8": "Measurements (`gpudiag diagnose --measure`)",
}
WIDTH = 100
TEXTS = (ast.Constant, ast.JoinedStr, ast.IfExp, ast.BinOp)  # what a local name may stand for
FACTS = ("known", "known_or")  # functions that give a fact, which only a machine can fill in
ALTERNATIVE = "; or "  # between cures that do the same

# What users report and no snapshot shows: the fault, and why.
NOT_DETECTABLE = (
    (
        "CUDA_VISIBLE_DEVICES was changed after torch had started CUDA",
        "a snapshot asks a fresh process; `gpudiag.select_devices()` refuses it when it happens",
    ),
    (
        "A process holds memory as a zombie of a parent that does not reap it",
        "a zombie has closed its files; its memory shows as GD501 or GD502",
    ),
    (
        "empty_cache() does not lower nvidia-smi's figure",
        "that is how it works: context, reserve and live tensors stay; "
        "`gpudiag.clear_cache()` shows the three numbers",
    ),
    (
        "The out-of-memory message advises expandable_segments although it is on",
        "the text of an error of another process is not in a snapshot",
    ),
    (
        "A GPU is refused a reset: in use by another client",
        "that is the answer to a command; `gpudiag reset --dry-run` names who holds it",
    ),
    (
        "Copies between GPUs arrive wrong, NCCL hangs",
        "only an active test shows it: `gpudiag measure`; GD702 and GD703 show what causes it",
    ),
    (
        "NaN that moves with the machine; one GPU slower than its equals",
        "only an active test shows it: `gpudiag measure`",
    ),
    (
        "Copies to the GPU are slow although the link is as it should be",
        "a snapshot does not copy; `gpudiag measure` does",
    ),
    (
        "GPU-Util is 100 % and training is slow",
        "utilization is the time with a kernel running, not its size; `gpudiag record` compares "
        "it with power and clocks",
    ),
    (
        "A second library (CTranslate2, ONNX Runtime) does not find cuDNN",
        "it looks for it when it is used, in a process of its own; GD209 shows what torch mapped",
    ),
    (
        "torch.compile does not find libcuda.so for linking",
        "the linker's path is known only while it links; GD218 and GD219 show the other two causes",
    ),
    (
        "The container was refused: could not select device driver with capabilities [[gpu]]",
        "there is then no container in which gpudiag could run; the host needs "
        "nvidia-container-toolkit",
    ),
    (
        "PCI Express replays",
        "NVML counts them, and at high generations healthy links count many (NVIDIA/DCGM#184): "
        "there is no threshold that tells a fault",
    ),
)


class Page(NamedTuple):
    """What the catalogue says about a rule."""

    seen: str
    causes: tuple[str, ...]
    cures: tuple[str, ...]
    ignore: str | None


def page_of(rule: Rule) -> Page:
    """How a rule's fault is seen, its causes, its cures, and when to ignore it."""
    paragraphs = [" ".join(text.split()) for text in rule.explanation.split("\n\n")]
    named = {"Cause": None, "Cure": None, "Ignore": None} | {
        head: text
        for text in paragraphs
        if (head := text.split(" ")[0].rstrip(":")) in {"Cause", "Cure", "Ignore"}
    }
    written = {name: text.partition(": ")[2] for name, text in named.items() if text}
    return Page(
        seen="\n\n".join(text for text in paragraphs if text not in named.values()),
        causes=(written["Cause"],) if "Cause" in written else _texts(rule, "cause"),
        cures=(written["Cure"],) if "Cure" in written else _texts(rule, "fix"),
        ignore=named["Ignore"],
    )


def as_text(rule: Rule) -> str:
    """A rule's page for the terminal.

    Example:
        >>> print(as_text(CATALOGUE[3]).splitlines()[0])
        GD104  The nouveau driver holds the GPU  (error)
    """
    return _rendered(rule, head=f"{rule.id}  {rule.title}  ({rule.severity})")


def as_markdown(rule: Rule) -> str:
    """A rule's section of docs/rules.md: the same text under a heading."""
    text = _rendered(rule, head=rule.id).partition("\n\n")[2]
    text = text.replace("<", "&lt;").replace("*", r"\*")
    text = re.sub(
        r"^(Seen\.|Cause\.|Cure\.|Explains\.|Ignore it)", r"**\1**", text, flags=re.MULTILINE
    )
    text = re.sub(r"^(https://\S+)$", r"<\1>", text, flags=re.MULTILINE)
    return f"### {rule.id} {rule.title}\n\n*{rule.severity}*\n\n{text}"


def document() -> str:
    """The whole of docs/rules.md."""
    parts = [
        "# Rules",
        "This file is generated from the rules (`make docs`); `gpudiag explain ID` shows the same "
        "text. A name in angle brackets stands for what gpudiag fills in on your machine. An error "
        "means that something does not work or gives wrong results, a warning that it will hurt.",
        _overview(),
    ]
    for prefix, family in FAMILIES.items():
        parts.append(f"## {family}")
        parts += [as_markdown(rule) for rule in CATALOGUE if rule.id.startswith(prefix)]
    rows = "\n".join(f"| {fault} | {reason} |" for fault, reason in NOT_DETECTABLE)
    parts += [
        "## Not detectable, because",
        f"| what users meet | why no rule finds it |\n|--|--|\n{rows}",
    ]
    return "\n\n".join(parts) + "\n"


def _overview() -> str:
    rows = "\n".join(
        f"| [{rule.id}](#{_anchor(rule)}) | {rule.severity} | {rule.title} |" for rule in CATALOGUE
    )
    return f"| rule | severity | title |\n|--|--|--|\n{rows}"


def _anchor(rule: Rule) -> str:
    """The anchor that a Markdown page gives the heading of a rule."""
    return re.sub(r"[^\w -]", "", f"{rule.id} {rule.title}".lower()).replace(" ", "-")


def _rendered(rule: Rule, *, head: str) -> str:
    page = page_of(rule)
    parts = [head, f"Seen. {page.seen}"]
    parts += [f"Cause. {_sentence(text)}" for text in page.causes]
    parts.append(_listed("Cure.", page.cures))
    if page.ignore:
        parts.append(page.ignore)
    if rule.explains:
        parts.append(f"Explains. {', '.join(rule.explains)}")
    parts.append("\n".join(rule.links))
    return "\n\n".join(_wrapped(part) for part in parts if part)


def _listed(head: str, cures: tuple[str, ...]) -> str:
    alternatives = [cure for text in cures for cure in text.split(ALTERNATIVE)]
    if len(alternatives) == 1:
        return f"{head} {alternatives[0]}"
    return head + "\n\n" + "\n".join(f"- {cure}" for cure in dict.fromkeys(alternatives))


def _wrapped(text: str) -> str:
    def lines() -> Iterator[str]:
        for line in text.split("\n"):
            indent = "  " if line.startswith("- ") else ""
            yield "\n".join(
                textwrap.wrap(
                    line,
                    WIDTH,
                    subsequent_indent=indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )

    return "\n".join(lines())


def _sentence(text: str) -> str:
    """The text with a capital where it begins with a plain word, not with a name in code."""
    word = re.match(r"[a-z]+(?=[ ,:])", text)
    return text[0].upper() + text[1:] if word and word[0] != "torch" else text


def _texts(rule: Rule, keyword: str) -> tuple[str, ...]:
    """The texts that a rule's findings can carry under *keyword*, read from its source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(rule.check)))
    local = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    module = inspect.getmodule(rule.check)
    names = vars(module) if module else {}
    found = [
        text
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == keyword
        for text in _alternatives(node.value, local, names)
    ]
    return tuple(dict.fromkeys(found))


def _alternatives(  # noqa: C901 - one case for each form that a text takes
    node: ast.expr, local: dict[str, ast.expr], names: dict[str, object]
) -> list[str]:
    """Every text that an expression can become."""

    def below(part: ast.expr) -> list[str]:
        return _alternatives(part, local, names)

    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp(body=body, orelse=orelse):
            return [*below(body), *below(orelse)]
        case ast.BinOp(left=left, right=right, op=ast.Add()):
            return [first + second for first in below(left) for second in below(right)]
        case ast.JoinedStr(values=values):
            texts = [""]
            for value in values:
                texts = [text + more for text in texts for more in below(value)]
            return texts
        case ast.FormattedValue(value=value):
            return below(value)
        case ast.Name(id=name) if isinstance(local.get(name), TEXTS):
            return below(local[name])
        case ast.Name(id=name) if name in local:
            return [f"<{name.replace('_', ' ')}>"]
        case ast.Name(id=name) if isinstance(names.get(name), str | int):
            return [str(names[name])]
        case ast.Call(func=ast.Name(id=name)) if name not in FACTS and name in names:
            return _of_helper(name, names)
    return [f"<{_placeholder(node)}>"]


def _of_helper(name: str, names: dict[str, object]) -> list[str]:
    """What a helper gives, as its first line says it."""
    first = (inspect.getdoc(names[name]) or "").partition("\n")[0].rstrip(".")
    return [f"<{first[0].lower()}{first[1:]}>"] if first else [f"<{name.strip('_')}>"]


def _placeholder(node: ast.expr) -> str:
    """A short name for what only a machine can fill in."""
    text = re.sub(r"known(?:_or)?\(([\w.]+)[^)]*\)", r"\1", ast.unparse(node))
    words = re.findall(r"[a-z_]+", text.replace("snapshot.", ""))
    return words[-1].replace("_", " ").strip() if words else "value"
