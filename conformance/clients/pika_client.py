"""Functions that the pika programs share: they connect, and wait for deliveries."""

import pika


def connect(server):
    return pika.BlockingConnection(pika.ConnectionParameters(host=server.host, port=server.port))


def wait_until(condition, *connections):
    """Processes the events of the connections until the condition is true. If it never becomes true, the watchdog in
    `server` ends the program."""
    while not condition():
        for connection in connections:
            connection.process_data_events(time_limit=0.02)


class Collected:
    """A consumer that stores its deliveries."""

    def __init__(self, channel, queue, **arguments):
        self.channel = channel
        self.deliveries = []
        self.tag = channel.basic_consume(queue=queue, on_message_callback=self.take, **arguments)

    def take(self, _channel, method, properties, body):
        self.deliveries.append((method, properties, body))

    def bodies(self):
        return [body for _, _, body in self.deliveries]
