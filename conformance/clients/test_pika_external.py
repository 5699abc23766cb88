"""pika with the mechanism EXTERNAL: who it is stands in the client's certificate, in the part that the server is told to
look at; passwords are still taken beside it, and a user who has none gets in by certificate only."""

import json
import ssl
import tempfile

import pika
from server import Server, certificate

USERS = ["CN=worker,O=Ferry\\, Inc", "worker", "second.example", "worker@example.org"]


def definitions(folder):
    """Users without a password, and one who has one."""
    path = f"{folder}/definitions.json"
    users = [{"name": name, "password_hash": "", "tags": []} for name in USERS]
    users.append({"name": "guest", "password": "guest", "tags": []})
    everything = {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    permissions = [{"user": user["name"], **everything} for user in users]
    with open(path, "w") as file:
        json.dump({"users": users, "vhosts": [{"name": "/"}], "permissions": permissions}, file)
    return path


def connect(server, client, credentials):
    context = ssl.create_default_context(cafile=certificate("ca_certificate.pem"))
    if client:
        context.load_cert_chain(certificate(f"{client}_certificate.pem"), certificate(f"{client}_key.pem"))
    options = pika.SSLOptions(context, "localhost")
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            host=server.host, port=server.tls_port, ssl_options=options, credentials=credentials
        )
    )


def user_of(server, client="worker"):
    """The user that a certificate stands for, by what it may say of itself in a message."""
    connection = connect(server, client, pika.credentials.ExternalCredentials())
    for name in USERS:
        channel = connection.channel()
        channel.confirm_delivery()
        try:
            channel.basic_publish("", "nowhere", b"", pika.BasicProperties(user_id=name))
            connection.close()
            return name
        except pika.exceptions.ChannelClosedByBroker as closed:
            assert closed.reply_code == 406, closed
    raise AssertionError("it is nobody that we know")


def is_refused(server, client, credentials):
    """Told so with 403, and not left waiting."""
    try:
        connect(server, client, credentials)
    except pika.exceptions.ProbableAuthenticationError as refused:
        assert "403" in str(refused), refused
        return True
    return False


EXTERNAL = pika.credentials.ExternalCredentials()

with tempfile.TemporaryDirectory(prefix="ferrymq-") as folder:
    users = f"--definitions={definitions(folder)}"
    for options, user in [
        (["distinguished_name"], "CN=worker,O=Ferry\\, Inc"),
        (["common_name"], "worker"),
        (["subject_alternative_name", "--tls-login-san-index=1"], "second.example"),
        (["subject_alternative_name", "--tls-login-san-type=email"], "worker@example.org"),
    ]:
        with Server([users, f"--tls-login-from={options[0]}", *options[1:]], tls=True) as server:
            assert user_of(server) == user
            # No certificate, one that names nobody here, and a password where there is none.
            assert is_refused(server, None, EXTERNAL)
            assert is_refused(server, "client", EXTERNAL)
            assert is_refused(server, "worker", pika.PlainCredentials(user, ""))
            # A certificate is no obstacle to a password.
            connect(server, "worker", pika.PlainCredentials("guest", "guest")).close()

    # Where nobody has said which part names the user, it is not offered; pika knows no other way then.
    with Server([users], tls=True) as server:
        try:
            connect(server, "worker", EXTERNAL)
            raise AssertionError("it got in")
        except pika.exceptions.AMQPConnectionError:
            pass
