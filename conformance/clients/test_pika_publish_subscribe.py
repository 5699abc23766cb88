"""The calls of the third tutorial: a fanout exchange, and exclusive queues whose names the server chooses."""

import pika
from pika_client import Collected, connect, wait_until
from server import Server

with Server() as server:
    sender = connect(server)
    logs = sender.channel()
    logs.exchange_declare(exchange="logs", exchange_type="fanout")
    logs.basic_publish(exchange="logs", routing_key="", body="before anyone listens")

    receivers, consumers, queues = [], [], []
    for _ in range(2):
        connection = connect(server)
        channel = connection.channel()
        channel.exchange_declare(exchange="logs", exchange_type="fanout")
        queue = channel.queue_declare(queue="", exclusive=True).method.queue
        assert queue.startswith("amq.gen-"), queue
        channel.queue_bind(exchange="logs", queue=queue)
        receivers.append(connection)
        queues.append(queue)
        consumers.append(Collected(channel, queue, auto_ack=True))
    assert queues[0] != queues[1]

    for number in range(5):
        logs.basic_publish(exchange="logs", routing_key="", body=f"info: {number}")
    wait_until(lambda: all(len(consumer.deliveries) >= 5 for consumer in consumers), *receivers)
    for consumer in consumers:
        assert consumer.bodies() == [f"info: {number}".encode() for number in range(5)]

    for connection in receivers:
        connection.close()
    for queue in queues:
        try:
            sender.channel().queue_declare(queue=queue, passive=True)
            raise AssertionError("an exclusive queue is still there after its connection has ended")
        except pika.exceptions.ChannelClosedByBroker as closed:
            assert closed.reply_code == 404, closed
    logs.exchange_delete(exchange="logs")
    sender.close()
