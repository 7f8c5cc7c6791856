/* A scenario file: lines of "key = value", looked up by key. See README.md. */

#ifndef SCENARIO_H
#define SCENARIO_H

#include <stdarg.h>

/* NVML's return codes, as far as the simulator itself gives them. */
enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    CORRUPTED_INFOROM = 14,
    ARGUMENT_VERSION_MISMATCH = 25,
    UNKNOWN = 999,
};

enum { WHOLE_GPU = -1 };

typedef struct {
    unsigned gpu;
    int mig; /* index of the MIG instance, or WHOLE_GPU */
} Device;

/* Reads the file named by NVML_SIMULATOR_SCENARIO, replacing what was read before. */
int scenario_load(void);

/* Finds the text behind a key: of the system where device is NULL, else of that device.
 *
 * A value "error:N" gives return code N, "hang:S" sleeps S seconds and gives TIMEOUT,
 * "hang:S text" sleeps and gives the text, and "crash" ends the process with SIGSEGV.
 * A key the scenario does not have, or has as "missing", gives NOT_SUPPORTED and text NULL. */
int scenario_text(const Device *device, const char **text, const char *format, va_list arguments);

/* Reads a decimal or 0x number; UNKNOWN, with a line on stderr, where it is none. */
int scenario_number(const char *text, unsigned long long *number);

#endif
