"""Incomplete messages are counted over all channels. A client that sends too much of them is disconnected; others are not."""

import pika
from pika_client import connect
from server import Server

ANNOUNCED_BYTES = 10_000_000
PART = bytes(100_000)

with Server(["--limits-uploads-bytes-max", "1MiB"]) as server:
    server.must_be_ours_to_kill()
    other = connect(server).channel()
    other.queue_declare("whole")
    other.confirm_delivery()

    connection = connect(server)
    channels = [connection.channel() for _ in range(20)]
    try:
        for channel in channels:
            number = channel.channel_number
            impl = connection._impl
            impl._send_frame(pika.frame.Method(number, pika.spec.Basic.Publish(routing_key="whole")))
            impl._send_frame(pika.frame.Header(number, ANNOUNCED_BYTES, pika.BasicProperties()))
            impl._send_frame(pika.frame.Body(number, PART))
        while True:
            connection.process_data_events(time_limit=0.1)
    except pika.exceptions.ConnectionClosedByBroker as closed:
        assert closed.reply_code == 506, closed
        assert "uploads_bytes_max" in closed.reply_text, closed

    # There is space again for a message that arrives in many frames.
    for _ in range(3):
        other.basic_publish("", "whole", bytes(900_000))
    method, _, body = other.basic_get("whole", auto_ack=True)
    assert (len(body), method.message_count) == (900_000, 2)
