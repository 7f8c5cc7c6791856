"""Record: a program run unchanged, its GPUs sampled by the simulator, the verdict by hand."""

import csv
import datetime as dt
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import gpudiag
from gpudiag.errors import InputError
from gpudiag.record import chart
from gpudiag.record.samples import COLUMNS, Samples
from gpudiag.record.verdict import advice, as_text, gpu_times

GIB = 2**30
RECORD = (sys.executable, "-m", "gpudiag", "record", "--interval", "0.1", "--output", "out", "--")


@pytest.fixture
def record(tmp_path):
    def command(*program, env=None, say=None):
        return subprocess.run(
            [*RECORD, *program],
            check=False,
            capture_output=True,
            text=True,
            input=say,
            cwd=tmp_path,
            env=os.environ | (env or {}),
        )

    return command


def rows_of(folder):
    with (folder / "out/record.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -11 $$", 139)]
)
def test_the_exit_code_is_the_programs(record, script, code):
    assert record("sh", "-c", script).returncode == code


def test_the_standard_streams_are_the_programs(record):
    done = record("sh", "-c", "cat; echo loud >&2", say="through\n")

    assert done.stdout == "through\n"
    assert done.stderr.startswith("loud\n")


def test_options_of_the_program_are_its_own(record):
    assert record("echo", "--help", "-n", "--output").stdout == "--help -n --output\n"


def test_the_files_are_written(record, tmp_path):
    done = record("sleep", "0.5")

    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"record.csv", "record.html", "verdict.txt"}
    assert done.stderr.endswith("record: out\n")
    assert tuple(rows_of(tmp_path)[0]) == COLUMNS
    page = (tmp_path / "out/record.html").read_text()
    assert "<title>sleep 0.5</title>" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize("interval", ["nan", "inf", "1e9"])
