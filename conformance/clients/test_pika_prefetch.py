"""Three consumers with manual acks and prefetch_count=1. One of them ends while it has an unacked message."""

import subprocess
import sys

import pika
from pika_client import Collected, connect, wait_until
from server import Server

QUEUE = "prefetch-one"


def hold(host, port):
    """The consumer that ends. It prints its deliveries and never acks."""
    connection = pika.BlockingConnection(pika.ConnectionParameters(host=host, port=int(port)))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)

    def take(_channel, _method, _properties, body):
        print(body.decode(), flush=True)

    channel.basic_consume(queue=QUEUE, on_message_callback=take)
    print("consuming", flush=True)
    channel.start_consuming()


def work(server):
    setup = connect(server)
    channel = setup.channel()
    channel.queue_declare(queue=QUEUE)

    command = [sys.executable, __file__, server.host, str(server.port)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "consuming\n"
    first, second = connect(server), connect(server)
    consumers = []
    for connection in (first, second):
        own = connection.channel()
        own.basic_qos(prefetch_count=1)
        consumers.append(Collected(own, QUEUE))

    for number in range(9):
        channel.basic_publish("", QUEUE, str(number).encode())
    held = holder.stdout.readline().strip().encode()
    wait_until(lambda: all(consumer.deliveries for consumer in consumers), first, second)
    # Each of the three consumers has one message, and the six others wait.
    assert channel.queue_declare(queue=QUEUE, passive=True).method.message_count == 6
    assert {held, *consumers[0].bodies(), *consumers[1].bodies()} == {b"0", b"1", b"2"}

    holder.kill()
    holder.wait()
    handled = []
    while len(handled) < 9:
        wait_until(lambda: any(consumer.deliveries for consumer in consumers), first, second)
        for consumer in consumers:
            assert len(consumer.deliveries) <= 1, "more deliveries than the prefetch count were unacked"
            while consumer.deliveries:
                method, _, body = consumer.deliveries.pop()
                handled.append((body, method.redelivered))
                consumer.channel.basic_ack(method.delivery_tag)

    assert sorted(body for body, _ in handled) == [str(number).encode() for number in range(9)], handled
    assert [body for body, redelivered in handled if redelivered] == [held], handled
    deleted = channel.queue_delete(queue=QUEUE)
    assert deleted.method.message_count == 0
    for connection in (setup, first, second):
        connection.close()


if len(sys.argv) > 1:
    hold(*sys.argv[1:])
else:
    with Server() as server:
        work(server)
