"""Celery's canvas: groups and chains with results over rpc://, and a chord in a worker with results in memory (the rpc
backend does not support chords)."""

import os

from celery_worker import Worker
from server import Server

with Server() as server:
    os.environ["FERRYMQ_URL"] = server.url
    from celery import Celery, chain, chord, group
    from celery.contrib.testing.worker import start_worker
    from celery_tasks import add

    with Worker(2):
        assert group(add.s(number, number) for number in range(20))().get(timeout=60) == list(range(0, 40, 2))
        assert chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=60) == 10
        assert chain(add.s(1, 1), group(add.s(number) for number in range(3)))().get(timeout=60) == [2, 3, 4]

    # The worker of this application is in this process, so that it and the caller share the memory.
    here = Celery("here", broker=server.url, backend="cache+memory://")
    here.conf.task_default_queue = "here"

    @here.task
    def double(number):
        return 2 * number

    @here.task
    def total(numbers):
        return sum(numbers)

    with start_worker(here, pool="solo", perform_ping_check=False, shutdown_timeout=60):
        assert chord(double.s(number) for number in range(10))(total.s()).get(timeout=60) == 90
