/* What the simulator's two files of NVML functions share. */

#ifndef NVML_SIMULATOR_H
#define NVML_SIMULATOR_H

#include "scenario.h"

#include <stdint.h>

#define EXPORT __attribute__((visibility("default"))) int
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Finds the text behind a key; UNINITIALIZED before nvmlInit, else as scenario_text. */
__attribute__((format(printf, 3, 4)))
int read_text(const Device *device, const char **text, const char *format, ...);

/* The error, hang or crash the scenario puts under a key that has no value to give. */
int obstacle(const Device *device, const char *key);

int copy_text(const Device *device, char *buffer, unsigned size, const char *key);

/* Stores the number behind a key in *target, whatever integer type that is. */
#define READ(device, target, ...) \
    ({ const char *text_ = NULL; unsigned long long number_ = 0; \
       int code_ = read_text(device, &text_, __VA_ARGS__); \
       if (!code_) code_ = scenario_number(text_, &number_); \
       if (!code_) *(target) = number_; \
       code_; })

typedef struct { unsigned domain, bus, device; } PciAddress;

PciAddress pci_address(const char *text);

#endif
