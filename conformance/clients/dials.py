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

class Dials:
    """Numbers that the library reads: seconds added to the wall clock; whether syncs are held back until that is 0 again;
    whether they do nothing; the n-th sync from now that kills the server. And one that it writes: how many syncs began."""

    CLOCK, HOLD_SYNCS, NO_SYNC, KILL_AT_SYNC, SYNCS_BEGUN = range(5)

    def __init__(self, folder):
        if shutil.which("cc") is None:
            print("skipped: there is no C compiler `cc`")
            sys.exit(SKIPPED)
        self.library, self.file = (os.path.join(folder, name) for name in ("dials.so", "dials"))
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dials.c")
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
