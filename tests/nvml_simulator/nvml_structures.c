/* The fields that take a structure, a list, or more than one choice.
 *
 * Structures follow nvidia-ml-py's pynvml.py, byte for byte. */

#include "nvml_simulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- One structure each ---- */

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} PciInfo;

EXPORT nvmlDeviceGetPciInfo_v3(Device *device, PciInfo *info)
{
    const char *text;
    int code = read_text(device, &text, "pci_bus_id")
        ?: READ(device, &info->pci_device_id, "pci_device_id")
        ?: READ(device, &info->pci_subsystem_id, "pci_subsystem_id");
    if (code)
        return code;
    PciAddress at = pci_address(text);
    info->domain = at.domain;
    info->bus = at.bus;
    info->device = at.device;
    snprintf(info->bus_id_legacy, sizeof info->bus_id_legacy, "%04X:%02X:%02X.0",
             at.domain & 0xFFFF, at.bus & 0xFF, at.device & 0xFF);
    snprintf(info->bus_id, sizeof info->bus_id, "%08X:%02X:%02X.0", at.domain, at.bus, at.device);
    return SUCCESS;
}

typedef struct { unsigned gpu, memory; } Utilization;

EXPORT nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates)
{
    return READ(device, &rates->gpu, "utilization_gpu_percent")
        ?: READ(device, &rates->memory, "utilization_memory_percent");
}

typedef struct { uint64_t total, free, used; } Memory;
typedef struct { unsigned version; uint64_t total, reserved, free, used; } MemoryV2;

static int read_memory(const Device *device, MemoryV2 *memory)
{
    int code = READ(device, &memory->total, "memory_total_bytes")
        ?: READ(device, &memory->reserved, "memory_reserved_bytes")
        ?: READ(device, &memory->used, "memory_used_bytes");
    memory->free = memory->total - memory->reserved - memory->used;
    return code;
}

EXPORT nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *memory)
{
    return memory->version == 0x02000028 ? read_memory(device, memory) : ARGUMENT_VERSION_MISMATCH;
}

EXPORT nvmlDeviceGetMemoryInfo(Device *device, Memory *memory)
{
    MemoryV2 parts = {0};
    int code = read_memory(device, &parts);
    *memory = (Memory){parts.total, parts.free, parts.used + parts.reserved};
    return code;
}

EXPORT nvmlDeviceGetBAR1MemoryInfo(Device *device, Memory *memory)
{
    int code = READ(device, &memory->total, "bar1_total_bytes")
        ?: READ(device, &memory->used, "bar1_used_bytes");
    memory->free = memory->total - memory->used;
    return code;
}

typedef struct { unsigned version, sensor; int celsius; } Temperature;

EXPORT nvmlDeviceGetTemperatureV(Device *device, Temperature *temperature)
{
    if (temperature->version != 0x0100000C)
        return ARGUMENT_VERSION_MISMATCH;
    return temperature->sensor ? INVALID_ARGUMENT
                               : READ(device, &temperature->celsius, "temperature_celsius");
}

typedef struct { unsigned version; int celsius; } Margin;

EXPORT nvmlDeviceGetMarginTemperature(Device *device, Margin *margin)
{
    return margin->version == 0x01000008
        ? READ(device, &margin->celsius, "temperature_margin_celsius") : ARGUMENT_VERSION_MISMATCH;
}

typedef struct { uint64_t reference_us, violation_ns; } Violation;

EXPORT nvmlDeviceGetViolationStatus(Device *device, unsigned policy, Violation *violation)
{
    static const char *const names[12] = {
        "power", "thermal", "sync_boost", "board_limit", "low_utilization", "reliability",
        [10] = "application_clocks", [11] = "base_clocks",
    };
    if (policy >= COUNT(names) || !names[policy])
        return INVALID_ARGUMENT;
    return READ(device, &violation->violation_ns, "violation_%s_ns", names[policy])
        ?: READ(device, &violation->reference_us, "violation_reference_us");
}

typedef struct { unsigned char cluster_uuid[16]; unsigned status, clique_id, state; } Fabric;
typedef struct {
    unsigned version;
    Fabric fabric;
    unsigned health_mask;
    unsigned char health_summary; /* from version 3 on */
} FabricV;

EXPORT nvmlDeviceGetGpuFabricInfo(Device *device, Fabric *fabric)
{
    const char *uuid;
    int code = read_text(device, &uuid, "fabric_cluster_uuid")
        ?: READ(device, &fabric->status, "fabric_status")
        ?: READ(device, &fabric->clique_id, "fabric_clique_id")
        ?: READ(device, &fabric->state, "fabric_state");
    for (unsigned i = 0; !code && i < 16; i++)
        code = sscanf(uuid + 2 * i, "%2hhx", &fabric->cluster_uuid[i]) == 1 ? SUCCESS : UNKNOWN;
    return code;
}

