#include "base.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double kac_now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

size_t kac_memory_peak_bytes(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (size_t)u.ru_maxrss * 1024;
}

/* First number in a small text file; SIZE_MAX when there is none ("max"). */
static size_t number_in(const char *path, const char *key) {
    FILE *f = fopen(path, "re");
    if (f == NULL) return SIZE_MAX;
    char line[256];
    size_t value = SIZE_MAX;
    while (fgets(line, sizeof line, f) != NULL) {
        if (key != NULL && strncmp(line, key, strlen(key)) != 0) continue;
        const char *digits = line + (key == NULL ? 0 : strlen(key));
        char *end;
        const unsigned long long v = strtoull(digits, &end, 10);
        if (end != digits) value = (size_t)v;
        break;
    }
    fclose(f);
    return value;
}

size_t kac_memory_available_bytes(void) {
    size_t available = number_in("/proc/meminfo", "MemAvailable:");
    available =
        available == SIZE_MAX ? (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) : available * 1024;
    const size_t limit = number_in("/sys/fs/cgroup/memory.max", NULL),
                 used = number_in("/sys/fs/cgroup/memory.current", NULL);
    if (limit != SIZE_MAX && used != SIZE_MAX && limit > used) available = KAC_MIN(available, limit - used);
    struct rlimit r;
    if (getrlimit(RLIMIT_AS, &r) == 0 && r.rlim_cur != RLIM_INFINITY)
        available = KAC_MIN(available, (size_t)r.rlim_cur);
    return available;
}

int kac_cpu_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return KAC_MAX(1, CPU_COUNT(&set));
    return (int)KAC_MAX(1, sysconf(_SC_NPROCESSORS_ONLN));
}

void kac_cpu_name(char *out, size_t n) {
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    snprintf(out, n, "unknown");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (colon == NULL) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(out, n, "%s", colon + 1 + strspn(colon + 1, " "));
        break;
    }
    if (f != NULL) fclose(f);
}
