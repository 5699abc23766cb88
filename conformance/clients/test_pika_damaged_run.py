"""A queue whose messages on disk are damaged stops, and each client that uses it gets an error. Other queues go on.

After a purge the queue works again.
"""

import os

import pika
from pika_client import Collected, connect, wait_until
from server import Server

PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
SMALL_JOURNAL = ["--storage-file-bytes", "256KiB"]


def refused(act):
    """The reply code with which the server closes the connection after an action."""
    try:
        act(connect(server).channel())
    except pika.exceptions.ConnectionClosedByBroker as closed:
        assert "cannot be read" in closed.reply_text, closed
        return closed.reply_code
    raise AssertionError("the server refused nothing")


def publish_confirmed(channel, queue):
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"one more", PERSISTENT)


with Server(SMALL_JOURNAL) as server:
    server.must_be_ours_to_kill()
    connection = connect(server)
    channel = connection.channel()
    channel.queue_declare("damaged", durable=True)
    channel.queue_declare("whole", durable=True)
    channel.confirm_delivery()
    runs = os.path.join(server.data, "runs")
    for _ in range(400):
        channel.basic_publish("", "damaged", bytes(20_000), PERSISTENT)
    wait_until(lambda: os.listdir(runs), connection)
    publish_confirmed(connection.channel(), "whole")
    server.kill()

    # Damages a message in the middle of those that have left the journal. The messages before it can still be delivered.
    written = sorted(os.listdir(runs))
    with open(os.path.join(runs, written[len(written) // 2]), "r+b") as run:
        run.seek(10_000)
        run.write(b"\xa5" * 1_000)
    server.start()

    connection = connect(server)
    consumer = connection.channel()
    ended = []
    consumer.add_on_cancel_callback(ended.append)
    damaged = Collected(consumer, "damaged", auto_ack=True)
    wait_until(lambda: ended, connection)
    assert damaged.deliveries, "messages that are not damaged are delivered"

    assert refused(lambda channel: channel.basic_consume("damaged", lambda *_: None)) == 541
    assert refused(lambda channel: channel.basic_get("damaged")) == 541
    assert refused(lambda channel: publish_confirmed(channel, "damaged")) == 541

    whole = Collected(connection.channel(), "whole", auto_ack=True)
    wait_until(lambda: whole.deliveries, connection)
    assert whole.bodies() == [b"one more"]

    channel = connection.channel()
    channel.queue_purge("damaged")
    publish_confirmed(channel, "damaged")
    again = Collected(connection.channel(), "damaged", auto_ack=True)
    wait_until(lambda: again.deliveries, connection)
    assert again.bodies() == [b"one more"]
    connection.close()
