"""Tasks with an ETA do not block other tasks: the worker takes them and raises its prefetch count by their number.

The worker may hold one message at a time. If the raised prefetch count did not take effect at once, three waiting tasks would
block all tasks after them.
"""

import datetime
import os
import time

from celery_worker import Worker
from server import Server

with Server() as server:
    os.environ["FERRYMQ_URL"] = server.url
    from celery_tasks import add, now

    with Worker(concurrency=1):
        assert add.delay(1, 1).get(timeout=60) == 2
        tomorrow = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
        for _ in range(3):
            now.apply_async(eta=tomorrow)
        due = time.time() + 2
        later = now.apply_async(eta=datetime.datetime.fromtimestamp(due, datetime.timezone.utc))
        # None of these comes if the tasks without an ETA wait for those with one.
        others = [add.delay(number, 1) for number in range(20)]
        assert [result.get(timeout=60) for result in others] == list(range(1, 21))
        assert later.get(timeout=60) >= due, "a task ran before its ETA"
