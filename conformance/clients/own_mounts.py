"""Small disks for programs that fill them. They are mounted in the program's own mount namespace, so they are gone when the
program ends.

An import of this module runs the program again in such a namespace. Without root, or if mounts are not allowed, the
program is skipped.
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
        print("skipped: this program needs its own mount namespace, and for that it needs root")
        sys.exit(SKIPPED)
    os.execvpe(alone[0], [*alone, sys.executable, *sys.argv], {**os.environ, IN_NAMESPACE: "1"})


@contextlib.contextmanager
def small_disk(mib):
    """A disk in memory for the length of a `with` block; gives its folder."""
    with tempfile.TemporaryDirectory(prefix="ferrymq-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}M", "none", folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    """Fills the disk. Returns the file that must be removed to free the space."""
    pad = os.path.join(folder, "pad")
    for size in (1 << 16, 1 << 10):
        try:
            with open(pad, "ab", buffering=0) as file:
                while file.write(b"\xff" * size) == size:
                    pass
        except OSError:
            pass
    return pad
