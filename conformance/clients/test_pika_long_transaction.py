"""The bytes that wait for a commit are counted. Too many close the connection. After a rollback they do not count any more."""

import pika
from pika_client import connect
from server import Server

BODY = bytes(100_000)

with Server(["--limits-uploads-bytes-max", "1MiB"]) as server:
    server.must_be_ours_to_kill()
    other = connect(server).channel()
    other.queue_declare("long")
    other.tx_select()
    for _ in range(5):
        for _ in range(9):
            other.basic_publish("", "long", BODY)
        other.tx_rollback()
    for _ in range(3):
        for _ in range(9):
            other.basic_publish("", "long", BODY)
        other.tx_commit()

    connection = connect(server)
    channel = connection.channel()
    channel.tx_select()
    try:
        for _ in range(12):
            channel.basic_publish("", "long", BODY)
        channel.tx_commit()
    except pika.exceptions.ConnectionClosedByBroker as closed:
        assert closed.reply_code == 506 and "uploads_bytes_max" in closed.reply_text, closed
    else:
        raise AssertionError("the server refused nothing")

    # The bytes of the closed connection do not count any more.
    for _ in range(9):
        other.basic_publish("", "long", BODY)
    other.tx_commit()
    assert other.queue_declare("long", passive=True).method.message_count == 36
