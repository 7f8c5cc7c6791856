"""Snapshot -> findings. Every rule, in the order of its id; a new one is added here by name."""

from gpudiag.finding import Rule
from gpudiag.rules import (
    driver,
    hardware,
    memory,
    multi_gpu,
    system,
    torch_build,
    visibility,
)

RULES: tuple[Rule, ...] = (
    driver.driver_not_installed,
    driver.driver_not_loaded,
    driver.driver_library_mismatch,
    driver.nouveau_holds_the_gpu,
    driver.cuda_does_not_start,
    driver.no_nvidia_gpu,
    driver.nvml_hangs_or_crashes,
    torch_build.cpu_only_torch,
    torch_build.driver_too_old,
    torch_build.no_kernel_image,
    torch_build.torchvision_does_not_fit,
    torch_build.torch_does_not_import,
    torch_build.torch_not_installed,
    torch_build.numpy_too_new_for_torch,
    visibility.all_gpus_hidden,
    visibility.visible_devices_malformed,
    visibility.visible_device_repeated,
    visibility.visible_device_does_not_exist,
    visibility.variable_misspelt,
    visibility.container_without_gpus,
    visibility.device_files_not_accessible,
    visibility.compute_mode_prohibited,
    visibility.compute_mode_exclusive,
    hardware.gpu_lost,
    hardware.reset_required,
    hardware.row_remap_pending,
    hardware.row_remap_failed,
    hardware.page_retirement_pending,
    hardware.thermal_throttling,
    hardware.power_brake,
    hardware.power_limit_lowered,
    hardware.implausible_readings,
    hardware.uncorrected_ecc_errors,
    hardware.grave_xid_in_kernel_log,
    memory.memory_held_by_nobody,
    system.shared_memory_too_small,
    multi_gpu.order_of_different_gpus,
)

__all__ = ["RULES"]
