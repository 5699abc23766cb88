"""Some copy tools leave out empty folders. A server starts with a data directory that was copied in this way."""

import os

import pika
from pika_client import connect
from server import Server

PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)

with Server() as server:
    server.must_be_ours_to_kill()
    channel = connect(server).channel()
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", "q", b"confirmed", PERSISTENT)
    for folder in ("bodies", "runs", "transient"):
        assert server.stop() == 0
        os.rmdir(os.path.join(server.data, folder))
        server.start()
    got, _, body = connect(server).channel().basic_get("q", auto_ack=True)
    assert got is not None and body == b"confirmed"
