"""py-amqp and the mechanism EXTERNAL. py-amqp prefers EXTERNAL to a password if the server offers it. The server must offer it
only on the port for TLS, and only if it is configured to do so."""

import json
import ssl
import tempfile

import amqp
from server import Server, certificate


def connect(server, port, client=None, **arguments):
    tls = {"ca_certs": certificate("ca_certificate.pem"), "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "localhost"}
    if client:
        tls["certfile"] = certificate(f"{client}_certificate.pem")
        tls["keyfile"] = certificate(f"{client}_key.pem")
    connection = amqp.Connection(f"{server.host}:{port}", ssl=tls if port == server.tls_port else False, **arguments)
    connection.connect()
    return connection


def is_refused(*arguments, **more):
    try:
        connect(*arguments, **more)
    except amqp.exceptions.AccessRefused as refused:
        assert "mechanism EXTERNAL" in str(refused), refused
        return True
    return False


with tempfile.TemporaryDirectory(prefix="ferrymq-") as folder:
    path = f"{folder}/definitions.json"
    users = [
        {"name": "worker", "password_hash": "", "tags": []},
        {"name": "guest", "password": "guest", "tags": []},
    ]
    everything = {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    permissions = [{"user": user["name"], **everything} for user in users]
    with open(path, "w") as file:
        json.dump({"users": users, "permissions": permissions}, file)

    with Server([f"--definitions={path}", "--tls-login-from=common_name"], tls=True) as server:
        with connect(server, server.tls_port, "worker", login_method="EXTERNAL") as connection:
            channel = connection.channel()
            channel.queue_declare("mine", exclusive=True)
            channel.basic_publish(amqp.Message("x", user_id="worker"), routing_key="mine")
            assert channel.basic_get("mine", no_ack=True).body == "x"
        # The client has a name and a password, and uses EXTERNAL.
        connect(server, server.tls_port, "worker").close()
        assert is_refused(server, server.tls_port, "client")
        assert is_refused(server, server.tls_port)
        # The client is configured to use the password.
        connect(server, server.tls_port, login_method="PLAIN").close()
        # The plain port offers passwords only.
        connect(server, server.port).close()

    with Server([f"--definitions={path}"], tls=True) as server:
        connect(server, server.tls_port, "worker").close()