EXPORT nvmlDeviceGetGpuFabricInfoV(Device *device, FabricV *info)
{
    unsigned newest_version = 3;
    (void)READ(NULL, &newest_version, "fabric_info_version");
    int is_v3 = info->version == 0x03000028;
    if (!(is_v3 || info->version == 0x02000024) || info->version >> 24 > newest_version)
        return ARGUMENT_VERSION_MISMATCH;
    int code = nvmlDeviceGetGpuFabricInfo(device, &info->fabric)
        ?: READ(device, &info->health_mask, "fabric_health_mask");
    return code || !is_v3 ? code : READ(device, &info->health_summary, "fabric_health_summary");
}

typedef struct { unsigned max, high, partial, low, none; } RowHistogram;

EXPORT nvmlDeviceGetRowRemapperHistogram(Device *device, RowHistogram *banks)
{
    return READ(device, &banks->max, "row_remapper.max_banks")
        ?: READ(device, &banks->high, "row_remapper.high_banks")
        ?: READ(device, &banks->partial, "row_remapper.partial_banks")
        ?: READ(device, &banks->low, "row_remapper.low_banks")
        ?: READ(device, &banks->none, "row_remapper.none_banks");
}

EXPORT nvmlDeviceGetRemappedRows(Device *device, unsigned *correctable, unsigned *uncorrectable,
                                 unsigned *pending, unsigned *failure)
{
    return READ(device, correctable, "remapped_rows_correctable")
        ?: READ(device, uncorrectable, "remapped_rows_uncorrectable")
        ?: READ(device, pending, "remapped_rows_pending")
        ?: READ(device, failure, "remapped_rows_failure");
}

/* ---- Two choices or more ---- */

static const char *const ecc_types[] = {"corrected", "uncorrected"};
static const char *const ecc_periods[] = {"volatile", "aggregate"};
static const char *const ecc_locations[] = {"l1_cache", "l2_cache", "dram", "register_file",
                                            "texture_memory", "texture_shm", "cbu", "sram"};

EXPORT nvmlDeviceGetTotalEccErrors(Device *device, unsigned type, unsigned period, uint64_t *count)
{
    if (type >= COUNT(ecc_types) || period >= COUNT(ecc_periods))
        return INVALID_ARGUMENT;
    return READ(device, count, "ecc.%s.%s.total", ecc_types[type], ecc_periods[period]);
}

EXPORT nvmlDeviceGetMemoryErrorCounter(Device *device, unsigned type, unsigned period,
                                       unsigned location, uint64_t *count)
{
    if (type >= COUNT(ecc_types) || period >= COUNT(ecc_periods)
        || location >= COUNT(ecc_locations))
        return INVALID_ARGUMENT;
    return READ(device, count, "ecc.%s.%s.%s", ecc_types[type], ecc_periods[period],
                ecc_locations[location]);
}

static int check_link(Device *device, unsigned link)
{
    unsigned count = 0;
    int code = READ(device, &count, "nvlink_count");
    return code || link < count ? code : INVALID_ARGUMENT;
}

EXPORT nvmlDeviceGetNvLinkState(Device *device, unsigned link, unsigned *active)
{
    return check_link(device, link) ?: READ(device, active, "nvlink.%u.active", link);
}

EXPORT nvmlDeviceGetNvLinkVersion(Device *device, unsigned link, unsigned *version)
{
    return check_link(device, link) ?: READ(device, version, "nvlink.%u.version", link);
}

EXPORT nvmlDeviceGetNvLinkErrorCounter(Device *device, unsigned link, unsigned counter,
                                       uint64_t *count)
{
    static const char *const names[] = {"replay", "recovery", "crc_flit", "crc_data", "ecc_data"};
    if (counter >= COUNT(names))
        return INVALID_ARGUMENT;
    return check_link(device, link)
        ?: READ(device, count, "nvlink.%u.%s_errors", link, names[counter]);
}

EXPORT nvmlDeviceGetP2PStatus(Device *device, const Device *peer, unsigned index, unsigned *status)
{
    static const char *const names[] = {"read", "write", "nvlink", "atomics", "pci"};
    return index >= COUNT(names) ? INVALID_ARGUMENT
                                 : READ(device, status, "p2p.%u.%s", peer->gpu, names[index]);
}

EXPORT nvmlDeviceGetTopologyCommonAncestor(Device *device, const Device *peer, unsigned *level)
{
    return READ(device, level, "topology.%u.common_ancestor", peer->gpu);
}

/* ---- Lists ---- */

EXPORT nvmlDeviceGetRetiredPages_v2(Device *device, unsigned cause, unsigned *count,
                                    uint64_t *addresses, uint64_t *unix_seconds)
{
    static const char *const causes[] = {"single_bit", "double_bit"};
    unsigned pages = 0, room = addresses ? *count : 0;
    if (cause >= COUNT(causes))
        return INVALID_ARGUMENT;
    int code = READ(device, &pages, "retired_pages.%s.count", causes[cause]);
    *count = pages;
    if (code || room < pages)
        return code ?: INSUFFICIENT_SIZE;
    for (unsigned page = 0; page < pages; page++) {
        const char *text = "";
        unsigned long long address = 0, seconds = 0;
        read_text(device, &text, "retired_pages.%s.%u", causes[cause], page);
        if (sscanf(text ?: "", "%llx %llu", &address, &seconds) < 1)
            return UNKNOWN;
        addresses[page] = address;
        if (unix_seconds)
            unix_seconds[page] = seconds;
    }
    return SUCCESS;
}

