"""When a large backlog is gone, the server returns its memory to the operating system: soon it has at most 20 MiB more than
after the start."""

import time

import pika
from pika_client import connect
from server import Server

MESSAGES, BODY, OVER_IDLE_MAX = 20_000, bytes(4_000), 20  # the last: MiB
CONFIRMED_EACH = 1_000


def backlog(server, queue, delivery_mode):
    """Publishes a backlog. Returns the memory that the server has then."""
    connection = connect(server)
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    properties = pika.BasicProperties(delivery_mode=delivery_mode)
    for number in range(MESSAGES):
        channel.basic_publish("", queue, BODY, properties)
        if number % CONFIRMED_EACH == 0:
            # The reply comes when the messages before it are in the queue.
            channel.queue_declare(queue, passive=True)
    assert channel.queue_declare(queue, passive=True).method.message_count == MESSAGES
    memory = server.memory_mib("RssAnon")
    connection.close()
    return memory


def drain(server, queue):
    connection = connect(server)
    channel = connection.channel()
    for count, _ in enumerate(channel.consume(queue, auto_ack=True), 1):
        if count == MESSAGES:
            break
    channel.cancel()
    assert channel.queue_delete(queue).method.message_count == 0
    connection.close()


with Server() as server:
    server.must_be_ours_to_kill()
    connect(server).close()
    idle = server.memory_mib("RssAnon")
    for queue, delivery_mode in (("persistent", 2), ("transient", 1)):
        over_idle = backlog(server, queue, delivery_mode) - idle
        print(f"  {queue}: {over_idle} MiB over idle with the backlog")
        assert over_idle > OVER_IDLE_MAX, "the backlog is too short for this test"
        drain(server, queue)
        # If the memory stays, the watchdog in `server` ends the program.
        while server.memory_mib("RssAnon") - idle > OVER_IDLE_MAX:
            time.sleep(0.2)
