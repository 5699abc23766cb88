/* A library that replaces functions of libc in a server under test. dials.py and proof/src/dials.rs change its settings. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static volatile long *dials; /* the settings, shared with the program: class Dials describes them */
__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("FERRYMQ_DIALS"), O_RDWR);
    dials = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
}
static int sync_with(long call, int file) {
    if (dials[3] > 0 && __sync_sub_and_fetch(&dials[3], 1) == 0) kill(getpid(), SIGKILL);
    __sync_add_and_fetch(&dials[4], 1);
    while (dials[1] > 0) usleep(1000);
    return dials[2] ? 0 : syscall(call, file);
}
int fdatasync(int file) { return sync_with(SYS_fdatasync, file); }
int fsync(int file) { return sync_with(SYS_fsync, file); }
/* Opened without O_DIRECT, a file is written to the page cache, from where a sync brings it to the disk. */
int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    return syscall(SYS_openat, AT_FDCWD, path, dials && dials[5] ? flags & ~O_DIRECT : flags, mode);
}
int clock_gettime(clockid_t id, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, id, now);
    if (result == 0 && id == CLOCK_REALTIME) now->tv_sec += dials[0];
    return result;
}
