"""The calls of the second tutorial: workers share a durable queue, and ack when the work is done."""

import pika
from pika_client import connect, wait_until
from server import Server

QUEUE = "task_queue"

with Server() as server:
    manager = connect(server)
    tasks = manager.channel()
    tasks.queue_declare(queue=QUEUE, durable=True)

    done = []

    class Worker:
        def __init__(self, name):
            self.name = name
            self.connection = connect(server)
            channel = self.connection.channel()
            channel.queue_declare(queue=QUEUE, durable=True)
            channel.basic_qos(prefetch_count=1)
            channel.basic_consume(queue=QUEUE, on_message_callback=self.work)

        def work(self, channel, method, properties, body):
            assert properties.delivery_mode == 2, properties
            done.append((self.name, body))
            channel.basic_ack(delivery_tag=method.delivery_tag)

    workers = [Worker("one"), Worker("two")]
    for number in range(20):
        tasks.basic_publish(
            exchange="",
            routing_key=QUEUE,
            body=f"task {number}",
            properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
        )
    wait_until(lambda: len(done) >= 20, *(worker.connection for worker in workers))
    assert sorted(body for _, body in done) == sorted(f"task {number}".encode() for number in range(20))
    assert {name for name, _ in done} == {"one", "two"}, "both workers had tasks"

    for worker in workers:
        worker.connection.close()
    assert tasks.queue_declare(queue=QUEUE, passive=True).method.message_count == 0
    tasks.queue_delete(queue=QUEUE)
    manager.close()
