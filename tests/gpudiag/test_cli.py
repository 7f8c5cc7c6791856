"""The command line as a user meets it: whole output, exit code, one line for every error."""

import contextlib
import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import GIB, gpu, snapshot

from gpudiag.snapshot import GpuProcess, Missing, TorchDevice

MACHINE = {
    "os_name": "Ubuntu 22.04.4 LTS",
    "kernel": "6.8.0-45-generic",
    "cpu_count": 96,
    "memory_total_bytes": 1024 * GIB,
    "container": None,
    "wsl": False,
}


def h100(index, **facts):
    return gpu(
        index,
        **{
            "name": "NVIDIA H100 80GB HBM3",
            "error_codes": (),
            "compute_capability": (9, 0),
            "memory_total_bytes": 80 * GIB,
            "memory_used_bytes": 10 * GIB,
            "memory_free_bytes": 69 * GIB,
            "memory_reserved_bytes": GIB,
            "utilization_fraction": 0.97,
            "temperature_celsius": 58,
            "power_watts": 612.4,
            "power_limit_watts": 700.0,
            "clock_event_reasons": 0,
            "processes": (
                GpuProcess(pid=4711, kind="compute", used_bytes=10 * GIB, name="python"),
            ),
        }
        | facts,
    )


def torch_device(index):
    return TorchDevice(
        index=index,
        name="NVIDIA H100 80GB HBM3",
        uuid=f"GPU-{index:08x}",
        compute_capability=(9, 0),
        memory_total_bytes=80 * GIB,
    )


def machine(*gpus, **sections):
    return snapshot(
        **{
            "gpus": gpus or (h100(0),),
            "nvml": {
                "init_code": 0,
                "failure": None,
                "driver_version": "550.54.15",
                "cuda_version": "12.4",
            },
            "torch": {
                "python": "python",
                "import_error": None,
                "version": "2.9.0+cu128",
                "cuda_version": "12.8",
                "hip_version": None,
                "cudnn_version": "9.10.2",
                "nccl_version": "2.27.5",
                "arch_list": ("sm_80", "sm_90"),
                "cuda_available": True,
                "devices": (torch_device(0), torch_device(1)),
            },
            "system": MACHINE,
            "env": {},
            "misspelt": (),
        }
        | sections
    )


@pytest.fixture
def run(tmp_path):
    def command(*arguments, env=None, saved=None):
        if saved is not None:
            path = tmp_path / "machine.json"
            path.write_text(saved.to_json())
            arguments = (*arguments, "--snapshot", str(path))
        return subprocess.run(
            [sys.executable, "-m", "gpudiag", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"NO_COLOR": "1"} | (env or {}),
            cwd=tmp_path,
        )

    return command


