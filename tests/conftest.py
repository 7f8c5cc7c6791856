import os
import shutil
import signal
from collections.abc import Callable

import pytest
from nvml_simulator import simulator

collect_ignore = ["fake_gpus.py"]  # a program: it changes torch as a whole

# Reports would be as wide as somebody's terminal; readline sets it past Python's own environment.
os.environ.pop("COLUMNS", None)
os.unsetenv("COLUMNS")

# A shell that runs this in the background lets it, and all programs that it starts, ignore Ctrl-C,
# and nohup the end of the terminal; what has a handler here is as usual in the programs.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session")
def nvml(tmp_path_factory) -> Callable[..., dict[str, str]]:
    """The environment in which a program sees a scenario's GPUs; merge it into os.environ.

    nvml("lost_gpu")
    nvml("healthy_8", changes={"gpu.2.temperature_celsius": "91"})
    nvml("healthy_8", gpus=64)
    """
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing, and the NVML simulator is built with it")
    folder = tmp_path_factory.mktemp("nvml")
    built = {}

    def environment(scenario, *, changes=None, gpus=None):
        if changes or gpus is not None:
            values = simulator.changed(simulator.read(scenario), changes or {}, gpus=gpus)
            number = len(list(folder.glob("*.scenario")))
            scenario = simulator.write(values, folder / f"{number}.scenario")
        absent = simulator.absent_functions(scenario)
        if absent not in built:
            built[absent] = simulator.build(folder / f"library_{len(built)}", absent=absent)
        return simulator.environment(scenario, built[absent])

    return environment
