"""Long bodies leave memory when they are on disk and confirmed, even if many come at the same time."""

import threading

import pika
from pika_client import connect, wait_until
from server import Server

MIB = 1 << 20
CONNECTIONS, BODY, WRITTEN_MAX = 24, 16 * MIB, 100  # the last: MiB more than at the start
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


def publish(channel):
    channel.confirm_delivery()
    channel.basic_publish("", "q", bytes(BODY), PERSISTENT)


with Server() as server:
    server.must_be_ours_to_kill()
    channels = [connect(server).channel() for _ in range(CONNECTIONS)]
    channels[0].queue_declare("q", durable=True)
    start = server.memory_mib()
    threads = [threading.Thread(target=publish, args=(channel,)) for channel in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # If the memory stays, the watchdog in `server` ends the program.
    wait_until(lambda: server.memory_mib() - start <= WRITTEN_MAX, channels[0].connection)
