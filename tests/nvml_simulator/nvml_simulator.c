/* A libnvidia-ml.so.1 whose answers come from a scenario file (see README.md).
 *
 * Here are the library itself, its handles, and every field that is one number or text.
 * Signatures follow nvidia-ml-py's pynvml.py. */

#include "nvml_simulator.h"

#include <stdio.h>
#include <string.h>

enum { MAX_GPUS = 256, MAX_MIG_INSTANCES = 8 /* an H100 makes seven at most */ };

static struct { Device whole, mig[MAX_MIG_INSTANCES]; } handles[MAX_GPUS];
static int users;

int read_text(const Device *device, const char **text, const char *format, ...)
{
    va_list arguments;
    if (!users)
        return UNINITIALIZED;
    va_start(arguments, format);
    int code = scenario_text(device, text, format, arguments);
    va_end(arguments);
    return code;
}

int obstacle(const Device *device, const char *key)
{
    const char *text = key;
    int code = read_text(device, &text, "%s", key);
    return text ? code : SUCCESS;
}

int copy_text(const Device *device, char *buffer, unsigned size, const char *key)
{
    const char *text;
    int code = read_text(device, &text, "%s", key);
    if (code)
        return code;
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return SUCCESS;
}

/* ---- One line per field: function, then key ---- */

#define NUMBER(function, type, key) \
    EXPORT function(Device *device, type *value) { return READ(device, value, key); }
#define PAIR(function, type, first, second) \
    EXPORT function(Device *device, type *one, type *two) \
    { return READ(device, one, first) ?: READ(device, two, second); }
#define TEXT(function, key) \
    EXPORT function(Device *device, char *buffer, unsigned size) \
    { return copy_text(device, buffer, size, key); }
/* The number a caller passes picks one of the names, which fills the key's %s. */
#define CHOICE(function, type, key, ...) \
    EXPORT function(Device *device, unsigned choice, type *value) \
    { \
        static const char *const names[] = {__VA_ARGS__}; \
        return choice < COUNT(names) ? READ(device, value, key, names[choice]) : INVALID_ARGUMENT; \
    }
#define SYSTEM_TEXT(function, key) \
    EXPORT function(char *buffer, unsigned size) { return copy_text(NULL, buffer, size, key); }
#define SYSTEM_NUMBER(function, key) \
    EXPORT function(int *value) { return READ(NULL, value, key); }

SYSTEM_TEXT(nvmlSystemGetDriverVersion, "driver_version")
SYSTEM_TEXT(nvmlSystemGetNVMLVersion, "nvml_version")
SYSTEM_NUMBER(nvmlSystemGetCudaDriverVersion, "cuda_driver_version")
SYSTEM_NUMBER(nvmlSystemGetCudaDriverVersion_v2, "cuda_driver_version")
SYSTEM_NUMBER(nvmlDeviceGetCount, "gpu_count")
SYSTEM_NUMBER(nvmlDeviceGetCount_v2, "gpu_count")

TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios_version")
TEXT(nvmlDeviceGetInforomImageVersion, "inforom_image_version")
TEXT(nvmlDeviceGetBoardPartNumber, "board_part_number")
NUMBER(nvmlDeviceGetMinorNumber, unsigned, "minor_number")
NUMBER(nvmlDeviceGetBrand, unsigned, "brand")
NUMBER(nvmlDeviceGetArchitecture, unsigned, "architecture")
NUMBER(nvmlDeviceGetNumGpuCores, unsigned, "cuda_cores")
NUMBER(nvmlDeviceGetNumaNodeId, int, "numa_node")
PAIR(nvmlDeviceGetCudaComputeCapability, int,
     "compute_capability_major", "compute_capability_minor")

NUMBER(nvmlDeviceGetComputeMode, unsigned, "compute_mode")
NUMBER(nvmlDeviceGetPersistenceMode, unsigned, "persistence_mode")
NUMBER(nvmlDeviceGetDisplayMode, unsigned, "display_mode")
NUMBER(nvmlDeviceGetDisplayActive, unsigned, "display_active")
NUMBER(nvmlDeviceGetPowerState, unsigned, "performance_state")
NUMBER(nvmlDeviceGetPerformanceState, unsigned, "performance_state")
PAIR(nvmlDeviceGetGspFirmwareMode, unsigned, "gsp_firmware_enabled", "gsp_firmware_default")

