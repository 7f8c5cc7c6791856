"""``gpudiag rules``, ``explain`` and ``schema``: what gpudiag itself is made of."""

from __future__ import annotations

import click


@click.command()
def rules() -> None:
    """List every rule with its severity.

    \b
    Example:  gpudiag rules
    """
    from gpudiag.rules import CATALOGUE

    for rule in CATALOGUE:
        click.echo(f"{rule.id}  {rule.severity:<7}  {rule.title}")


@click.command()
@click.argument("rule_id", metavar="ID")
def explain(*, rule_id: str) -> None:
    """Explain a rule: how it is seen, the cause, the cure, and when to ignore it.

    \b
    Example:  gpudiag explain GD202
    """
    from gpudiag.choice import no_such_rule
    from gpudiag.rules import CATALOGUE
    from gpudiag.rules.catalogue import as_text

    rule = next((rule for rule in CATALOGUE if rule.id == rule_id.upper()), None)
    if rule is None:
        raise no_such_rule([rule_id])
    click.echo(as_text(rule))


@click.command()
@click.argument("document", type=click.Choice(["snapshot", "report"]), default="snapshot")
def schema(*, document: str) -> None:
    """Print the JSON Schema of a snapshot or of a report (diagnose --format json).

    \b
    Example:  gpudiag schema > snapshot.schema.json
    """
    import json

    from gpudiag.schema import json_schema

    click.echo(json.dumps(json_schema(document), indent=2))
