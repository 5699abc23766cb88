"""The Celery application that the Celery programs and their workers share. FERRYMQ_URL is the address of the broker."""

import os
import pathlib
import time

from celery import Celery

app = Celery("tasks", broker=os.environ["FERRYMQ_URL"].replace("amqp://", "pyamqp://"), backend="rpc://")
app.conf.update(
    # The worker reserves one task for each process. So a task with an ETA would block the others, if the worker could
    # not raise its prefetch count for it.
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
if "CELERY_TASKS_PRIORITY_MAX" in os.environ:
    app.conf.task_queue_max_priority = int(os.environ["CELERY_TASKS_PRIORITY_MAX"])
if os.environ.get("CELERY_TASKS_QUEUE_TYPE") == "quorum":
    # With quorum queues Celery leaves delays to the broker.
    app.conf.update(
        task_default_queue="celery quorum", task_default_queue_type="quorum", worker_detect_quorum_queues=True
    )


@app.task
def add(x, y):
    return x + y


@app.task(bind=True, max_retries=3)
def third_time_lucky(self):
    if self.request.retries < 2:
        raise self.retry(countdown=1)
    return self.request.retries


@app.task
def note(path, text):
    """Writes a line to a file, so that the caller can see the order of the tasks."""
    with open(path, "a") as notes:
        notes.write(f"{text}\n")


@app.task
def now():
    return time.time()


@app.task(acks_late=True)
def run_until_told(folder):
    """Writes that it runs, and ends when the file `go` exists."""
    folder = pathlib.Path(folder)
    with open(folder / "runs", "a") as runs:
        runs.write(f"{os.getpid()}\n")
    while not (folder / "go").exists():
        time.sleep(0.05)
    return "done"
