#include "scenario.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LINES = 16384, MAX_LINE_LENGTH = 4096, MAX_KEY_LENGTH = 256 };

static struct {
    char *key, *value;
    const char *tail; /* what follows the key's last star: most lines are ruled out by it */
    size_t tail_length;
    int stars;
} lines[MAX_LINES];
static unsigned line_count;

static char *trimmed(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        *--end = '\0';
    return text;
}

static int load(const char *path);

static int add_line(char *line, const char *path)
{
    line[strcspn(line, "#")] = '\0';
    char *separator = strchr(line, '=');
    if (!separator)
        return *trimmed(line) ? UNKNOWN : SUCCESS;
    *separator = '\0';
    const char *key = trimmed(line), *value = trimmed(separator + 1);
    if (!strcmp(key, "include")) {
        char included[MAX_LINE_LENGTH];
        const char *name = strrchr(path, '/');
        int folder_length = name ? name + 1 - path : 0;
        snprintf(included, sizeof included, "%.*s%s.scenario", folder_length, path, value);
        return load(included);
    }
    if (line_count == MAX_LINES)
        return UNKNOWN;
    lines[line_count].key = strdup(key);
    lines[line_count].value = strdup(value);
    lines[line_count].stars = 0;
    lines[line_count].tail = lines[line_count].key;
    for (const char *at = lines[line_count].key; (at = strchr(at, '*')); at++) {
        lines[line_count].stars++;
        lines[line_count].tail = at + 1;
    }
    lines[line_count].tail_length = strlen(lines[line_count].tail);
    line_count++;
    return SUCCESS;
}

static int load(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "NVML simulator: cannot read scenario %s: %s\n", path, strerror(errno));
        return UNKNOWN;
    }
    char line[MAX_LINE_LENGTH];
    int code = SUCCESS;
    while (!code && fgets(line, sizeof line, file))
        code = add_line(line, path);
    if (code)
        fprintf(stderr, "NVML simulator: %s: expected 'key = value', got '%s'\n", path, line);
    fclose(file);
    return code;
}

int scenario_load(void)
{
    const char *path = getenv("NVML_SIMULATOR_SCENARIO");
    for (; line_count; line_count--) {
        free(lines[line_count - 1].key);
        free(lines[line_count - 1].value);
    }
    if (path)
        return load(path);
    fprintf(stderr, "NVML simulator: NVML_SIMULATOR_SCENARIO must name a scenario file\n");
    return DRIVER_NOT_LOADED;
}

/* Whether a key is what the pattern says, where a '*' stands for anything without a dot. */
static int matches(const char *pattern, const char *key)
{
    if (*pattern == '*')
        return matches(pattern + 1, key) || (*key && *key != '.' && matches(pattern, key + 1));
    return *pattern == *key && (!*key || matches(pattern + 1, key + 1));
}

/* The value of the line that names the key most closely, of equals the last; or NULL. */
static const char *value_of(const char *key)
{
    const char *value = NULL;
    int fewest_stars = MAX_KEY_LENGTH;
    size_t length = strlen(key);
    for (unsigned i = 0; i < line_count; i++) {
        size_t tail = lines[i].tail_length;
        if (tail > length || memcmp(key + length - tail, lines[i].tail, tail))
            continue;
        if (lines[i].stars <= fewest_stars && matches(lines[i].key, key)) {
            value = lines[i].value;
            fewest_stars = lines[i].stars;
        }
    }
    return value;
}

int scenario_text(const Device *device, const char **text, const char *format, va_list arguments)
{
    char key[MAX_KEY_LENGTH] = "";
    int length = 0;
    if (device && device->mig == WHOLE_GPU)
        length = snprintf(key, sizeof key, "gpu.%u.", device->gpu);
    else if (device)
        length = snprintf(key, sizeof key, "gpu.%u.mig.%d.", device->gpu, device->mig);
    vsnprintf(key + length, sizeof key - length, format, arguments);

    *text = value_of(key);
    if (*text && !strcmp(*text, "missing"))
        *text = NULL;
    if (!*text)
        return NOT_SUPPORTED;
    if (!strcmp(*text, "crash"))
        raise(SIGSEGV);
    int code = 0, consumed = 0;
    if (sscanf(*text, "error:%d", &code) == 1)
        return code;
    unsigned seconds = 0;
    if (sscanf(*text, "hang:%u %n", &seconds, &consumed) == 1) {
        for (unsigned left = seconds; left; left = sleep(left))
            ;
        *text += consumed;
        return **text ? SUCCESS : TIMEOUT;
    }
    return SUCCESS;
}

int scenario_number(const char *text, unsigned long long *number)
{
    char *end;
    *number = strtoull(text, &end, 0);
    if (*text && !*end)
        return SUCCESS;
    fprintf(stderr, "NVML simulator: expected a number, got '%s'\n", text);
    return UNKNOWN;
}
