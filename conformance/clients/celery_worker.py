"""A Celery worker with prefork processes, for the length of a `with` block."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile


class Worker:
    def __init__(self, concurrency, *options, pool="prefork"):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", f"--pool={pool}"]
            + [f"--concurrency={concurrency}", "--loglevel=INFO", "--without-gossip", "--without-mingle", *options],
            cwd=pathlib.Path(__file__).parent,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            # The worker has its own process group, so that it and its children can be killed at once.
            start_new_session=True,
            env={**os.environ, "C_FORCE_ROOT": "true"},
        )

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        self.kill()
        if problem is not None:
            self.log.seek(0)
            sys.stderr.write(f"--- the worker's log\n{self.log.read().decode(errors='replace')}---\n")
