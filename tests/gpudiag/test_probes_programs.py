"""Probes that ask native libraries, in real processes: NVML (simulated), libcuda, torch."""

import os
import subprocess
import sys
import time

import pytest
from builders import only

from gpudiag.finding import Severity
from gpudiag.host import Host
from gpudiag.probes import Probe, take_snapshot
from gpudiag.probes.driver import driver
from gpudiag.probes.nvml import nvml as ask_nvml
from gpudiag.probes.torch_build import torch_build
from gpudiag.rules.import_error import import_takes_long, torch_does_not_import
from gpudiag.snapshot import Driver, Missing, NotObserved, Snapshot, System, known, known_or


@pytest.fixture
def seen(nvml):
    def ask(scenario, *, limit_s=15.0, **how):
        return ask_nvml(Host(environment=os.environ | nvml(scenario, **how)), limit_s)

    return ask


def test_a_healthy_machine_answers_every_question(seen):
    facts = seen("healthy_8")

    gpus = known(facts.gpus)
    assert (facts.init_code, facts.failure) == (0, None)
    assert (facts.driver_version, facts.cuda_version) == ("550.54.15", "12.4")
    assert [gpu.index for gpu in gpus] == list(range(8))
    assert {gpu.name for gpu in gpus} == {"NVIDIA H100 80GB HBM3"}
    assert len({gpu.uuid for gpu in gpus}) == 8
    missing = {
        name
        for gpu in gpus
        for name in gpu.__struct_fields__
        if isinstance(getattr(gpu, name), Missing)
    }
    assert missing == {
        "pages_retired_single_bit",  # an H100 remaps rows instead
        "pages_retired_double_bit",
        "page_retirement_pending",
        "recovery_action",  # from driver 565 on
        "temperature_margin_celsius",  # from 570 on
        "fabric_health",  # from 580 on
    }
    assert len(known(facts.pairs)) == 28


def test_one_gpu_is_described_in_the_units_of_the_field_names(seen):
    gpu = known(seen("healthy_8", changes={"gpu.0.power_usage_milliwatt": "612345"}).gpus)[0]

    assert gpu.power_watts == pytest.approx(612.345)
    assert gpu.power_limit_watts == 700
    assert 0 < known(gpu.utilization_fraction) <= 1
    assert gpu.compute_capability == (9, 0)
    assert gpu.compute_mode == "default"
    assert gpu.pci_address == "0000:1b:00.0"
    assert known(gpu.memory_used_bytes) + known(gpu.memory_free_bytes) + known(
        gpu.memory_reserved_bytes
    ) == known(gpu.memory_total_bytes)


def test_a_process_of_this_machine_has_a_name_and_an_owner(seen):
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        changes = {"gpu.0.process.0": f"{sleeper.pid} 1073741824 compute"}
        process = known(known(seen("healthy_8", changes=changes).gpus)[0].processes)[0]
    finally:
        sleeper.kill()
        sleeper.wait()

    assert (process.pid, process.name, process.used_bytes) == (sleeper.pid, "sleep", 2**30)
    assert process.visible is True
    assert isinstance(process.user, str)


def test_a_process_of_another_namespace_is_not_visible(seen):
    process = known(
        known(seen("healthy_8", changes={"gpu.0.process.0": "4194999 1073741824 compute"}).gpus)[
            0
        ].processes
    )[0]

    assert process.visible is False
    assert process.name == Missing("process 4194999 is not in this PID namespace")


