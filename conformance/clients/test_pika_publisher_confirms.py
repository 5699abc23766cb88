"""The calls of the seventh tutorial: confirms one by one, and confirms with an asynchronous connection."""

import pika
from pika_client import connect
from server import Server

COUNT = 500
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


def one_by_one(server):
    connection = connect(server)
    channel = connection.channel()
    channel.queue_declare(queue="confirms-one", durable=True)
    channel.confirm_delivery()
    for number in range(20):
        # Returns when the broker has confirmed the message, and raises if it refuses or returns the message.
        channel.basic_publish("", "confirms-one", str(number).encode(), PERSISTENT, mandatory=True)
    assert channel.queue_declare(queue="confirms-one", passive=True).method.message_count == 20
    try:
        channel.basic_publish("", "nobody listens here", b"lost", mandatory=True)
        raise AssertionError("an unroutable mandatory message was not returned")
    except pika.exceptions.UnroutableError as problem:
        [returned] = problem.messages
        assert returned.method.reply_code == 312, returned.method
        assert returned.body == b"lost", returned.body
    channel.queue_delete(queue="confirms-one")
    connection.close()


class AsTheyCome:
    """An asynchronous publisher that stores its unconfirmed messages, as in the tutorial."""

    def __init__(self, server):
        self.outstanding = {}
        self.confirms = 0
        parameters = pika.ConnectionParameters(host=server.host, port=server.port)
        self.connection = pika.SelectConnection(parameters, on_open_callback=self.open_channel)

    def open_channel(self, connection):
        connection.channel(on_open_callback=self.declare)

    def declare(self, channel):
        self.channel = channel
        channel.queue_declare(queue="confirms-async", durable=True, callback=self.select)

    def select(self, _declared):
        self.channel.confirm_delivery(self.settle, callback=self.publish)

    def publish(self, _selected):
        for number in range(1, COUNT + 1):
            self.outstanding[number] = str(number)
            self.channel.basic_publish("", "confirms-async", str(number).encode(), PERSISTENT)

    def settle(self, frame):
        confirm = frame.method
        assert isinstance(confirm, pika.spec.Basic.Ack), confirm
        self.confirms += 1
        settled = [tag for tag in self.outstanding if tag == confirm.delivery_tag or (confirm.multiple and tag < confirm.delivery_tag)]
        assert confirm.delivery_tag in settled, "confirmed twice, or never published"
        for tag in settled:
            del self.outstanding[tag]
        if not self.outstanding:
            self.channel.queue_delete(queue="confirms-async", callback=self.finish)

    def finish(self, deleted):
        self.deleted = deleted.method.message_count
        self.connection.close()
        self.connection.ioloop.stop()


with Server() as server:
    one_by_one(server)
    publisher = AsTheyCome(server)
    publisher.connection.ioloop.start()
    assert publisher.deleted == COUNT, publisher.deleted
    assert 1 <= publisher.confirms <= COUNT
