"""Celery with a queue that has priorities: waiting tasks run in the order of their priorities."""

import os
import pathlib
import tempfile

from celery_worker import Worker
from server import Server

os.environ["CELERY_TASKS_PRIORITY_MAX"] = "9"
QUEUE = "celery priorities"

with Server() as server, tempfile.TemporaryDirectory() as folder:
    os.environ["FERRYMQ_URL"] = server.url
    from celery_tasks import note

    notes = pathlib.Path(folder) / "notes"
    order = (1, 9, 5, 0, 7, 5)
    results = [note.apply_async((str(notes), number), queue=QUEUE, priority=number) for number in order]
    # One process takes the tasks one by one, because tasks that a worker has already taken are not ordered again.
    with Worker(1, f"--queues={QUEUE}", "--prefetch-multiplier=1", pool="solo"):
        for result in results:
            result.get(timeout=60)
    assert notes.read_text().split() == ["9", "7", "5", "5", "1", "0"], notes.read_text()