def test_a_process_that_proc_hides_is_not_taken_for_dead(nvml, tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mounts").write_text("proc /proc proc rw,hidepid=invisible 0 0\n")
    changes = {"gpu.0.process.0": "4711 1073741824 compute"}
    host = Host(root=tmp_path, environment=os.environ | nvml("healthy_8", changes=changes))

    process = known(known(ask_nvml(host, 15).gpus)[0].processes)[0]

    hidden = Missing("/proc hides the processes of other users from this one (hidepid)")
    assert (process.visible, process.name, process.user) == (hidden, hidden, hidden)


@pytest.mark.parametrize(
    ("scenario", "code", "message"),
    [
        ("driver_library_mismatch", 18, "RM has detected an NVML/RM version mismatch."),
        ("driver_not_loaded", 9, "Driver Not Loaded"),
    ],
)
def test_a_refusal_keeps_its_code_and_text(seen, scenario, code, message):
    facts = seen(scenario)

    assert facts.init_code == code
    assert message.rstrip(".") in known(facts.init_message)
    with pytest.raises(NotObserved, match=rf"NVML did not start: .*\(NVML {code}\)"):
        known(facts.gpus)


def test_a_machine_without_the_library_says_so():
    facts = ask_nvml(Host(environment={"PATH": os.environ["PATH"]}), 15)

    if facts.init_code == 0:
        pytest.skip("this machine has a real NVIDIA driver")
    assert facts.init_code == 12
    assert isinstance(facts.gpus, Missing)


def test_a_lost_gpu_does_not_hide_the_others(seen):
    gpus = known(seen("lost_gpu").gpus)

    assert [gpu.error_codes for gpu in gpus] == [(), (), (), (), (), (15,), (), ()]
    assert isinstance(gpus[5].name, Missing)
    assert isinstance(gpus[7].name, str)


def test_an_old_driver_gives_what_it_can(seen):
    facts = seen("old_driver")

    gpu = known(facts.gpus)[0]
    assert gpu.error_codes == ()
    assert known(gpu.memory_used_bytes) > 0
    assert gpu.memory_reserved_bytes == Missing("this driver counts its reserve as used")
    assert isinstance(gpu.clock_event_reasons, int)  # under its older name
    assert gpu.row_remap_pending == Missing(
        "nvmlDeviceGetRemappedRows: Function Not Found (NVML 13)"
    )
    assert all(known(process.used_bytes) > 0 for process in known(gpu.processes))
    assert known(gpu.processes)  # by the first version of the call


def test_mig_instances_are_listed(seen):
    gpu = known(seen("mig").gpus)[0]

    assert gpu.mig_enabled is True
    assert len(known(gpu.mig_uuids)) == 3
    assert all(uuid.startswith("MIG-") for uuid in known(gpu.mig_uuids))


def test_a_gpu_that_hangs_costs_itself_and_those_after_it(seen):
    started = time.monotonic()
    facts = seen("hangs_halfway", limit_s=2)

    gpus = known(facts.gpus)
    assert time.monotonic() - started < 5
    assert facts.failure == "no answer within 2 s"
    assert [isinstance(gpu.name, str) for gpu in gpus] == [True] * 4 + [False] * 4
    assert gpus[4].name == Missing("NVML was asked and did not answer: no answer within 2 s")


def test_a_gpu_that_crashes_nvml_costs_itself_and_those_after_it(seen):
    facts = seen("crashes")

    assert facts.failure == "killed by signal 11 (SIGSEGV)"
    assert [isinstance(gpu.name, str) for gpu in known(facts.gpus)] == [True] * 3 + [False] * 5


def test_sixty_four_gpus_are_listed(seen):
    assert len(known(seen("healthy_8", gpus=64).gpus)) == 64


LIBCUDA = """
int cuDriverGetVersion(int *version) {{ *version = 12040; return 0; }}
int cuInit(unsigned flags) {{ {body} }}
int cuDeviceGetCount(int *count) {{ *count = 8; return 0; }}
"""


@pytest.fixture
def libcuda(tmp_path):
    """An environment with a libcuda.so.1 whose cuInit runs the given C."""

    def build(body):
        source = tmp_path / "cuda.c"
        source.write_text("#include <unistd.h>\n" + LIBCUDA.format(body=body))
        output = tmp_path / "libcuda.so.1"
        command = ["gcc", "-shared", "-fPIC", "-o", str(output), str(source)]
        subprocess.run(command, check=True)
        return Host(environment=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)})

    return build


