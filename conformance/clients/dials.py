"""Settings that a program changes while a server runs: they step the wall clock, delay syncs, make syncs do nothing, and kill
the server in its n-th sync. The server is started with a small library (`LD_PRELOAD`) that reads the settings.

The library is built with `cc`. Without `cc`, the program is skipped.
"""

import mmap
import os
import shutil
import struct
import subprocess
import sys

from server import SKIPPED

class Dials:
    """The numbers in the file. The library reads four: the seconds added to the wall clock; 1 to delay syncs until it is 0
    again; 1 to make syncs do nothing; n to kill the server in the n-th sync from now. It writes the fifth: the number of
    syncs that began."""

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
