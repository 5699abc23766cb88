"""A server that is asked to stop tells its clients why. After the next start, all confirmed messages are there."""

import threading

import pika
from pika_client import connect
from server import Server

with Server() as server:
    server.must_be_ours_to_kill()
    connection = connect(server)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("kept", durable=True)
    channel.basic_publish("", "kept", b"kept", pika.BasicProperties(delivery_mode=2))

    ended = []
    stopping = threading.Thread(target=lambda: ended.append(server.stop()))
    stopping.start()
    try:
        while True:
            connection.process_data_events(time_limit=1)
    except pika.exceptions.ConnectionClosedByBroker as closed:
        assert closed.reply_code == 320 and "shutdown" in closed.reply_text, closed
    stopping.join()
    assert ended == [0], ended

    server.start()
    channel = connect(server).channel()
    method, _, body = channel.basic_get("kept", auto_ack=True)
    assert body == b"kept" and not method.redelivered