@pytest.mark.parametrize("code", [0, 34, 46, 100, 802, 803, 804, 805, 999])
def test_cuinits_code_is_a_fact(libcuda, tmp_path, code):
    facts = driver(libcuda(f"return {code};"), 10)

    assert facts.cuda_init_code == code
    assert facts.cuda_driver_version == "12.4"
    assert facts.libcuda_path == str(tmp_path / "libcuda.so.1")
    if code == 0:
        assert facts.cuda_device_count == 8
    else:
        assert facts.cuda_device_count == Missing("cuInit did not succeed")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return *(volatile int *)0;", "killed by signal 11 (SIGSEGV)"),
        ("sleep(60); return 0;", "no answer within 0.8 s"),
    ],
)
def test_a_cuinit_that_crashes_or_hangs_is_a_fact(libcuda, body, reason):
    facts = driver(libcuda(body), 1)

    assert facts.cuda_init_code == Missing(reason)
    assert facts.cuda_driver_version == "12.4"  # it was said before


def fake_torch(folder, init, *, version="2.9.0+cu128", cuda="'12.8'"):
    """An environment in which `import torch` runs the given Python."""
    package = folder / "torch"
    package.mkdir()
    (package / "version.py").write_text(
        f"from typing import Optional\n__version__ = '{version}'\n"
        f"cuda: Optional[str] = {cuda}\nhip: Optional[str] = None\n"
    )
    (package / "__init__.py").write_text(init)
    return Host(environment=os.environ | {"PYTHONPATH": str(folder)})


@pytest.mark.parametrize(
    ("init", "error"),
    [
        (
            "raise ImportError('libcudnn.so.9: cannot open shared object file')",
            "ImportError: libcudnn.so.9: cannot open shared object file",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "the process that ran 'import torch' ended: killed by signal 11 (SIGSEGV)",
        ),
        (
            "import os; os._exit(3)",
            "the process that ran 'import torch' ended: exit code 3",
        ),
        (
            "import os; os._exit(0)",
            "the process that ran 'import torch' ended: exit code 0, before the import was done",
        ),
        ("import sys; sys.exit(1)", "SystemExit: 1"),
        ("print('x' * 10_000_000); raise RuntimeError('lost')", "RuntimeError: lost"),
        ("import sys; sys.stdout = None; raise RuntimeError('lost')", "RuntimeError: lost"),
        ("import os; os.close(1); raise RuntimeError('lost')", "RuntimeError: lost"),
        (
            "raise RuntimeError('x' * 10_000_000)",
            f"RuntimeError: {'x' * 3986}\n…\n{'x' * 4000}",
        ),
    ],
)
def test_an_import_that_fails_is_a_fact_beside_what_the_files_say(tmp_path, init, error):
    facts = torch_build(fake_torch(tmp_path, init), 2)

    assert facts.import_error == error
    assert (facts.version, facts.cuda_version) == ("2.9.0+cu128", "12.8")
    assert known_or(facts.hip_version, "unknown") is None
    assert facts.python == sys.executable
    with pytest.raises(NotObserved, match="import torch fails"):
        known(facts.arch_list)


@pytest.mark.parametrize(
    ("init", "lacks"),
    [
        ("", "__version__, version, cuda, backends"),
        ("__version__ = '2.9.0'", "version, cuda, backends"),
    ],
)
def test_what_imports_and_is_no_torch_is_told_as_a_failing_import(tmp_path, init, lacks):
    facts = torch_build(fake_torch(tmp_path, init), 20)

    place = tmp_path / "torch" / "__init__.py"
    assert facts.import_error == f"{place} is not a whole torch: it has no {lacks}"


def test_an_import_that_takes_long_is_not_a_torch_that_is_broken(tmp_path):
    facts = torch_build(fake_torch(tmp_path, "import time; time.sleep(60)"), 2)

    seen = Snapshot(torch=facts)
    assert facts.import_error == Missing("import torch gave no answer within 2 s")
    assert (facts.version, facts.cuda_version) == ("2.9.0+cu128", "12.8")
    finding = only(import_takes_long, seen)
    assert (finding.severity, finding.evidence) == (
        Severity.WARNING,
        ("import torch gave no answer within 2 s",),
    )
    with pytest.raises(NotObserved, match="no answer within 2 s"):
        torch_does_not_import(seen)


def test_a_truncated_library_is_named(tmp_path):
    (tmp_path / "libtorch_cpu.so").write_bytes(b"\x7fELF")
    init = f"import ctypes; ctypes.CDLL({str(tmp_path / 'libtorch_cpu.so')!r})"

    facts = torch_build(fake_torch(tmp_path, init), 10)

    assert "file too short" in known(facts.import_error)


