"""A task that fails is sent again with a countdown. The third attempt succeeds."""

import os
import time

from celery_worker import Worker
from server import Server

with Server() as server:
    os.environ["FERRYMQ_URL"] = server.url
    from celery_tasks import third_time_lucky

    with Worker(concurrency=1):
        sent = time.monotonic()
        assert third_time_lucky.delay().get(timeout=60) == 2
        assert time.monotonic() - sent >= 2, "each of the two retries waits for a second"
