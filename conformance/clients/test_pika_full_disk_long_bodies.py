"""Long bodies fill the disk. When consumers have drained the queue, the disk has space again without a restart. Until then,
only clients wait that publish messages for which there is no space.
"""

import os
import threading

import own_mounts
import pika
from pika_client import connect, wait_until
from server import Server

MIB, DISK_MIB = 1 << 20, 64
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


class Publisher(threading.Thread):
    """Publishes bodies of 2 MiB, each after the confirm of the one before."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.channel, self.confirmed = connect(server).channel(), 0
        self.channel.queue_declare("long", durable=True)
        self.channel.confirm_delivery()
        self.start()

    def run(self):
        try:
            while True:
                self.channel.basic_publish("", "long", os.urandom(2 * MIB), PERSISTENT)
                self.confirmed += 1
        except (pika.exceptions.AMQPError, OSError):
            pass  # the program has ended


with own_mounts.small_disk(DISK_MIB) as disk:
    with Server(["--storage-file-bytes", "1MiB"], disk=disk) as server:
        server.must_be_ours_to_kill()
        other = connect(server)
        channel = other.channel()
        channel.queue_declare("short", durable=True)
        channel.confirm_delivery()
        publisher = Publisher(server)
        wait_until(lambda: "takes no more" in server.log() or "no space" in server.log().lower(), other)
        # No other client waits.
        channel.basic_publish("", "short", b"x", PERSISTENT)
        channel.queue_declare("one more", durable=True)
        consumer, acked = connect(server).channel(), 0
        while (got := consumer.basic_get("long"))[0] is not None:
            consumer.basic_ack(got[0].delivery_tag)
            acked += 1
        assert acked > DISK_MIB // 4, f"the disk was full with {acked} bodies"
        # The publisher goes on, and other clients get replies.
        before = publisher.confirmed
        channel.basic_publish("", "short", b"x", PERSISTENT)
        channel.queue_declare("another", durable=True)
        wait_until(lambda: publisher.confirmed > before, other)
