"""pika with the mechanism EXTERNAL. The client's certificate names the user, in the part that the server is configured to read.
Passwords work, too. A user without a password can log in only with a certificate."""

import json
import ssl
import tempfile

import pika
from server import Server, certificate

USERS = ["CN=worker,O=Ferry\\, Inc", "worker", "second.example", "worker@example.org"]


def definitions(folder):
    """Makes users without a password, and one with a password."""
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
    """The user that a certificate names. It is the user whose name the client may put into the user-id of a message."""
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
    raise AssertionError("the certificate names none of the users")


def is_refused(server, client, credentials):
    """Whether the server refuses a login with 403 and does not let the client wait."""
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
            # Refused: no certificate, a certificate that names no user, and a password for a user without one.
            assert is_refused(server, None, EXTERNAL)
            assert is_refused(server, "client", EXTERNAL)
            assert is_refused(server, "worker", pika.PlainCredentials(user, ""))
            # A client with a certificate can use a password.
            connect(server, "worker", pika.PlainCredentials("guest", "guest")).close()

    # Without the option that says which part names the user, EXTERNAL is not offered, and pika has no other mechanism.
    with Server([users], tls=True) as server:
        try:
            connect(server, "worker", EXTERNAL)
            raise AssertionError("the client could log in")
        except pika.exceptions.AMQPConnectionError:
            pass
