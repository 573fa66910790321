/* Moves the wall clock of the program that preloads it, by the seconds in the file that WALL_CLOCK names. The file is
   mapped, so the clock moves while the program runs. The monotonic clock is the system's. (With libfaketime Envoy
   doesn't start, because that takes locks and memory before Envoy's allocator is ready. This takes neither.) */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *moved_by;

static long long seconds(void) {
    const volatile long long *found = moved_by;
    if (!found) {
        const char *path = getenv("WALL_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *found, PROT_READ, MAP_SHARED, file, 0);
        if (mapped == MAP_FAILED) {
            abort(); /* A test whose clock doesn't move proves nothing. */
        }
        close(file);
        moved_by = found = mapped;
    }
    return *found;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = (int)syscall(SYS_clock_gettime, clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        at->tv_sec += seconds();
    }
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) {
        *at = now.tv_sec;
    }
    return now.tv_sec;
}