NUMBER(nvmlDeviceGetFanSpeed, unsigned, "fan_speed_percent")
NUMBER(nvmlDeviceGetNumFans, unsigned, "fan_count")
NUMBER(nvmlDeviceGetPowerUsage, unsigned, "power_usage_milliwatt")
NUMBER(nvmlDeviceGetPowerManagementMode, unsigned, "power_management_mode")
NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned, "power_limit_milliwatt")
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, "power_default_limit_milliwatt")
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, "power_enforced_limit_milliwatt")
PAIR(nvmlDeviceGetPowerManagementLimitConstraints, unsigned,
     "power_min_limit_milliwatt", "power_max_limit_milliwatt")
NUMBER(nvmlDeviceGetTotalEnergyConsumption, uint64_t, "energy_millijoule")
CHOICE(nvmlDeviceGetTemperature, unsigned, "temperature_celsius%s", "")
CHOICE(nvmlDeviceGetTemperatureThreshold, unsigned, "temperature_%s_threshold_celsius",
       "shutdown", "slowdown", "memory_max", "gpu_max")
CHOICE(nvmlDeviceGetClockInfo, unsigned, "clock_%s_mhz", "graphics", "sm", "memory", "video")
CHOICE(nvmlDeviceGetMaxClockInfo, unsigned, "clock_max_%s_mhz",
       "graphics", "sm", "memory", "video")
CHOICE(nvmlDeviceGetApplicationsClock, unsigned, "clock_applications_%s_mhz",
       "graphics", "sm", "memory", "video")
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, uint64_t, "clocks_event_reasons")
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, uint64_t, "clocks_event_reasons")
NUMBER(nvmlDeviceGetSupportedClocksEventReasons, uint64_t, "clocks_event_reasons_supported")
NUMBER(nvmlDeviceGetSupportedClocksThrottleReasons, uint64_t, "clocks_event_reasons_supported")

PAIR(nvmlDeviceGetEncoderUtilization, unsigned,
     "encoder_utilization_percent", "encoder_sampling_period_us")
PAIR(nvmlDeviceGetDecoderUtilization, unsigned,
     "decoder_utilization_percent", "decoder_sampling_period_us")

PAIR(nvmlDeviceGetEccMode, unsigned, "ecc_mode", "ecc_mode_pending")
NUMBER(nvmlDeviceGetDefaultEccMode, unsigned, "ecc_mode_default")
NUMBER(nvmlDeviceGetRetiredPagesPendingStatus, unsigned, "retired_pages_pending")

NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, "pcie_generation")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, "pcie_max_generation")
NUMBER(nvmlDeviceGetGpuMaxPcieLinkGeneration, unsigned, "pcie_gpu_max_generation")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, "pcie_width_lanes")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, "pcie_max_width_lanes")
NUMBER(nvmlDeviceGetPcieReplayCounter, unsigned, "pcie_replays")
CHOICE(nvmlDeviceGetPcieThroughput, unsigned, "pcie_%s_kib_per_s", "tx", "rx")

PAIR(nvmlDeviceGetMigMode, unsigned, "mig_mode", "mig_mode_pending")
NUMBER(nvmlDeviceGetMaxMigDeviceCount, unsigned, "mig_max_devices")
NUMBER(nvmlDeviceGetGpuInstanceId, unsigned, "gpu_instance_id")
NUMBER(nvmlDeviceGetComputeInstanceId, unsigned, "compute_instance_id")

/* Windows only, but clients look for them on Linux too. */
PAIR(nvmlDeviceGetDriverModel, unsigned, "driver_model", "driver_model_pending")
PAIR(nvmlDeviceGetDriverModel_v2, unsigned, "driver_model", "driver_model_pending")

EXPORT nvmlDeviceGetGspFirmwareVersion(Device *device, char *version)
{
    return copy_text(device, version, 64, "gsp_firmware_version");
}

EXPORT nvmlDeviceValidateInforom(Device *device)
{
    unsigned valid = 0;
    int code = READ(device, &valid, "inforom_valid");
    return code || valid ? code : CORRUPTED_INFOROM;
}

EXPORT nvmlSystemGetProcessName(unsigned pid, char *buffer, unsigned size)
{
    char key[64];
    snprintf(key, sizeof key, "process.%u.name", pid);
    int code = copy_text(NULL, buffer, size, key);
    return code == NOT_SUPPORTED ? NOT_FOUND : code;
}

/* ---- The library itself ---- */

EXPORT nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    int code = users ? SUCCESS : scenario_load();
    if (code)
        return code;
    for (unsigned gpu = 0; gpu < MAX_GPUS; gpu++) {
        handles[gpu].whole = (Device){gpu, WHOLE_GPU};
        for (int mig = 0; mig < MAX_MIG_INSTANCES; mig++)
            handles[gpu].mig[mig] = (Device){gpu, mig};
    }
    users++;
    code = obstacle(NULL, "init");
    if (code)
        users--;
    return code;
}

