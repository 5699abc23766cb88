"""A merge of runs that met a full disk is tried again once there is room: what is acked gives its room back without a restart."""

import os

import own_mounts
import pika
from pika_client import connect, wait_until
from server import Server

MESSAGES, KEPT_OF = 10_000, 20
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
SMALL = ["--storage-file-bytes", "256KiB", "--storage-merge-bytes", "4KiB"]

with own_mounts.small_disk(60) as disk:
    with Server(SMALL, disk=disk) as server:
        server.must_be_ours_to_kill()
        connection = connect(server)
        channel, plain = connection.channel(), connection.channel()
        channel.queue_declare("q", durable=True)
        channel.confirm_delivery()
        for number in range(MESSAGES):
            # Those with a number that 100 divides are waited for, and with them all before.
            publisher = channel if number % 100 == 99 else plain
            publisher.basic_publish("", "q", os.urandom(1000), PERSISTENT)
        tags = []
        plain.basic_consume("q", lambda _channel, method, _properties, _body: tags.append(method.delivery_tag))
        wait_until(lambda: len(tags) == MESSAGES, connection)

        def run_bytes():
            runs = os.path.join(disk, "data", "runs")
            return sum(os.stat(os.path.join(runs, name)).st_size for name in os.listdir(runs))

        before, pad = run_bytes(), own_mounts.fill(disk)
        for tag in tags:
            if tag % KEPT_OF:
                plain.basic_ack(tag)
        assert channel.queue_declare("q", passive=True).method.message_count == 0
        os.remove(pad)
        wait_until(lambda: run_bytes() <= before // 4, connection)
