"""A worker is killed while it runs a task with acks_late. Another worker runs the task again."""

import os
import pathlib
import tempfile
import time

from celery_worker import Worker
from server import Server

with Server() as server, tempfile.TemporaryDirectory() as folder:
    os.environ["FERRYMQ_URL"] = server.url
    from celery_tasks import run_until_told

    runs = pathlib.Path(folder) / "runs"
    result = run_until_told.delay(folder)
    with Worker(concurrency=1) as worker:
        while not (runs.exists() and runs.read_text().endswith("\n")):
            time.sleep(0.05)
        worker.kill()
    assert not result.ready()

    with Worker(concurrency=1):
        while len(runs.read_text().splitlines()) < 2:
            time.sleep(0.05)
        (pathlib.Path(folder) / "go").touch()
        assert result.get(timeout=60) == "done"
    assert len(runs.read_text().splitlines()) == 2, runs.read_text()