def test_a_healthy_machine_fits_one_screen(run):
    done = run("diagnose", saved=machine(h100(0), h100(1, temperature_celsius=61)))

    assert done.stdout == (
        "Machine  Ubuntu 22.04.4 LTS · kernel 6.8.0-45-generic · 96 CPUs · 1024.0 GiB\n"
        "Driver   550.54.15, CUDA up to 12.4 · torch's CUDA 12.8 needs driver 525 or newer ✓\n"
        "torch    2.9.0+cu128 · CUDA 12.8 · cuDNN 9.10.2 · NCCL 2.27.5 · sees 2 GPUs ✓\n"
        "\n"
        "GPU  name                    memory GiB  util %  °C          W  processes  state\n"
        "  0  NVIDIA H100 80GB HBM3  10.0 / 80.0      97  58  612 / 700          1  ok\n"
        "  1  NVIDIA H100 80GB HBM3  10.0 / 80.0      97  61  612 / 700          1  ok\n"
        "\n"
        "✓ nothing is wrong that gpudiag can see\n"
        "\n"
        "0 errors · 0 warnings · 66 rules passed · 93 could not be asked (-v says why)\n"
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_newer_library_than_the_driver_contradicts_no_verdict(run):
    torch = {"cuda_version": "13.0", "version": "2.14.1+cu130"}
    compat = {"cuda_driver_version": "13.0", "cuda_init_code": 0}

    done = run("diagnose", saved=machine(h100(0), torch=torch, driver=compat))

    assert "torch's CUDA 13.0 runs on the CUDA 13.0 of cuda-compat ✓" in done.stdout
    assert "✗" not in done.stdout


def test_the_report_is_as_wide_as_columns_says_also_in_a_pipe(run):
    saved = machine(h100(0), torch={"cuda_version": "13.0"})

    def width(columns):
        done = run("diagnose", saved=saved, env={"COLUMNS": columns})
        return max(map(len, done.stdout.splitlines()))

    assert 80 < width("") <= 100
    assert width("80") <= 80


def test_notes_do_not_follow_a_line_that_says_that_nothing_is_wrong(run):
    older_slot = {"pcie_generation_max": 4, "pcie_generation_gpu_max": 5}

    lines = run("diagnose", saved=machine(h100(0, **older_slot))).stdout.splitlines()

    assert "nothing is wrong" not in "\n".join(lines)
    verdict = lines.index("✓ no errors and no warnings; what could be better:")
    assert lines[verdict + 2].startswith("· note GD421")


def test_findings_are_told_worst_first_with_seen_cause_and_fix(run):
    done = run(
        "diagnose", saved=machine(h100(0, clock_event_reasons=0x40), h100(1, error_codes=(15,)))
    )

    assert done.returncode == 1
    assert "  0  NVIDIA H100 80GB HBM3  10.0 / 80.0      97  58  612 / 700          1  GD406" in (
        done.stdout
    )
    assert (
        "✗ error GD401  A GPU is lost\n"
        "  seen   GPU 1 does not answer: NVML 15 (GPU is lost)\n"
        "  cause  programs on this GPU are dead, and on many machines no new CUDA program starts\n"
        "  fix    sudo dmesg | grep -i xid, then power the machine off and on; if it comes back, "
        "check power\n"
        "         cables, cooling and the slot, and ask for a replacement\n"
        "\n"
        "! warning GD406  A GPU is held back because it is too hot\n"
        "  seen   GPU 0: hardware thermal slowdown active\n"
        "         temperature 58 °C\n"
        "         clocks not readable\n"
    ) in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warning", 1), ("never", 0)])
def test_the_exit_code_follows_fail_on(run, fail_on, code):
    saved = machine(h100(0, clock_event_reasons=0x40))

    assert run("diagnose", "--fail-on", fail_on, saved=saved).returncode == code


def test_rules_are_chosen_by_prefix(run):
    saved = machine(h100(0, clock_event_reasons=0x40, error_codes=(15,)))

    def ids(*options):
        done = run("diagnose", "--format", "json", *options, saved=saved)
        return [finding["id"] for finding in json.loads(done.stdout)["findings"]]

    assert ids() == ["GD401", "GD406"]
    assert ids("--select", "gd40", "--ignore", "GD401") == ["GD406"]
    assert ids("--select", "GD2,GD406") == ["GD406"]


def test_json_carries_the_finding_and_the_snapshot(run):
    saved = machine(h100(0, error_codes=(15,)))

    document = json.loads(run("diagnose", "--format", "json", saved=saved).stdout)

    assert document["findings"][0]["subject"] == "gpu:GPU-00000000"
    assert document["findings"][0]["severity"] == "error"
    assert document["skipped"]["GD101"] == "not part of this test"
    assert document["snapshot"] == json.loads(saved.to_json())


def test_verbose_says_what_passed_and_why_the_rest_could_not_be_asked(run):
    done = run("diagnose", "-v", saved=machine())

    assert re.search(r"^Passed   GD\d{3} ", done.stdout, re.MULTILINE)
    assert "not part of this test" in done.stdout


def test_text_from_outside_cannot_steer_the_terminal(run):
    done = run("diagnose", saved=machine(h100(0, name="evil\x1b[2J\x07name")))

    assert "\x1b" not in done.stdout
    assert "evil\\x1b[2J\\x07name" in done.stdout


def test_a_gpu_that_did_not_answer_is_not_ok(run):
    silent = gpu(1, error_codes=Missing("no answer within 15 s"))

    done = run("diagnose", saved=machine(h100(0), silent))

    assert (
        "  1  does not answer              ? / ?       ?   ?      ? / ?          ?  no answer"
        in (done.stdout)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["diagnose", "--snapshot", "nowhere.json"],
            "gpudiag: expected a snapshot file, got nowhere.json: No such file or directory; "
            "record one with 'gpudiag snapshot --output FILE'\n",
        ),
        (
            ["diagnose", "--snapshot", "."],
            "gpudiag: expected a snapshot file, got .: Is a directory; "
            "record one with 'gpudiag snapshot --output FILE'\n",
        ),
        (
            ["diagnose", "--select", "GD999"],
            "gpudiag: expected the id of a rule, got GD999, close ones are GD109, GD119, GD129; "
            "'gpudiag rules' lists them\n",
        ),
        (
            ["diagnose", "--select", ""],
            "gpudiag: expected the id of a rule, got an empty one; 'gpudiag rules' lists them\n",
        ),
        (
            ["diagnose", "--timeout", "nan"],
            "gpudiag: Invalid value for '--timeout': nan is no number. "
            "See 'gpudiag diagnose --help'.\n",
        ),
        (
            ["explain", "GD9999"],
            "gpudiag: expected the id of a rule, got GD9999, close ones are GD109, GD119, GD129; "
            "'gpudiag rules' lists them\n",
        ),
        (
            ["diagnose", "--snapshot", "/dev/zero"],
            "gpudiag: expected a snapshot file, got /dev/zero, which is none; record one with "
            "'gpudiag snapshot --output FILE'\n",
        ),
        (
            ["explain", "GD1O3"],
            "gpudiag: expected the id of a rule, got GD1O3, close ones are GD103, GD113, GD123; "
            "'gpudiag rules' lists them\n",
        ),
        (
            ["diagnose", "--format", "poem"],
            "gpudiag: Invalid value for '--format': 'poem' is not one of 'text', 'markdown', "
            "'json', 'csv', 'junit', 'html', 'prometheus'. See 'gpudiag diagnose --help'.\n",
        ),
        (
            ["diagnse"],
            "gpudiag: No such command 'diagnse'. Did you mean 'diagnose'? See 'gpudiag --help'.\n",
        ),
        (
            ["snapshot", "--no-torch", "--output", "nowhere/x.json"],
            "gpudiag: expected a folder that can be written for nowhere/x.json, got: "
            "No such file or directory\n",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, arguments, message):
    done = run(*arguments)

    assert (done.stdout, done.stderr, done.returncode) == ("", message, 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("torch is fine", "expected a snapshot in JSON, got text that is not: "),
        ("", "expected a snapshot in JSON, got an empty file; record one with 'gpudiag snapshot "),
        ('{"schema_version": 2}', "expected a snapshot of schema version 1, got 2; "),
    ],
)
def test_a_file_that_is_no_snapshot_is_told_in_one_line(run, tmp_path, text, message):
    (tmp_path / "bad.json").write_text(text)

    done = run("diagnose", "--snapshot", "bad.json")

    assert done.stderr.startswith(f"gpudiag: bad.json: {message}")
    assert (done.stdout, done.stderr.count("\n"), done.returncode) == ("", 1, 2)
    assert "; " in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_snapshot_may_begin_with_a_mark_of_its_encoding(run, tmp_path, encoding):
    text = machine(h100(0)).to_json()
    data = text.encode(encoding)
    (tmp_path / "a.json").write_bytes(b"\xfe\xff" + data if encoding == "utf-16-be" else data)

    done = run("devices", "--format", "json", "--snapshot", "a.json")

    assert json.loads(done.stdout)[0]["name"] == "NVIDIA H100 80GB HBM3"


