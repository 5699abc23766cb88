"""The first tutorial: one program sends `Hello World!`, and another one receives it with a callback."""

from pika_client import connect
from server import Server

with Server() as server:
    sender = connect(server)
    channel = sender.channel()
    channel.queue_declare(queue="hello")
    channel.basic_publish(exchange="", routing_key="hello", body="Hello World!")
    sender.close()

    received = []

    def callback(channel, method, properties, body):
        received.append((method, body))
        channel.stop_consuming()

    receiver = connect(server)
    channel = receiver.channel()
    declared = channel.queue_declare(queue="hello")
    assert declared.method.message_count == 1, declared
    channel.basic_consume(queue="hello", auto_ack=True, on_message_callback=callback)
    channel.start_consuming()

    [(method, body)] = received
    assert body == b"Hello World!", body
    assert method.exchange == "" and method.routing_key == "hello", method
    assert not method.redelivered, method
    assert channel.queue_declare(queue="hello", passive=True).method.message_count == 0
    channel.queue_delete(queue="hello")
    receiver.close()
