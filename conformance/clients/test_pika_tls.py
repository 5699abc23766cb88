"""pika with TLS. Two connections, with and without a client certificate, exchange bodies, from empty ones to bodies longer than
a frame. A client that does not trust the server is refused, and so is a client that the server does not trust."""

import ssl

import pika
from pika_client import Collected, wait_until
from server import Server, certificate

BODIES = [bytes([number % 256]) * number**3 for number in range(0, 100, 3)]


def connect(server, client=None, trusted="ca"):
    context = ssl.create_default_context(cafile=certificate(f"{trusted}_certificate.pem"))
    if client:
        context.load_cert_chain(certificate(f"{client}_certificate.pem"), certificate(f"{client}_key.pem"))
    options = pika.SSLOptions(context, "localhost")
    return pika.BlockingConnection(
        pika.ConnectionParameters(host=server.host, port=server.tls_port, ssl_options=options)
    )


def is_refused(server, **arguments):
    try:
        connect(server, **arguments)
    except (pika.exceptions.AMQPConnectionError, ssl.SSLError, ConnectionError):
        return True
    return False


with Server(tls=True) as server:
    receiver = connect(server, client="client")
    receiving = receiver.channel()
    receiving.queue_declare(queue="tls", durable=True)
    consumer = Collected(receiving, "tls", auto_ack=True)

    sender = connect(server)
    sending = sender.channel()
    sending.confirm_delivery()
    for body in BODIES:
        sending.basic_publish("", "tls", body, pika.BasicProperties(delivery_mode=2))
    wait_until(lambda: len(consumer.deliveries) >= len(BODIES), receiver)
    assert consumer.bodies() == BODIES

    # Many small messages, faster than the consumer reads them.
    sending = sender.channel()
    for number in range(20_000):
        sending.basic_publish("", "tls", b"%d" % number)
    wait_until(lambda: len(consumer.deliveries) >= len(BODIES) + 20_000, receiver)
    assert consumer.bodies()[len(BODIES) :] == [b"%d" % number for number in range(20_000)]
    sender.close()
    receiver.close()

    # Bodies that must be in a file first, in a row and without waiting: the server reads less at once meanwhile.
    sender = connect(server)
    sending = sender.channel()
    sending.queue_declare("long", durable=True)
    for _ in range(12):
        sending.basic_publish("", "long", bytes(2_000_000), pika.BasicProperties(delivery_mode=2))
    assert sending.queue_declare("long", passive=True).method.message_count == 12
    sender.close()

    assert is_refused(server, trusted="stranger")
    assert is_refused(server, client="stranger")
    assert is_refused(server, client="expired")
    # A client without TLS on the port for TLS.
    try:
        pika.BlockingConnection(pika.ConnectionParameters(host=server.host, port=server.tls_port))
        raise AssertionError("the client could log in")
    except pika.exceptions.AMQPConnectionError:
        pass