EXPORT nvmlDeviceGetRetiredPages(Device *device, unsigned cause, unsigned *count,
                                 uint64_t *addresses)
{
    return nvmlDeviceGetRetiredPages_v2(device, cause, count, addresses, NULL);
}

typedef struct { unsigned pid; uint64_t used_bytes; } ProcessV1;
typedef struct { unsigned pid; uint64_t used_bytes; unsigned gpu_instance, compute_instance; } Process;

/* Reads "pid bytes kind" with the instances of a MIG GPU behind it; bytes -1 is "not available". */
static int read_process(const Device *device, unsigned index, char kind[16], Process *process)
{
    const char *text;
    long long bytes = 0;
    int code = read_text(device, &text, "process.%u", index);
    if (code)
        return code;
    *process = (Process){.gpu_instance = ~0u, .compute_instance = ~0u};
    if (sscanf(text, "%u %lld %15s %u %u", &process->pid, &bytes, kind, &process->gpu_instance,
               &process->compute_instance) < 3)
        return UNKNOWN;
    process->used_bytes = bytes;
    return SUCCESS;
}

/* Lists the processes of "compute_processes", say; that key itself may be an obstacle. */
static int list_processes(const Device *device, const char *wanted, unsigned *count,
                          void *list, int is_v1)
{
    unsigned found = 0, room = list ? *count : 0;
    Process process;
    char kind[16];
    int code = obstacle(device, wanted);
    if (code)
        return code;
    for (unsigned i = 0; !(code = read_process(device, i, kind, &process)); i++) {
        if (strncmp(kind, wanted, strcspn(wanted, "_")))
            continue;
        if (found < room && is_v1)
            ((ProcessV1 *)list)[found] = (ProcessV1){process.pid, process.used_bytes};
        else if (found < room)
            ((Process *)list)[found] = process;
        found++;
    }
    if (code != NOT_SUPPORTED)
        return code;
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define PROCESSES(function, kind, is_v1) \
    EXPORT function(Device *device, unsigned *count, void *list) \
    { return list_processes(device, kind, count, list, is_v1); }

PROCESSES(nvmlDeviceGetComputeRunningProcesses, "compute_processes", 1)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "compute_processes", 0)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "compute_processes", 0)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, "graphics_processes", 1)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics_processes", 0)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics_processes", 0)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, "mps_processes", 1)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps_processes", 0)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps_processes", 0)

typedef struct {
    unsigned pid;
    uint64_t timestamp_us;
    unsigned sm, memory, encoder, decoder;
} ProcessUtilization;

/* Reads "pid sm memory encoder decoder", the last four in percent. */
static int read_process_utilization(const Device *device, unsigned index,
                                    ProcessUtilization *process)
{
    const char *text;
    int code = read_text(device, &text, "process_utilization_percent.%u", index);
    if (code)
        return code;
    return sscanf(text, "%u %u %u %u %u", &process->pid, &process->sm, &process->memory,
                  &process->encoder, &process->decoder) == 5 ? SUCCESS : UNKNOWN;
}

EXPORT nvmlDeviceGetProcessUtilization(Device *device, ProcessUtilization *list, unsigned *count,
                                       unsigned long long last_seen_us)
{
    unsigned found = 0, room = list ? *count : 0;
    ProcessUtilization process = {.timestamp_us = last_seen_us + 1};
    while (!read_process_utilization(device, found, &process)) {
        if (found < room)
            list[found] = process;
        found++;
    }
    *count = found;
    return !found ? NOT_FOUND : found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

typedef struct {
    unsigned id, scope;
    int64_t timestamp_us, latency_us;
    unsigned type, code;
    union { double real; uint64_t integer; } value;
} FieldValue;

EXPORT nvmlDeviceGetFieldValues(Device *device, int count, FieldValue *fields)
{
    enum { DOUBLE = 0, UNSIGNED_LONG_LONG = 3 };
    for (FieldValue *field = fields; field < fields + count; field++) {
        const char *text;
        unsigned long long integer = 0;
        field->code = read_text(device, &text, "field.%u.%u", field->id, field->scope);
        if (field->code)
            continue;
        field->type = strchr(text, '.') ? DOUBLE : UNSIGNED_LONG_LONG;
        if (field->type == DOUBLE) {
            field->value.real = strtod(text, NULL);
        } else {
            field->code = scenario_number(text, &integer);
            field->value.integer = integer;
        }
    }
    return SUCCESS;
}
