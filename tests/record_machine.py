"""Record this machine for the tests: `python tests/record_machine.py healthy_h200_node`.

Writes tests/recorded/NAME.json: what `gpudiag snapshot` shows of a real machine, redacted. Every
file there is read by the tests; its name says what they expect of it:

    healthy_NAME       no rule finds an error or a warning, and most rules can be asked
    faulty_gd204_NAME  this rule finds its fault (several: faulty_gd204_gd201_NAME)
    NAME               it is valid, and no rule crashes on it

Look the file through for what names a person, a machine or a project before it is committed.
"""

import re
from pathlib import Path

import click

from gpudiag.commands import running
from gpudiag.diagnose import diagnose
from gpudiag.finding import Severity
from gpudiag.output import write_private
from gpudiag.rules import RULES
from gpudiag.snapshot import Snapshot

RECORDED = Path(__file__).parent / "recorded"
NAME = re.compile(r"(?P<kind>healthy_|faulty_(?:gd\d{3}_)+)?[a-z][a-z0-9_]*")
ALWAYS = ("schema_version", "gpudiag_version", "taken_at", "probe_times_s")


def expected_rules(name: str) -> set[str]:
    """The rules that a machine of this name has to show.

    Example:
        >>> sorted(expected_rules("faulty_gd204_gd201_cpu_torch"))
        ['GD201', 'GD204']
    """
    kind = NAME.fullmatch(name)["kind"] or ""
    return {rule.upper() for rule in re.findall(r"gd\d{3}", kind)}


def contradiction(name: str, seen: Snapshot) -> str | None:
    """Why a machine may not be recorded under this name, None if it may."""
    report = diagnose(seen, RULES)
    if report.crashed:
        return f"a rule crashes on it: {report.crashed}"
    found = {finding.id for finding in report.findings}
    if absent := expected_rules(name) - found:
        return f"{', '.join(sorted(absent))} finds nothing; found: {sorted(found)}"
    bad = [one.id for one in report.findings if one.severity is not Severity.NOTE]
    if name.startswith("healthy_") and bad:
        return f"a healthy machine gives no error and no warning; found: {bad}"
    return None


@click.command()
@click.argument("name")
@click.option("--sections", default="", help="Record these alone, as torch,packages.")
@click.option("--no-torch", is_flag=True, help="Do not import torch.")
@click.option("--timeout", "timeout_s", default=120.0, show_default=True, help="Seconds in all.")
@click.option("--folder", type=click.Path(path_type=Path), default=RECORDED, show_default=True)
def main(name: str, sections: str, timeout_s: float, folder: Path, *, no_torch: bool) -> None:
    """Record this machine as NAME.json; nothing is written where it contradicts its name."""
    if not NAME.fullmatch(name):
        raise click.UsageError(f"expected a name such as healthy_h200_node, got {name}")
    seen = running.snapshot(None, torch=not no_torch, timeout_s=timeout_s, redacted=True)
    chosen = [one for one in sections.split(",") if one] or seen.__struct_fields__
    if unknown := set(chosen) - set(seen.__struct_fields__):
        raise click.UsageError(f"expected sections of a snapshot, got {', '.join(unknown)}")
    kept = Snapshot(**{one: getattr(seen, one) for one in (*ALWAYS, *chosen)})
    if why := contradiction(name, kept):
        raise click.UsageError(f"{name}: {why}")
    path = folder / f"{name}.json"
    write_private(path, kept.to_json() + "\n")
    path.chmod(0o644)  # a file of the project, no longer private
    click.echo(f"{path}: {path.stat().st_size} bytes; look it through before it is committed")


if __name__ == "__main__":
    main()
