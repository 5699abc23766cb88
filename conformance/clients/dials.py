"""A small library before libc, for servers that are started with it, with dials that a program turns while they run: it steps
the wall clock, delays syncs, makes them do nothing, and kills the server in its n-th sync.

It is built with `cc`; a program ends as skipped where there is none.
"""

import mmap
import os
import shutil
import struct
import subprocess
import sys

from server import SKIPPED

SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static volatile long *dials; /* shared with the program: class Dials says what they are */
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
int clock_gettime(clockid_t id, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, id, now);
    if (result == 0 && id == CLOCK_REALTIME) now->tv_sec += dials[0];
    return result;
}
"""


class Dials:
    """Numbers that the library reads: seconds added to the wall clock; whether syncs are held back until that is 0 again;
    whether they do nothing; the n-th sync from now that kills the server. And one that it writes: how many syncs began."""

    CLOCK, HOLD_SYNCS, NO_SYNC, KILL_AT_SYNC, SYNCS_BEGUN = range(5)

    def __init__(self, folder):
        if shutil.which("cc") is None:
            print("skipped: there is no C compiler `cc`")
            sys.exit(SKIPPED)
        source, self.library, self.file = (os.path.join(folder, name) for name in ("dials.c", "dials.so", "dials"))
        with open(source, "w") as file:
            file.write(SOURCE)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", self.library, source], check=True)
        with open(self.file, "w+b") as file:
            file.write(bytes(4096))
            file.flush()
            self.dials = mmap.mmap(file.fileno(), 4096)

    def __setitem__(self, dial, value):
        struct.pack_into("<q", self.dials, 8 * dial, value)

    def __getitem__(self, dial):
        return struct.unpack_from("<q", self.dials, 8 * dial)[0]

    def environment(self):
        return {"LD_PRELOAD": self.library, "FERRYMQ_DIALS": self.file}
