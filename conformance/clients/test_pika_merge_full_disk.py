"""A merge of runs that failed on a full disk is tried again when there is space. So the space of deleted messages becomes free
without a restart."""

import os

import own_mounts
import pika
from pika_client import connect, wait_until
from server import Server

MESSAGES, KEPT_OF, TRIES = 10_000, 20, 3
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
SMALL = ["--storage-file-bytes", "256KiB", "--storage-merge-bytes", "4KiB"]

with own_mounts.small_disk(60) as disk:
    with Server(SMALL, disk=disk) as server:
        server.must_be_ours_to_kill()
        publishing = connect(server)
        channel, plain = publishing.channel(), publishing.channel()
        channel.queue_declare("gone", durable=True)
        channel.queue_declare("kept", durable=True)
        channel.confirm_delivery()
        # Both queues are in all runs.
        for number in range(MESSAGES):
            # The publisher waits for every hundredth confirm, and so for all messages before it.
            publisher = channel if number % 100 == 99 else plain
            publisher.basic_publish("", "gone" if number % KEPT_OF else "kept", os.urandom(1000), PERSISTENT)
        runs = os.path.join(disk, "data", "runs")

        def bytes_of(name):
            try:
                return os.stat(os.path.join(runs, name)).st_size
            except FileNotFoundError:
                return 0  # The run was merged after it was listed.

        def run_bytes():
            return sum(map(bytes_of, os.listdir(runs)))

        before, pad = run_bytes(), own_mounts.fill(disk)
        # On a full disk FerryMQ does not read from clients that have published.
        connection = connect(server)
        assert connection.channel().queue_purge("gone").method.message_count == MESSAGES - MESSAGES // KEPT_OF
        # Each attempt to merge makes a file and removes it because it does not fit. So the program can see a new attempt.
        seen = set()
        wait_until(lambda: len(seen.add(os.stat(runs).st_mtime_ns) or seen) > TRIES, connection)
        os.remove(pad)
        wait_until(lambda: run_bytes() <= before // 4, connection)
