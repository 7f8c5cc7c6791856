"""Files that somebody changed: a snapshot or one clear error, never a traceback, in every form."""

import json
import random
from pathlib import Path

import pytest

from gpudiag.compare import compare
from gpudiag.diagnose import diagnose
from gpudiag.errors import InputError
from gpudiag.redact import redact
from gpudiag.render import FORMS, render
from gpudiag.rules import RULES
from gpudiag.snapshot import Snapshot
from gpudiag.tables import TABLES

RECORDED = [
    json.loads(path.read_text())
    for path in sorted((Path(__file__).parent.parent / "recorded").glob("*.json"))
]
ODD = (
    *("", " ", "abc", "0", "12", "1.2", "v13", "550.", "a.b", "99999.1", "1.2.3.4.5", "0xzz"),
    *(
        "²",
        "9" * 30,
        "9" * 5000,
        "a" * 3000,
        "\x00",
        "\u202e",
        "=cmd()",
        "%s{}",
        "../x",
        "0-",
        "0,1",
    ),
    *("GPU-", "GPU-1,GPU-1", "sm_", "sm_9", "compute_90a", "\x1b[2J", "<b>", "|"),
    *(-1, 0, 1, 10**15, -(10**15), 2**63 - 1, 1.5, -0.1, 1e300, True, False, None),
    *([], [0], ["x"], [0, 0], {}, {"missing": "gone"}),
)


def places(value, path=()):
    """The path of every value in a document but the document itself."""
    if path:
        yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))


def at(document, path):
    for key in path:
        document = document[key]
    return document


def changed(document, chance):
    """The document with some values replaced, mostly by odd ones of the same type."""
    document = json.loads(json.dumps(document))
    for _ in range(chance.choice((1, 3, 8, 20))):
        path = chance.choice(list(places(document)))
        old = at(document, path)
        alike = [value for value in ODD if type(value) is type(old)]
        value = chance.choice(alike if alike and chance.random() < 0.95 else ODD)
        at(document, path[:-1])[path[-1]] = value
    return document


def outcome(seed):
    """A changed snapshot that can be read, or the message with which it is refused."""
    chance = random.Random(seed)
    document = changed(chance.choice(RECORDED), chance)
    try:
        return Snapshot.from_json(json.dumps(document))
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(120))
def test_a_changed_snapshot_is_diagnosed_or_refused_in_one_line(seed):
    seen = outcome(seed)

    if isinstance(seen, str):
        assert seen.startswith("expected a snapshot")
        assert "\n" not in seen
        return
    assert Snapshot.from_json(seen.to_json()) == seen
    report = diagnose(seen, RULES)
    assert report.crashed == {}
    for form in FORMS:
        assert render(report, form, verbose=True)
    for table in TABLES.values():
        table(seen)
    assert diagnose(redact(seen), RULES).crashed == {}
    assert compare(seen, Snapshot.from_json(json.dumps(RECORDED[0])), rules=RULES)


def test_the_changes_leave_enough_to_diagnose():
    """Most of the files above must be read, or the test would test the refusal alone."""
    assert sum(isinstance(outcome(seed), Snapshot) for seed in range(120)) > 40