def test_an_environment_without_torch_says_so(tmp_path):
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'torch' else find(name, *a)\n"
    )

    facts = torch_build(Host(environment=os.environ | {"PYTHONPATH": str(tmp_path)}), 20)

    assert facts.version == Missing(f"torch is not installed for {sys.executable}")


PRECISION_FLAGS = (
    *("cudnn_allows_tf32", "fp16_reduced_precision", "bf16_reduced_precision"),
    *("deterministic_algorithms", "cudnn_benchmark"),
)


def test_the_torch_of_this_environment_is_described():
    torch = pytest.importorskip("torch")

    facts = torch_build(Host(), 120)

    assert facts.import_error is None
    assert facts.version == torch.__version__
    assert facts.cuda_version == torch.version.cuda
    assert facts.cuda_available is torch.cuda.is_available()
    flags = {name: getattr(facts, name) for name in PRECISION_FLAGS}
    assert {name for name, value in flags.items() if not isinstance(value, bool)} == set()
    if torch.version.cuda:
        assert known(facts.arch_list)


def _hangs(_host, _limit_s):
    time.sleep(60)


def _fails(_host, _limit_s):
    raise OSError("no such machine")


def test_a_probe_that_hangs_or_fails_leaves_its_reason_and_the_others_their_facts():
    probes = (
        Probe(section="torch", kind=System, ask=_hangs, limit_s=0.2),
        Probe(section="system", kind=System, ask=_fails, limit_s=5),
    )

    started = time.monotonic()
    seen = take_snapshot(probes=probes)

    assert time.monotonic() - started < 5
    assert seen.torch.kernel == Missing("the torch probe gave no answer within 0.2 s")
    assert seen.system.kernel == Missing("the system probe failed: OSError: no such machine")
    assert seen.probe_times_s["torch"] >= 0.2


def test_the_libraries_that_torch_mapped_are_those_of_its_wheel():
    torch = pytest.importorskip("torch")
    if not torch.version.cuda:
        pytest.skip("a CPU build maps no CUDA library")

    libraries = {library.name: library for library in known(torch_build(Host(), 60).libraries)}

    assert {"libcudnn.so.9", "libnccl.so.2"} <= libraries.keys()
    assert all(library.from_wheel for library in libraries.values())


def test_a_given_up_probe_leaves_no_process_behind(libcuda):
    host = libcuda("sleep(300); return 0;")
    probes = (Probe(section="driver", kind=Driver, ask=_asks_too_long, limit_s=0.2),)

    take_snapshot(host, probes=probes)

    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and host._running:
        time.sleep(0.05)
    assert not host._running


def _asks_too_long(host, _limit_s):
    host.run("sleep", "300", timeout_s=300)
    return Driver()


def test_the_whole_is_bounded_by_the_timeout(tmp_path):
    host = fake_torch(tmp_path, "import time; time.sleep(60)")

    started = time.monotonic()
    seen = take_snapshot(host, timeout_s=1.5)

    assert time.monotonic() - started < 8
    assert seen.torch.import_error == Missing("import torch gave no answer within 1.5 s")
    assert isinstance(seen.system.kernel, str)


def test_text_that_is_not_utf_8_is_written_out(tmp_path):
    host = Host(root=tmp_path, environment={"LD_LIBRARY_PATH": "/x\udcff", "PATH": "/nonexistent"})

    seen = take_snapshot(host, torch=False)

    assert seen.environment.get("LD_LIBRARY_PATH") == r"/x\xff"
    assert Snapshot.from_json(seen.to_json()) == seen


def test_a_file_in_the_place_of_torch_is_named(tmp_path):
    (tmp_path / "torch.py").write_text("x = 1\n")

    seen = take_snapshot(Host(environment=os.environ | {"PYTHONPATH": str(tmp_path)}))

    finding = only(torch_does_not_import, seen)
    assert finding.evidence[0] == f"{tmp_path}/torch.py is imported in place of torch"
    assert finding.fix.startswith("rename it")