EXPORT nvmlInit(void) { return nvmlInitWithFlags(0); }
EXPORT nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

EXPORT nvmlShutdown(void)
{
    if (!users)
        return UNINITIALIZED;
    users--;
    return SUCCESS;
}

__attribute__((visibility("default"))) const char *nvmlErrorString(int code)
{
    static const char *const strings[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported",
        "Insufficient Permissions", "Already Initialized", "Not Found", "Insufficient Size",
        "Insufficient External Power", "Driver Not Loaded", "Timeout",
        "Interrupt Request Issue", "NVML Shared Library Not Found", "Function Not Found",
        "Corrupted infoROM", "GPU is lost", "GPU requires reset",
        "The operating system has blocked the request.", "Driver/library version mismatch",
        "In use by another client", "Insufficient Memory", "No data",
        "vGPU ECC not supported", "Insufficient Resources",
    };
    return code >= 0 && code < (int)COUNT(strings) ? strings[code] : "Unknown Error";
}

/* ---- Handles ---- */

static unsigned gpu_count(void)
{
    unsigned count = 0;
    (void)READ(NULL, &count, "gpu_count");
    return count < MAX_GPUS ? count : MAX_GPUS;
}

EXPORT nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device)
{
    if (!users)
        return UNINITIALIZED;
    if (index >= gpu_count())
        return INVALID_ARGUMENT;
    *device = &handles[index].whole;
    return obstacle(*device, "handle");
}

EXPORT nvmlDeviceGetHandleByIndex(unsigned index, Device **device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

typedef int Differ(const char *, const char *);

static int has_text(const Device *device, const char *key, const char *wanted, Differ *differ)
{
    const char *text;
    return !read_text(device, &text, "%s", key) && !differ(text, wanted);
}

static int handle_by(const char *key, const char *wanted, Differ *differ, Device **device)
{
    if (!users)
        return UNINITIALIZED;
    for (unsigned gpu = 0; gpu < gpu_count(); gpu++) {
        if (has_text(&handles[gpu].whole, key, wanted, differ))
            return nvmlDeviceGetHandleByIndex_v2(gpu, device);
        for (int mig = 0; mig < MAX_MIG_INSTANCES; mig++) {
            *device = &handles[gpu].mig[mig];
            if (has_text(*device, key, wanted, differ))
                return SUCCESS;
        }
    }
    *device = NULL;
    return NOT_FOUND;
}

EXPORT nvmlDeviceGetHandleByUUID(const char *uuid, Device **device)
{
    return handle_by("uuid", uuid, strcmp, device);
}

EXPORT nvmlDeviceGetHandleBySerial(const char *serial, Device **device)
{
    return handle_by("serial", serial, strcmp, device);
}

PciAddress pci_address(const char *text)
{
    PciAddress at = {0};
    if (sscanf(text, "%x:%x:%x", &at.domain, &at.bus, &at.device) < 3)
        at = (PciAddress){0, at.domain, at.bus}; /* "1b:00.0" leaves the domain out */
    return at;
}

static int pci_differ(const char *one, const char *other)
{
    PciAddress first = pci_address(one), second = pci_address(other);
    return memcmp(&first, &second, sizeof first);
}

EXPORT nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, Device **device)
{
    return handle_by("pci_bus_id", bus_id, pci_differ, device);
}

EXPORT nvmlDeviceGetHandleByPciBusId(const char *bus_id, Device **device)
{
    return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}

EXPORT nvmlDeviceGetIndex(const Device *device, unsigned *index)
{
    *index = device->mig == WHOLE_GPU ? device->gpu : (unsigned)device->mig;
    return SUCCESS;
}

EXPORT nvmlDeviceIsMigDeviceHandle(const Device *device, unsigned *is_mig)
{
    *is_mig = device->mig != WHOLE_GPU;
    return SUCCESS;
}

EXPORT nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **mig)
{
    unsigned count = 0;
    const char *uuid;
    int code = READ(device, &count, "mig_max_devices");
    if (code)
        return code;
    if (index >= count || index >= MAX_MIG_INSTANCES)
        return INVALID_ARGUMENT;
    *mig = &handles[device->gpu].mig[index];
    code = read_text(*mig, &uuid, "uuid");
    return code == NOT_SUPPORTED ? NOT_FOUND : code;
}

EXPORT nvmlDeviceGetDeviceHandleFromMigDeviceHandle(const Device *mig, Device **device)
{
    *device = &handles[mig->gpu].whole;
    return mig->mig == WHOLE_GPU ? INVALID_ARGUMENT : SUCCESS;
}
