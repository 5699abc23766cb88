"""Small disks for programs that fill them: mounts in a mount namespace of the program's own, which vanish with it.

Importing this runs the program again in such a namespace; without root, or where mounts are not allowed, it ends as skipped.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

from server import SKIPPED

IN_NAMESPACE = "FERRYMQ_OWN_MOUNTS"

if IN_NAMESPACE not in os.environ:
    alone = ["unshare", "--mount", "--propagation", "private"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        print("skipped: no mount namespace of its own, which takes root")
        sys.exit(SKIPPED)
    os.execvpe(alone[0], [*alone, sys.executable, *sys.argv], {**os.environ, IN_NAMESPACE: "1"})


@contextlib.contextmanager
def small_disk(mib):
    """The folder of a disk of its own in memory, as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="ferrymq-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}M", "none", folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    """Takes all the room there is; gives the file to remove."""
    pad = os.path.join(folder, "pad")
    for size in (1 << 16, 1 << 10):
        try:
            with open(pad, "ab", buffering=0) as file:
                while file.write(b"\xff" * size) == size:
                    pass
        except OSError:
            pass
    return pad