def test_a_named_pipe_does_not_hold_it_up(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")

    done = run("diagnose", "--snapshot", "pipe")

    assert done.returncode == 2
    assert "expected a snapshot file, got pipe, which is none; record" in done.stderr


@pytest.mark.parametrize("how", ["cat m.json | {} /dev/stdin", "{} <(cat m.json)", "{} m.json"])
def test_what_a_shell_pipes_is_read(tmp_path, how):
    (tmp_path / "m.json").write_text(machine(h100(0)).to_json())
    command = how.format(f"{sys.executable} -m gpudiag devices --format json --snapshot")

    done = subprocess.run(["bash", "-c", command], check=True, stdout=subprocess.PIPE, cwd=tmp_path)

    assert json.loads(done.stdout)[0]["name"] == "NVIDIA H100 80GB HBM3"


def test_a_file_that_never_ends_is_given_up(run, tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(65 * 2**20)

    done = run("diagnose", "--snapshot", "a.json")

    assert done.stderr.startswith(
        "gpudiag: expected a snapshot file, got a.json of more than 64 MiB; "
    )


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_the_output_may_be_standard_output(run, tmp_path, name):
    done = run("diagnose", "--format", "json", "--output", name, saved=machine(h100(0)))

    assert json.loads(done.stdout)["findings"] == []
    assert {path.name for path in tmp_path.iterdir()} == {"machine.json"}


@pytest.mark.parametrize("name", ["devices", "memory", "processes"])
def test_a_gpu_that_tells_nothing_is_told_with_the_reason(run, nvml, name):
    done = run(name, env=nvml("crashes"))

    assert (done.stderr, done.returncode) == (
        "gpudiag: GPU 3, 4, 5, 6, 7: NVML was asked and did not answer: killed by signal 11 "
        "(SIGSEGV)\n",
        0,
    )


def test_a_reason_is_told_once_for_all_gpus(run, nvml):
    done = run("diagnose", "--no-torch", "-v", "--fail-on", "never", env=nvml("crashes"))

    skipped = " ".join(done.stdout.partition("Skipped")[2].split())
    assert "GPU 3, 4, 5, 6, 7: NVML was asked and did not answer" in skipped
    assert "GPU 4: " not in skipped


def test_a_snapshot_is_written_for_its_owner_alone(run, tmp_path):
    done = run("snapshot", "--no-torch", "--output", "machine.json")

    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert (tmp_path / "machine.json").stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "machine.json"]
    assert run("diagnose", "--snapshot", "machine.json", "--fail-on", "never").returncode == 0


def test_a_snapshot_is_never_written_through_a_link(run, tmp_path):
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "link").symlink_to("precious")

    done = run("snapshot", "--no-torch", "--output", "link")

    assert done.returncode == 2
    assert done.stderr == (
        "gpudiag: expected a file to write, got the symbolic link link: name its target\n"
    )
    assert (tmp_path / "precious").read_text() == "keep me"


