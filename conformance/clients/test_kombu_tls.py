"""kombu over amqps:// with a client certificate, configured as in a Celery application."""

import socket
import ssl

import kombu
from server import Server, certificate

with Server(tls=True) as server:
    options = {
        "ca_certs": certificate("ca_certificate.pem"),
        "certfile": certificate("client_certificate.pem"),
        "keyfile": certificate("client_key.pem"),
        "cert_reqs": ssl.CERT_REQUIRED,
    }
    with kombu.Connection(f"amqps://guest:guest@localhost:{server.tls_port}//", ssl=options) as connection:
        with connection.SimpleQueue("kombu tls") as queue:
            for number in range(100):
                queue.put({"number": number})
            for number in range(100):
                message = queue.get(timeout=30)
                assert message.payload == {"number": number}
                message.ack()

    # A client without TLS on the port for TLS is refused and does not wait.
    plain = kombu.Connection(f"amqp://guest:guest@localhost:{server.tls_port}//", connect_timeout=30)
    try:
        plain.ensure_connection(max_retries=1, timeout=30)
        raise AssertionError("the client could log in")
    except (OSError, socket.timeout, kombu.exceptions.OperationalError):
        pass
