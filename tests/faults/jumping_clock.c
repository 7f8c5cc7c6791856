/* A real-time clock that jumps, for LD_PRELOAD. All other clocks stay as they are.
 *
 * JUMP_S says by how many seconds, JUMP_AT when, by CLOCK_MONOTONIC, and JUMP_BACK_S, where given,
 * after how many seconds it jumps the other way, by twice as much, and so on.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static double setting(const char *name)
{
    const char *text = getenv(name);
    return text ? atof(text) : 0.0;
}

static long jumped_s(void)
{
    static double jump_s, at, back_s;
    static int known;
    struct timespec now;
    if (!known) {
        jump_s = setting("JUMP_S"), at = setting("JUMP_AT"), back_s = setting("JUMP_BACK_S");
        known = 1;
    }
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    double since_s = now.tv_sec + now.tv_nsec / 1e9 - at;
    if (since_s < 0)
        return 0;
    int is_back = back_s > 0 && (long)(since_s / back_s) % 2;
    return (long)(is_back ? -jump_s : jump_s);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += jumped_s();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec at;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &at);
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (where)
        *where = at.tv_sec;
    return at.tv_sec;
}
