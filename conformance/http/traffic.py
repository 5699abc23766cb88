"""The AMQP side of the scripts, with pika."""

import json
import time
from fnmatch import fnmatchcase

import pika
from pika.exceptions import AMQPError, ConnectionClosed

WAIT_SECONDS = 60


class Traffic:
    """The connections of one script, by their names."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.connections, self.channels, self.deliveries = {}, {}, {}

    def run(self, word, args):
        getattr(self, word)(*args)

    def connect(self, name, options="{}"):
        """connect NAME {"user": "guest", "vhost": "/", "name": "what the client calls itself"}"""
        given = json.loads(options)
        user = given.get("user", "guest")
        connection = pika.BlockingConnection(
            pika.ConnectionParameters(
                host=self.host,
                port=self.port,
                virtual_host=given.get("vhost", "/"),
                credentials=pika.PlainCredentials(user, user),
                client_properties={"connection_name": given["name"]} if "name" in given else None,
            )
        )
        self.connections[name] = connection
        self.channel(name)

    def channel(self, name):
        """channel NAME: another channel; the second one of `c` is called `c/2`"""
        of = self.connections[name]
        number = 1 + sum(1 for key in self.channels if key.split("/")[0] == name)
        self.channels[name if number == 1 else f"{name}/{number}"] = of.channel()

    def declare(self, on, rest):
        """declare CHANNEL {"queue": "q", "durable": true}"""
        self.channels[on].queue_declare(**json.loads(rest))

    def publish(self, on, rest):
        """publish CHANNEL {"exchange": "", "routing_key": "q", "body": "x", "times": 3, "mandatory": true}"""
        given = json.loads(rest)
        properties = pika.BasicProperties(**given.get("properties", {}))
        for _ in range(given.get("times", 1)):
            try:
                self.channels[on].basic_publish(
                    given.get("exchange", ""),
                    given["routing_key"],
                    given.get("body", "x").encode(),
                    properties,
                    mandatory=given.get("mandatory", False),
                )
            except pika.exceptions.UnroutableError:
                pass

    def consume(self, on, rest):
        """consume CHANNEL {"queue": "q", "consumer_tag": "t", "prefetch": 10, "auto_ack": false}"""
        given = json.loads(rest)
        if "prefetch" in given:
            self.channels[on].basic_qos(prefetch_count=given.pop("prefetch"))
        taken = self.deliveries.setdefault(on, [])
        self.channels[on].basic_consume(
            on_message_callback=lambda _channel, method, _properties, _body: taken.append(method.delivery_tag), **given
        )

    def receive(self, on, rest):
        """receive CHANNEL COUNT [ack|requeue|keep]: waits for this many deliveries, and settles them"""
        count, what = (rest.split() + ["ack"])[:2]
        connection, taken, channel = self.connections[on.split("/")[0]], self.deliveries[on], self.channels[on]
        deadline = time.monotonic() + WAIT_SECONDS
        while len(taken) < int(count):
            connection.process_data_events(time_limit=0.05)
            if time.monotonic() > deadline:
                raise SystemExit(f"receive {on}: {len(taken)} of {count} deliveries after {WAIT_SECONDS} s")
        for tag in taken[: int(count)]:
            if what == "ack":
                channel.basic_ack(tag)
            elif what == "requeue":
                channel.basic_nack(tag)
        del taken[: int(count)]

    def get(self, on, queue):
        self.channels[on].basic_get(queue, auto_ack=True)

    def cancel(self, on, tag):
        self.channels[on].basic_cancel(tag)

    def confirm(self, on):
        self.channels[on].confirm_delivery()

    def tx(self, on):
        self.channels[on].tx_select()

    def close(self, name):
        self.forget(name).close()

    def forget(self, name):
        """Takes a connection and its channels out of the tables."""
        for table in (self.channels, self.deliveries):
            for channel in [key for key in table if key.split("/")[0] == name]:
                del table[channel]
        return self.connections.pop(name)

    def closed(self, name, rest):
        """closed NAME CODE TEXT: waits until the server has closed the connection in this way; `*` stands for any text"""
        connection = self.forget(name)
        deadline = time.monotonic() + WAIT_SECONDS
        try:
            while time.monotonic() < deadline:
                connection.process_data_events(time_limit=0.05)
        except ConnectionClosed as why:
            said = f"{why.reply_code} {why.reply_text}"
            if not fnmatchcase(said, rest):
                raise SystemExit(f"closed {name}: expected `{rest}`, the server said `{said}`")
            return
        raise SystemExit(f"closed {name}: still open after {WAIT_SECONDS} s")

    def stop(self):
        for connection in self.connections.values():
            try:
                connection.close()
            except AMQPError:
                pass