def test_an_interval_that_is_none_is_one_line_and_nothing_is_run(tmp_path, interval):
    done = subprocess.run(
        [sys.executable, "-m", "gpudiag", "record", "--interval", interval, "--", "touch", "ran"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert done.returncode == 2
    assert done.stderr == (
        f"gpudiag: expected 0.05 to 3600 seconds between two samples, got {float(interval):g}\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_written_over(record, tmp_path):
    (tmp_path / "out").mkdir()

    done = record("touch", "ran")

    assert done.returncode == 2
    assert done.stderr == "gpudiag: expected a new folder for the record, got out: File exists\n"
    assert not (tmp_path / "ran").exists()


def test_records_that_begin_in_the_same_second_have_a_folder_each(tmp_path):
    now = dt.datetime.now()  # noqa: DTZ005 - local, as the names are
    taken = [now + dt.timedelta(seconds=later) for later in range(60)]
    for second in taken:
        (tmp_path / f"gpudiag-record-{second:%Y%m%d-%H%M%S}").mkdir()
    command = [sys.executable, "-m", "gpudiag", "record", "--", "sh", "-c", "echo ran; exit 5"]

    done = [
        subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
        for _ in range(2)
    ]

    assert [(each.stdout, each.returncode) for each in done] == [("ran\n", 5)] * 2
    folders = {each.stderr.splitlines()[-1].removeprefix("record: ") for each in done}
    assert len(folders) == 2
    assert all((tmp_path / folder / "record.csv").exists() for folder in folders)
    assert len(list(tmp_path.iterdir())) == len(taken) + 2


def test_a_program_that_is_not_there_is_one_line(record, tmp_path):
    done = record("no-such-program")

    assert done.returncode == 2
    assert done.stderr == (
        "gpudiag: expected a program to run, got 'no-such-program': No such file or directory\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_cannot_be_written_leaves_the_exit_code(record, tmp_path):
    done = record("sh", "-c", f"rmdir {tmp_path}/out; touch {tmp_path}/out; exit 4")

    assert done.returncode == 4
    assert "gpudiag: the record could not be written: expected a folder that can" in done.stderr


def test_a_folder_that_the_program_removed_is_made_again(record, tmp_path):
    done = record("sh", "-c", f"sleep 0.5; rmdir {tmp_path}/out; exit 4")

    assert done.returncode == 4
    assert rows_of(tmp_path)


def test_a_driver_that_hangs_does_not_hold_the_program_up(record, nvml):
    started = time.monotonic()
    done = record("sh", "-c", "exit 6", env=nvml("hangs_halfway"))

    assert done.returncode == 6
    assert time.monotonic() - started < 15


def start(folder, *program, **how):
    return subprocess.Popen(
        [*RECORD, *program], cwd=folder, text=True, stderr=subprocess.PIPE, **how
    )


PATIENT = (
    "import signal, sys, time\n"
    "def end(number, frame): print('caught', number, flush=True); sys.exit(5)\n"
    "signal.signal({signal}, end); print('ready', flush=True)\n"
    "for _ in range(600): time.sleep(0.05)"  # one long sleep would not see a signal just before it
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_gpudiag_is_passed_on(tmp_path, number):
    program = PATIENT.format(signal=int(number))
    with start(tmp_path, sys.executable, "-c", program, stdout=subprocess.PIPE) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)

        out, err = running.communicate(timeout=20)

    assert (out, running.returncode) == (f"caught {int(number)}\n", 5)
    assert err.endswith("record: out\n")


def test_ctrl_c_in_a_terminal_reaches_the_program_once(tmp_path):
    program = (
        "import signal, sys, time\ncount = []\n"
        "signal.signal(signal.SIGINT, lambda *_: count.append(1)); print('ready', flush=True)\n"
        "for _ in range(200):\n    time.sleep(0.02)\n    if count: break\n"
        "time.sleep(0.5); print('caught', len(count), flush=True); sys.exit(3)\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(sys.executable, [*RECORD, sys.executable, "-c", program])
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    while b"record: out" not in said:
        said += os.read(terminal, 1000)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    os.close(terminal)
    assert b"caught 1\r\n" in said


def test_only_the_gpu_in_use_is_kept_with_the_peak_of_each_process(nvml):
    """The program starts the sampled one, which is on GPU 2 from the beginning."""
    env = nvml("healthy_8", changes={"gpu.2.temperature_celsius": "71"})
    scenario = Path(env["NVML_SIMULATOR_SCENARIO"])
    text = scenario.read_text().replace(
        "gpu.2.process.0 = 41202", f"gpu.2.process.0 = {os.getpid()}"
    )
    scenario.write_text(text)
    program = (
        "import time, gpudiag\n"
        "with gpudiag.record(interval_s=0.1) as r: time.sleep(1)\n"
        "print(r.frame.gpu.unique(), r.frame.temperature_celsius.unique(), list(r.peaks.values()))"
    )
    # The process that records is the one that the scenario names: exec keeps the number.
    launcher = (
        "import os, sys; path = os.environ['NVML_SIMULATOR_SCENARIO']; text = open(path).read()\n"
        f"open(path, 'w').write(text.replace('= {os.getpid()} ', f'= {{os.getpid()}} '))\n"
        f"os.execv(sys.executable, [sys.executable, '-c', {program!r}])"
    )

    done = subprocess.run(
        [sys.executable, "-c", launcher],
        env=os.environ | env,
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout == "[2] [71] [81711333376]\n"


def test_a_gpu_that_is_lost_halfway_ends_neither_the_program_nor_the_record(record, tmp_path, nvml):
    """The driver crashes the sampler, and the next one finds GPU 0 lost."""
    env = nvml("healthy_8", changes={"gpu.0.temperature_celsius": "58"})
    program = (
        "import os, pathlib, signal, time; time.sleep(1.0)\n"
        "path = pathlib.Path(os.environ['NVML_SIMULATOR_SCENARIO'])\n"
        "path.write_text('gpu.0.handle = error:15\\n' + path.read_text())\n"
        "me = os.getppid()\n"
        "for folder in pathlib.Path('/proc').glob('[0-9]*'):\n"
        "    try: text = (folder / 'cmdline').read_text()\n"
        "    except OSError: continue\n"
        "    if 'sample.py' in text and f'\\0{os.getpid()}\\0' in text:\n"
        "        os.kill(int(folder.name), signal.SIGSEGV)\n"
        "time.sleep(1.5); print('finished')"
    )

    done = record(sys.executable, "-c", program, env=env)

    assert (done.stdout, done.returncode) == ("finished\n", 0)
    rows = [row for row in rows_of(tmp_path) if row["gpu"] == "0"]
    assert rows[0]["lost"] == ""
    assert rows[-1]["lost"] == "GPU is lost"
    assert rows[-1]["utilization_fraction"] == ""
    assert [row["lost"] for row in rows_of(tmp_path) if row["gpu"] == "1"][-1] == ""
    assert "→ GPU 0 stopped answering after " in done.stderr
    assert "→ the sampling broke off 1 time(s): NVML crashed" in done.stderr


def lost_at_the_end(rows):
    """Why a GPU stopped answering; all eight were asked."""
    last = {row["gpu"]: row["lost"] for row in rows}
    assert last.keys() == set("01234567")
    return {number: why for number, why in last.items() if why}


def test_a_gpu_that_crashes_nvml_costs_only_itself(record, tmp_path, nvml):
    done = record("sleep", "4", env=nvml("crashes"))

    rows = rows_of(tmp_path)
    assert lost_at_the_end(rows) == {"3": "NVML crashed when it was asked about this GPU"}
    assert {row["name"] for row in rows if row["gpu"] == "2"} == {"NVIDIA H100 80GB HBM3"}
    assert all(row["host_memory_available_bytes"] for row in rows)
    assert "GPU 3 stopped answering after 0 s: run gpudiag diagnose" in done.stderr
    assert "→ the sampling broke off 2 time(s): NVML crashed" in done.stderr
    assert done.returncode == 0


def test_an_nvml_that_always_crashes_leaves_the_machine(record, tmp_path, nvml):
    done = record("sleep", "4", env=nvml("crashes", changes={"init": "crash"}))

    rows = rows_of(tmp_path)
    assert {row["gpu"] for row in rows} == {""}
    assert sum(bool(row["host_cpu_fraction"]) for row in rows) >= 3
    assert "no GPU was sampled: NVML crashed 4 times and is left alone" in done.stderr


def test_a_gpu_that_hangs_costs_only_itself(record, tmp_path, nvml):
    done = record("sleep", "5", env=nvml("hangs_halfway"))

    rows = rows_of(tmp_path)
    assert lost_at_the_end(rows) == {"4": "NVML has not answered for 2 s"}
    assert all(row["host_memory_available_bytes"] for row in rows)
    assert "GPU 4 stopped answering after 0 s: run gpudiag diagnose" in done.stderr


def test_without_a_gpu_the_machine_is_sampled(tmp_path):
    with gpudiag.record(interval_s=0.1) as recording:
        limit = time.monotonic() + 1.2
        while time.monotonic() < limit:
            pass

    frame = recording.frame
    assert frame["gpu"].isna().all()
    assert frame["process_cpus"].max() > 0.2
    assert frame["host_cpu_fraction"].between(0, 1).sum() >= 3
    assert recording.verdict.startswith("→ no GPU was sampled")
    written = recording.save(str(tmp_path / "a" / "b"))
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}
    parquet = tmp_path / "a" / "b" / "record.parquet"
    if parquet in written:
        assert len(pd.read_parquet(parquet)) == len(frame)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"got .*file: File exists; choose another one"):
        recording.save(tmp_path / "file")


def test_the_sampler_ends_with_its_parent(tmp_path):
    with start(tmp_path, "sleep", "30", stdout=subprocess.PIPE, process_group=0) as running:
        time.sleep(1.5)
        samplers = sampler_pids()
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate(timeout=10)

    limit = time.monotonic() + 5
    while samplers & sampler_pids():
        assert time.monotonic() < limit
        time.sleep(0.05)


def sampler_pids():
    return {
        folder.name
        for folder in Path("/proc").glob("[0-9]*")
        if b"sample.py" in read(folder / "cmdline")
    }


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def rows(*loads, gpu=0, **facts):
    common = {"gpu": gpu, "name": "H100", "memory_used_bytes": GIB, "memory_total_bytes": 4 * GIB}
    return [
        common | {"time_s": float(n), "utilization_fraction": load} | facts
        for n, load in enumerate(loads)
    ]


def test_time_is_shared_out():
    """Ten samples: two idle at the ends, two of the idle ones within it with the program busy."""
    seen = rows(0.0, 1.0, 0.02, 0.04, 0.01, 0.9, 0.8, 0.05, 0.7, 0.0)
    seen[2]["process_cpus"] = seen[3]["process_cpus"] = 0.5
    seen[4]["process_cpus"] = 0.49
    seen[0]["process_cpus"] = 8.0
    for row in seen:
        row["clock_event_reasons"] = 0
    seen[5]["clock_event_reasons"] = 0x40
    seen[6]["clock_event_reasons"] = 0x4  # a power limit is how a GPU works
    seen[7]["memory_used_bytes"] = int(3.8 * GIB) + 1

    (one,) = gpu_times(seen)

    assert (one.idle, one.waiting, one.throttled, one.full) == (0.5, 0.2, 0.1, 0.1)
    assert one.mean_utilization == pytest.approx(0.352)
    assert one.peak_memory_bytes == int(3.8 * GIB) + 1
    assert one.lost_s is None


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (rows(1.0, 1.0), "the GPUs were kept busy: nothing to do"),
        (rows(1.0, 0.0, 1.0, process_cpus=2.0), "GPU 0 waited for data"),
        (rows(1.0, 0.0, 1.0, host_disk_wait_fraction=0.1), "GPU 0 waited for data"),
        (rows(1.0, 0.0, 1.0), "GPU 0 had nothing to do"),
        (rows(1.0, clock_event_reasons=0x20), "GPU 0 was held back by heat or power"),
        (rows(1.0, memory_used_bytes=4 * GIB), "GPU 0 was close to full"),
        (
            rows(1.0, 1.0)[:1] + rows(1.0, None, lost="gone")[1:],
            "GPU 0 stopped answering after 1 s",
        ),
        ([], "no GPU was sampled: no driver"),
    ],
)
def test_advice_follows_from_the_shares(seen, words):
    assert advice(gpu_times(seen), no_gpus="no driver")[0].startswith(words)


def test_the_verdict_is_readable():
    seen = rows(1.0, 0.0, 1.0, 1.0, clock_event_reasons=0)

    text = as_text(gpu_times(seen), {7: 2 * GIB})

    assert text == (
        "GPU 0 H100: idle 25%, of which waiting for data 0%, throttled 0%, close to full 0% of "
        "the time; mean utilization 75%, peak memory 1.00 GiB\n"
        "process 7: peak GPU memory 2.00 GiB\n"
        "→ the GPUs were kept busy: nothing to do"
    )


def test_what_a_gpu_never_told_is_not_taken_for_nothing():
    """As a GPU in MIG mode, which tells no utilization."""
    silent = {"utilization_fraction": None, "memory_used_bytes": None}
    seen = [row | silent for row in rows(1.0, 0.0, 1.0, process_cpus=8.0)]

    text = as_text(gpu_times(seen), {})

    assert text == (
        "GPU 0 H100: idle ?, of which waiting for data ?, throttled ?, close to full ? of the "
        "time; mean utilization ?, peak memory ?\n"
        "→ GPU 0 tells no utilization (as with MIG): whether it was kept busy is not known"
    )


def test_samples_without_a_load_are_left_out_of_the_shares():
    seen = rows(1.0, 0.0, None, 0.0, 1.0, process_cpus=8.0)

    (one,) = gpu_times(seen)

    assert (one.idle, one.waiting, one.mean_utilization) == (0.5, 0.5, 0.5)


def test_a_day_of_samples_is_judged_at_once():
    started = time.process_time()

    (one,) = gpu_times(rows(*[1.0, 0.0] * 50_000, process_cpus=8.0))

    assert one.waiting == pytest.approx(0.5, abs=1e-4)
    assert time.process_time() - started < 10


def test_hostile_names_do_nothing_in_the_page():
    page = chart.as_html([], title="<script>alert(1)</script>", verdict="</pre><script>")

    assert "<script>" not in page


def test_a_line_is_thinned_to_what_can_be_seen():
    many = [row | {"time_s": n / 10} for n, row in enumerate(rows(*[1.0] * 5000))]

    ((_, seconds, _),) = chart.lines(many, "utilization_fraction", 100.0)

    assert len(seconds) <= 1000


def test_what_belongs_to_the_program_is_drawn_once(tmp_path):
    seen = [row | {"process_cpus": 2.0} for gpu in (0, 1) for row in rows(1.0, 0.5, gpu=gpu)]
    seen = [dict.fromkeys(COLUMNS) | row for row in seen]

    assert chart.lines(seen, "process_cpus", 1.0) == [("program", [0.0, 1.0], [2.0, 2.0])]
    assert [label for label, _, _ in chart.lines(seen, "memory_used_bytes", 1.0)] == [
        "GPU 0",
        "GPU 1",
    ]
    if chart.save_png(seen, tmp_path / "record.png", title="$a"):
        assert (tmp_path / "record.png").read_bytes().startswith(b"\x89PNG")


def test_lines_of_the_sampler_become_rows():
    samples = Samples()
    samples.take({"gpus": [{"index": 0, "name": "H100", "uuid": "GPU-1"}]})
    common = {"pids": [5], "memory_available_bytes": 9}
    gpu = {"index": 0, "memory_used_bytes": 3, "processes": {"5": 2, "6": 1}}
    first = {"time_s": 10.0, "cpu_s": 1.0, "ticks": [100, 50, 0], "samples": [dict(gpu)]}
    second = {"time_s": 12.0, "cpu_s": 4.0, "ticks": [300, 100, 50], "samples": [dict(gpu)]}

    samples.take(common | first)
    samples.take(common | second)

    assert [row["time_s"] for row in samples.chosen_rows()] == [0.0, 2.0]
    last = samples.chosen_rows()[-1]
    assert (last["process_cpus"], last["host_cpu_fraction"]) == (1.5, 0.5)
    assert last["host_disk_wait_fraction"] == 0.25
    assert samples.peaks == {5: 2}


def spoken(number, *gpus):
    common = {"pids": [5], "memory_available_bytes": 9, "cpu_s": 2.0 * number}
    return common | {"time_s": 10.0 + number, "ticks": [100 * number] * 3, "samples": list(gpus)}


def test_a_long_record_keeps_every_second_sample_and_every_peak():
    samples = Samples(most_rows=8)
    used = [1, 9, 1, 1, 1, 8, 1, 1, 1, 1, 7, 1]

    for number, size in enumerate(used):
        gpu = {"memory_used_bytes": size, "processes": {"5": size}}
        samples.take(spoken(number, {"index": 0} | gpu, {"index": 1} | gpu))

    first = [row for row in samples.rows if row["gpu"] == 0]
    assert samples.stride == 4
    assert [row["time_s"] for row in first] == [0.0, 4.0, 8.0]
    assert [row["memory_used_bytes"] for row in first] == [1, 9, 8]
    assert len(samples.rows) == 6
    assert samples.peaks == {5: 9}
    assert first[-1]["process_cpus"] == 2.0


def test_a_record_never_outgrows_its_bound():
    samples = Samples(most_rows=1)

    for number in range(5):
        samples.take(spoken(number))

    assert [row["time_s"] for row in samples.rows] == [0.0]
    assert samples.stride == 8
