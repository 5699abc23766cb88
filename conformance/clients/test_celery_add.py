"""Celery's first steps: a task is sent, a prefork worker runs it, and the result comes back over rpc://."""

import os

from celery_worker import Worker
from server import Server

with Server() as server:
    os.environ["FERRYMQ_URL"] = server.url
    from celery_tasks import add

    with Worker(concurrency=2):
        assert add.delay(4, 4).get(timeout=60) == 8
        results = [add.delay(number, number) for number in range(50)]
        assert [result.get(timeout=60) for result in results] == [2 * number for number in range(50)]
