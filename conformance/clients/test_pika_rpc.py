"""The calls of the sixth tutorial: requests in a shared queue, and replies in the caller's own queue. The correlation id
shows to which request a reply belongs."""

import uuid

import pika
from pika_client import connect, wait_until
from server import Server


def fibonacci(number):
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


class Caller:
    def __init__(self, server):
        self.connection = connect(server)
        self.channel = self.connection.channel()
        self.reply_queue = self.channel.queue_declare(queue="", exclusive=True).method.queue
        self.channel.basic_consume(queue=self.reply_queue, on_message_callback=self.take_reply, auto_ack=True)
        self.replies = {}

    def take_reply(self, _channel, _method, properties, body):
        self.replies[properties.correlation_id] = int(body)

    def call(self, number):
        correlation_id = str(uuid.uuid4())
        self.channel.basic_publish(
            exchange="",
            routing_key="rpc_queue",
            properties=pika.BasicProperties(reply_to=self.reply_queue, correlation_id=correlation_id),
            body=str(number),
        )
        return correlation_id


def answer(channel, method, properties, body):
    channel.basic_publish(
        exchange="",
        routing_key=properties.reply_to,
        properties=pika.BasicProperties(correlation_id=properties.correlation_id),
        body=str(fibonacci(int(body))),
    )
    channel.basic_ack(delivery_tag=method.delivery_tag)


with Server() as server:
    answering = connect(server)
    channel = answering.channel()
    channel.queue_declare(queue="rpc_queue")
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue="rpc_queue", on_message_callback=answer)

    callers = [Caller(server), Caller(server)]
    asked = {caller: {caller.call(number): number for number in range(5 + index, 15)} for index, caller in enumerate(callers)}
    wait_until(
        lambda: all(len(caller.replies) >= len(asked[caller]) for caller in callers),
        answering,
        *(caller.connection for caller in callers),
    )
    for caller in callers:
        assert caller.replies == {key: fibonacci(number) for key, number in asked[caller].items()}
        caller.connection.close()
    channel.queue_delete(queue="rpc_queue")
    answering.close()
