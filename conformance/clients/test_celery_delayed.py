"""Celery's native delayed delivery. With quorum queues a task with a countdown waits in the broker and not in the worker: in
a chain of queues whose messages expire and become dead letters, with topic exchanges that are bound to each other."""

import os
import time

os.environ["CELERY_TASKS_QUEUE_TYPE"] = "quorum"

from celery_worker import Worker  # noqa: E402
from server import Server  # noqa: E402

with Server() as server:
    os.environ["FERRYMQ_URL"] = server.url
    from celery_tasks import add, app, now

    with Worker(2):
        assert add.delay(4, 4).get(timeout=60) == 8
        sent = time.time()
        now.apply_async(countdown=24 * 60 * 60)
        later = now.apply_async(countdown=3)
        sooner = now.apply_async(countdown=1)
        # No result comes if a task that is due waits for the task of tomorrow.
        assert add.delay(1, 1).get(timeout=60) == 2
        assert sooner.get(timeout=60) >= sent + 1
        assert later.get(timeout=60) >= sent + 3
        with app.connection_for_read() as connection:
            declared = connection.default_channel.queue_declare("celery_delayed_27", passive=True)
            assert declared.queue == "celery_delayed_27"
