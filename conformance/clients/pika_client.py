"""What the pika programs share: connecting, and waiting for deliveries."""

import pika


def connect(server):
    return pika.BlockingConnection(pika.ConnectionParameters(host=server.host, port=server.port))


def wait_until(condition, *connections):
    """Lets connections do their work until the condition holds. A condition that never comes is ended by the
    watchdog in `server`."""
    while not condition():
        for connection in connections:
            connection.process_data_events(time_limit=0.02)


class Collected:
    """A consumer that keeps what it is given."""

    def __init__(self, channel, queue, **arguments):
        self.channel = channel
        self.deliveries = []
        self.tag = channel.basic_consume(queue=queue, on_message_callback=self.take, **arguments)

    def take(self, _channel, method, properties, body):
        self.deliveries.append((method, properties, body))

    def bodies(self):
        return [body for _, _, body in self.deliveries]