def test_the_verdict_on_a_saved_snapshot_is_the_machines_own(run, nvml, tmp_path):
    env = nvml("lost_gpu")
    first = run("diagnose", "--no-torch", "--format", "json", "--output", "report.json", env=env)

    again = run("diagnose", "--format", "json", "--snapshot", "report.json")

    assert first.returncode == again.returncode == 1
    assert again.stdout == (tmp_path / "report.json").read_text()


def test_a_machine_without_a_gpu_is_told_so_kindly(run):
    saved = snapshot(
        nvml={"init_code": 12},
        driver={"pci_devices": (), "module_loaded": False, "device_nodes": ()},
        torch={"version": "2.9.0", "cuda_version": "12.8", "import_error": None},
        system=MACHINE,
        env={},
    )

    done = run("diagnose", saved=saved)

    assert done.returncode == 0
    assert "· note GD106  There is no NVIDIA GPU in this machine" in done.stdout


def test_explain_shows_a_rules_page(run):
    done = run("explain", "gd202")

    assert done.stdout == (
        "GD202  The driver is too old for this torch build  (error)\n"
        "\n"
        "Seen. Every CUDA 12.x build runs on a driver of branch 525 or newer, every 13.x "
        "build from 580 on,\n"
        "every 11.x build from 450 on. The driver's own CUDA version need not be as high "
        "as torch's: only the\n"
        "major version counts. 580 is the last branch that supports Maxwell, Pascal and Volta, and "
        "the builds\n"
        "for CUDA 13 have no code for these: there the wheel of cu126 is the cure, on a driver of "
        "branch 525\n"
        "to 580.\n"
        "\n"
        "Cause. CUDA refuses to start with a driver that is older than its major version\n"
        "\n"
        "Cure.\n"
        "\n"
        "- install the torch build that this driver can run (the report has the command)\n"
        "- upgrade the driver, where this build has code for the GPUs.\n"
        "\n"
        "Explains. GD221\n"
        "\n"
        "https://docs.nvidia.com/deploy/cuda-compatibility/\n"
    )


def test_rules_lists_every_rule(run):
    from gpudiag.rules import CATALOGUE

    lines = run("rules").stdout.splitlines()

    assert [line.split()[0] for line in lines] == [rule.id for rule in CATALOGUE]
    assert lines[0] == "GD101  error    No NVIDIA driver is installed"


def test_tables_have_three_forms(run):
    saved = machine(h100(0), h100(1, memory_used_bytes=Missing("gone")))

    text = run("memory", saved=saved).stdout.splitlines()
    rows = list(csv.DictReader(io.StringIO(run("memory", "--format", "csv", saved=saved).stdout)))
    objects = json.loads(run("memory", "--format", "json", saved=saved).stdout)

    assert text[0].split()[:4] == ["index", "uuid", "total", "GiB"]
    assert text[2].split()[-5:] == ["10.00", "10.00", "0.00", "1.00", "69.00"]
    assert rows[0]["used_bytes"] == str(10 * GIB)
    assert rows[1]["used_bytes"] == ""
    assert objects[1]["used_bytes"] == {"missing": "gone"}
    assert objects[0]["unaccounted_bytes"] == 0


