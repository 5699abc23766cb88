"""The file of a long body that an x-recent-history exchange keeps is written once, before the publish is confirmed, and stays
until neither the exchange nor a queue needs it."""

import os

import pika
from pika_client import connect, wait_until
from server import Server

PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
BODY = os.urandom(2 << 20)

with Server() as server:
    server.must_be_ours_to_kill()

    def files():
        return sorted(name for name in os.listdir(os.path.join(server.data, "bodies")) if not name.startswith("."))

    connection = connect(server)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.exchange_declare("recent", "x-recent-history", durable=True, arguments={"x-recent-history-length": 3})
    # Nothing is bound yet, and the exchange keeps the message.
    channel.basic_publish("recent", "", BODY, PERSISTENT)
    written = files()
    assert len(written) == 1, written
    for queue in ("one", "two"):
        channel.queue_declare(queue, durable=True)
        channel.queue_bind(queue, "recent")
        method, properties, body = channel.basic_get(queue)
        assert body == BODY and properties.delivery_mode == 2
        assert files() == written, files()
        channel.basic_ack(method.delivery_tag)
    # A dead letter that the exchange keeps is on disk already.
    channel.exchange_declare("dead", "x-recent-history", durable=True, arguments={"x-recent-history-length": 3})
    channel.queue_declare("third", durable=True, arguments={"x-dead-letter-exchange": "dead"})
    channel.queue_bind("third", "recent")
    method, _, body = channel.basic_get("third")
    channel.exchange_delete("recent")
    channel.basic_reject(method.delivery_tag, requeue=False)
    channel.queue_declare("fourth", durable=True)
    channel.queue_bind("fourth", "dead")
    method, _, body = channel.basic_get("fourth")
    assert body == BODY and files() == written, files()
    # The dead letter survives a kill with that file.
    channel.basic_nack(method.delivery_tag)
    channel.basic_publish("", "fourth", b"behind", PERSISTENT)
    server.kill()
    server.start()
    connection = connect(server)
    channel = connection.channel()
    method, _, body = channel.basic_get("fourth")
    assert body == BODY and files() == written, files()
    channel.basic_ack(method.delivery_tag)
    wait_until(lambda: not files(), connection)
