"""Celery's remote control and events, which have their own exchanges and queues: inspect ping, revoke, rate limits,
autoscale, and a receiver of the workers' events."""

import os
import pathlib
import tempfile
import threading
import time

from celery_worker import Worker
from server import Server


def wait_until(condition):
    """Waits until the condition is true. If it never becomes true, the watchdog in `server` ends the program."""
    while not condition():
        time.sleep(0.02)


with Server() as server, tempfile.TemporaryDirectory() as folder:
    os.environ["FERRYMQ_URL"] = server.url
    from celery_tasks import add, app, note, run_until_told

    folder = pathlib.Path(folder)
    seen, types = [], set()

    def watch():
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": seen.append})
            receiver.capture(limit=None, timeout=None, wakeup=True)

    threading.Thread(target=watch, daemon=True).start()
    with Worker(1, "--events", "--autoscale=3,1", "--hostname=one@here"):
        wait_until(lambda: app.control.inspect(timeout=1, limit=1).ping() == {"one@here": {"ok": "pong"}})
        assert add.delay(4, 4).get(timeout=60) == 8
        expected = {"worker-online", "task-received", "task-started", "task-succeeded"}
        wait_until(lambda: expected <= {event["type"] for event in seen})

        # There are three waiting tasks. The worker began with one process and now has one for each of them.
        waiting = [run_until_told.delay(str(folder)) for _ in range(3)]
        wait_until(lambda: (folder / "runs").exists() and len((folder / "runs").read_text().split()) == 3)
        assert len(set((folder / "runs").read_text().split())) == 3

        # A task that is revoked while all processes are busy never runs.
        revoked = note.delay(str(folder / "notes"), "revoked")
        revoked.revoke()
        wait_until(lambda: revoked.id in (app.control.inspect(timeout=1, limit=1).revoked() or {}).get("one@here", []))
        (folder / "go").touch()
        assert [result.get(timeout=60) for result in waiting] == ["done"] * 3
        wait_until(lambda: "task-revoked" in {event["type"] for event in seen})
        assert not (folder / "notes").exists()

        # The limit is two tasks a second: the first one runs at once, each of the others half a second later.
        answer = app.control.rate_limit("celery_tasks.note", "2/s", reply=True, timeout=10, limit=1)
        assert answer == [{"one@here": {"ok": "new rate limit set successfully"}}], answer
        started = time.monotonic()
        for result in [note.delay(str(folder / "notes"), number) for number in range(4)]:
            result.get(timeout=60)
        assert time.monotonic() - started > 1.0, "the rate is limited"
        assert (folder / "notes").read_text().split() == ["0", "1", "2", "3"]
        registered = app.control.inspect(timeout=10, limit=1).registered()
        assert "celery_tasks.add" in registered["one@here"], registered
