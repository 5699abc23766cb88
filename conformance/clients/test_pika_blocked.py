"""The journal is full and its messages cannot be moved. Publishers are told why they wait, and the log and the health check
report it. When messages can be moved again, the publishers go on, and no published message is lost."""

import os

import pika
from pika_client import Collected, connect, wait_until
from server import Server

PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
COUNT = 100

with Server(["--storage-file-bytes", "256KiB", "--listen", "http=127.0.0.1:0"]) as server:
    server.must_be_ours_to_kill()
    runs = os.path.join(server.data, "runs")
    connection = connect(server)
    channel = connection.channel()
    channel.queue_declare("long", durable=True)
    told = []
    connection.add_on_connection_blocked_callback(lambda _, blocked: told.append(blocked.method.reason))
    connection.add_on_connection_unblocked_callback(lambda *_: told.append(None))

    # Without the folder for runs, no run can be written, as on a full disk.
    os.rename(runs, runs + ".away")
    # The messages do not fit into the journal, and the rest fits into the socket buffers.
    for number in range(COUNT):
        channel.basic_publish("", "long", b"%05d" % number + bytes(15_000), PERSISTENT)
    # The server may notice the full journal before it notices the full disk. Then the client is told both reasons.
    wait_until(lambda: told and "the disk accepts no more" in told[-1], connection)
    assert None not in told, told
    health = server.readiness()
    assert health["status"] == "blocked" and "the disk accepts no more" in health["reason"], health
    assert "publishers wait: the disk accepts no more" in server.log()

    os.rename(runs + ".away", runs)
    wait_until(lambda: None in told, connection)
    assert server.readiness() == {"status": "ok"}
    assert "publishers continue" in server.log()
    receiver = connect(server)
    consumer = Collected(receiver.channel(), "long", auto_ack=True)
    wait_until(lambda: len(consumer.deliveries) >= COUNT, receiver)
    assert [body[:5] for body in consumer.bodies()] == [b"%05d" % number for number in range(COUNT)]