@pytest.mark.parametrize(
    ("command", "first_column"),
    [("versions", "component"), ("devices", "index"), ("processes", "index")],
)
def test_each_table_is_shown(run, command, first_column):
    done = run(command, saved=machine())

    assert done.stdout.split()[0] == first_column
    assert done.returncode == 0


def test_a_table_without_gpus_says_why(run):
    done = run("devices", saved=snapshot(nvml={"gpus": Missing("NVML did not start")}))

    assert done.stdout == "no GPUs: NVML did not start\n"


def test_a_reader_that_goes_away_is_no_crash(tmp_path):
    read, write = os.pipe()
    os.close(read)

    done = subprocess.run(
        [sys.executable, "-m", "gpudiag", "rules"],
        check=False,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )

    os.close(write)
    assert (done.stderr, done.returncode) == ("", 141)


ENDINGS = {
    signal.SIGTERM: ("gpudiag: ended by SIGTERM", 143),
    signal.SIGHUP: ("gpudiag: ended by SIGHUP", 129),
    signal.SIGINT: ("gpudiag: interrupted", 130),
    signal.SIGKILL: ("", -signal.SIGKILL),
}


def descendants(pid):
    """The processes that a process and those have started."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:  # it has ended
        return set()
    children = {int(one) for one in listed.split()}
    return children.union(*(descendants(one) for one in children))


@pytest.mark.parametrize("number", ENDINGS)
def test_whoever_ends_it_leaves_no_program_behind(nvml, tmp_path, number):
    with subprocess.Popen(
        [sys.executable, "-m", "gpudiag", "diagnose", "--no-torch"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | nvml("hangs_halfway"),
        cwd=tmp_path,
    ) as running:
        limit = time.monotonic() + 30
        while len(descendants(running.pid)) < 2:  # one takes the snapshot, one asks NVML
            assert time.monotonic() < limit
            time.sleep(0.02)
        time.sleep(1.0)  # it hangs for a minute
        started = descendants(running.pid)
        running.send_signal(number)
        err = running.communicate(timeout=10)[1]

    assert (err.strip(), running.returncode) == ENDINGS[number]
    assert len(started) >= 2
    limit = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored():
    program = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from gpudiag.ending import listen; listen()\n"
        "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    )

    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)

    assert done.stdout == b"True\n"


def test_without_a_command_the_help_is_shown(run):
    done = run()

    assert done.returncode == 2
    assert "gpudiag diagnose" in done.stderr


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, False)],
)
def test_a_terminal_without_colours_gets_none(tmp_path, variables, coloured):
    (tmp_path / "m.json").write_text(machine(h100(0, error_codes=(15,))).to_json())
    env = {"TERM": "xterm", "PATH": os.environ["PATH"]} | variables
    pid, terminal = pty.fork()
    if pid == 0:
        arguments = ["-m", "gpudiag", "diagnose", "--snapshot", str(tmp_path / "m.json")]
        os.execve(sys.executable, [sys.executable, *arguments], env)
    said = b""
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while part := os.read(terminal, 4096):
            said += part
    os.waitpid(pid, 0)
    os.close(terminal)

    assert "GD401" in said.decode()
    assert (b"\x1b" in said) is coloured


def test_colour_is_written_only_when_it_is_wanted():
    from gpudiag.diagnose import diagnose
    from gpudiag.render.as_text import as_text
    from gpudiag.rules import RULES

    report = diagnose(machine(h100(0, error_codes=(15,))), RULES)

    assert "\x1b[31;1m✗ error GD401\x1b[0m" in as_text(report, colour=True)
    assert "\x1b" not in as_text(report)


def test_a_pipe_is_written_into_and_stays_one(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE) as reader:
        done = run("snapshot", "--no-torch", "--output", "pipe")
        text = reader.communicate(timeout=20)[0]

    assert done.returncode == 0
    assert json.loads(text)["schema_version"] == 1
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        (">&-", 0, ""),
        ("> /dev/full", 3, "gpudiag: No space left on device\n"),
    ],
)
def test_a_closed_or_full_output_is_no_bug(tmp_path, redirection, code, message):
    command = f"{sys.executable} -m gpudiag diagnose --no-torch --fail-on never {redirection}"

    done = subprocess.run(
        ["sh", "-c", command], check=False, capture_output=True, text=True, cwd=tmp_path
    )

    assert (done.returncode, done.stderr) == (code, message)


def test_an_empty_table_has_its_header_in_csv(run):
    done = run("memory", "--format", "csv", saved=snapshot(gpus=[]))

    assert done.stdout.startswith("index,uuid,name,total_bytes,")
