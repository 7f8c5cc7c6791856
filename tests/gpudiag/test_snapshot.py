import json

import pytest
from builders import gpu, snapshot
from hypothesis import given
from hypothesis import strategies as st

from gpudiag.errors import InputError
from gpudiag.snapshot import GpuProcess, Missing, NotObserved, Snapshot, known, known_or


def test_a_fact_is_a_value_or_its_reason():
    assert known(3) == 3
    assert known_or(Missing("why"), 7) == 7
    with pytest.raises(NotObserved, match="why"):
        known(Missing("why"))


def test_none_is_a_value():
    assert known(None) is None
    assert known_or(None, "default") is None


def test_json_gives_the_same_snapshot_back():
    process = GpuProcess(pid=1, kind="compute", used_bytes=Missing("hidden"))
    before = snapshot(
        gpus=[gpu(0, name="H100", processes=(process,), compute_capability=(9, 0))],
        torch={"cuda_version": None, "arch_list": ("sm_90",)},
        env={"CUDA_VISIBLE_DEVICES": "0\uff0c1"},
    )

    assert Snapshot.from_json(before.to_json()) == before


def test_a_missing_fact_is_written_with_its_reason():
    document = json.loads(snapshot(gpus=[gpu(0, name=Missing("gone"))]).to_json())

    assert document["nvml"]["gpus"][0]["name"] == {"missing": "gone"}


def test_fields_of_a_later_version_are_ignored():
    document = json.loads(snapshot(gpus=[gpu(0)]).to_json())
    document["nvml"]["gpus"][0]["shininess"] = 11
    document["quantum"] = {}

    assert Snapshot.from_json(json.dumps(document)) == snapshot(gpus=[gpu(0)])


def test_fields_of_an_earlier_version_are_not_recorded():
    document = {"schema_version": 1, "gpudiag_version": "0.0.9", "nvml": {"gpus": [{"index": 0}]}}

    read = Snapshot.from_json(json.dumps(document))

    assert len(known(read.nvml.gpus)) == 1
    with pytest.raises(NotObserved, match=r"not recorded by gpudiag 0\.0\.9"):
        known(read.nvml.gpus[0].name)
    assert Snapshot.from_json(read.to_json()) == read


def test_the_snapshot_inside_a_report_is_read_too():
    text = json.dumps({"findings": [], "snapshot": json.loads(snapshot().to_json())})

    assert Snapshot.from_json(text) == snapshot()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a snapshot in JSON, got text that is not: Input data was truncated"),
        ("GPU 0: fine", "expected a snapshot in JSON, got text that is not: JSON is malformed"),
        ("[]", "got JSON without schema_version; record one with 'gpudiag snapshot --output FILE'"),
        ("{}", "got JSON without schema_version"),
        (
            '{"schema_version": 99}',
            "expected a snapshot of schema version 1, got 99; "
            "read it with the gpudiag version that wrote it",
        ),
        (
            '{"schema_version": 1, "nvml": {"gpus": [{}]}}',
            "got one with a wrong field: Object missing required field `index` - "
            "at `$.nvml.gpus[0]`",
        ),
    ],
)
def test_what_is_no_snapshot_is_told_in_one_line(text, message):
    with pytest.raises(InputError) as caught:
        Snapshot.from_json(text)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values | st.fixed_dictionaries({"schema_version": st.just(1), "nvml": json_values}))
def test_any_json_is_a_snapshot_or_one_clear_error(value):
    try:
        outcome = Snapshot.from_json(json.dumps(value))
    except InputError as error:
        outcome = str(error)

    assert isinstance(outcome, Snapshot) or outcome.startswith("expected a snapshot")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_snapshot_or_one_clear_error(data):
    with pytest.raises(InputError, match="expected a snapshot"):
        Snapshot.from_json(data)
