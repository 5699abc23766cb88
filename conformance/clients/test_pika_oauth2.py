"""pika with tokens as passwords: what their scopes allow and refuse, tokens that are refused, a token that is renewed, and a
token that expires while its connection is open. Users with passwords can log in, too."""

import base64
import hashlib
import hmac
import json
import tempfile
import time

import pika
from pika_client import wait_until
from server import Server

SECRET = b"a secret that only we and the server know"
EVERYTHING = ["ferry.read:*/*", "ferry.write:*/*", "ferry.configure:*/*"]


def encoded(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def token(scope, secret=SECRET, **claims):
    """A token for ten minutes, unless the claims say otherwise."""
    claims = {"sub": "worker", "aud": ["ferry"], "exp": int(time.time()) + 600, "scope": scope, **claims}
    header = {"alg": "HS256", "kid": "ours", "typ": "JWT"}
    message = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    return f"{message}.{encoded(hmac.new(secret, message.encode(), hashlib.sha256).digest())}"


def connect(server, password, user="ignored", vhost="/"):
    credentials = pika.PlainCredentials(user, password)
    return pika.BlockingConnection(pika.ConnectionParameters(server.host, server.port, vhost, credentials))


def is_refused(action, code):
    """Whether the server closes the connection or the channel with this text."""
    try:
        action()
    except pika.exceptions.AMQPError as refused:
        assert str(code) in f"{refused!r} {refused}", f"{refused!r} {refused}"
        return True
    return False


def on_channel(connection, action):
    """Does an action on a new channel with confirms, so that a refusal comes at once."""
    channel = connection.channel()
    channel.confirm_delivery()
    return action(channel)


def declare(connection, queue):
    on_channel(connection, lambda channel: channel.queue_declare(queue))


def publish(connection, exchange, key, **properties):
    send = lambda channel: channel.basic_publish(exchange, key, b"x", pika.BasicProperties(**properties))
    on_channel(connection, send)


def renew(connection, new):
    """Waits for the answer, or for the server to close the connection."""
    renewed = []
    connection._impl.update_secret(new, "renewed", callback=renewed.append)
    wait_until(lambda: renewed, connection)


def options(folder, backends="internal,oauth2"):
    path = f"{folder}/keys.json"
    with open(path, "w") as file:
        json.dump({"keys": [{"kty": "oct", "kid": "ours", "alg": "HS256", "k": encoded(SECRET)}]}, file)
    return [f"--auth-backends={backends}", "--oauth2-resource-server-id=ferry", f"--oauth2-jwks-file={path}"]


def scopes(server):
    narrow = connect(
        server,
        token("ferry.configure:%2F/mine-* ferry.write:*/amq.topic/a.* ferry.write:*/amq.topic other.read:*/* rubbish"),
    )
    declare(narrow, "mine-1")
    assert is_refused(lambda: declare(narrow, "theirs"), 403)
    publish(narrow, "amq.topic", "a.b")
    assert is_refused(lambda: publish(narrow, "amq.topic", "b"), 403)
    assert is_refused(lambda: publish(narrow, "", "mine-1"), 403)
    assert is_refused(lambda: on_channel(narrow, lambda channel: channel.basic_get("mine-1")), 403)
    # The token names the user. The name that the client sends does not count.
    publish(narrow, "amq.topic", "a.b", user_id="worker")
    assert is_refused(lambda: publish(narrow, "amq.topic", "a.b", user_id="ignored"), 406)
    narrow.close()
    speaker = connect(server, token(EVERYTHING + ["ferry.tag:impersonator"], sub=None, client_id="speaker"))
    publish(speaker, "", "mine-1", user_id="anybody")
    # On a topic exchange, a scope must allow the routing key.
    assert is_refused(lambda: publish(speaker, "amq.topic", "a.b"), 403)
    speaker.close()


def refusals(server):
    for wrong in [
        "rubbish",
        token(EVERYTHING, secret=b"another secret"),
        token(EVERYTHING, aud=["others"]),
        token(EVERYTHING, exp=int(time.time()) - 1),
        token(EVERYTHING)[:-2],
    ]:
        assert is_refused(lambda: connect(server, wrong), 403), wrong
    for without in [token([]), token(["ferry.read:other/*"])]:
        assert is_refused(lambda: connect(server, without), 530), without


def renewals(server):
    connection = connect(server, token(["ferry.read:*/*"]))
    assert is_refused(lambda: declare(connection, "renewed"), 403)
    renew(connection, token(EVERYTHING))
    declare(connection, "renewed")
    publish(connection, "", "renewed")
    # A new token may also allow less. Then it also refuses what the old token allowed.
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("", "renewed", b"y")
    renew(connection, token(["ferry.configure:*/*"]))
    assert is_refused(lambda: channel.basic_publish("", "renewed", b"z"), 403)
    assert is_refused(lambda: renew(connection, token(EVERYTHING, sub="somebody else")), 530)
    for wrong in ["rubbish", token(EVERYTHING, exp=5)]:
        connection = connect(server, token(EVERYTHING))
        assert is_refused(lambda: renew(connection, wrong), 530)


def expiry(server):
    ends = int(time.time()) + 3
    connection = connect(server, token(EVERYTHING, exp=ends))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("expiry", exclusive=True)
    taken = []
    channel.basic_consume("expiry", lambda *message: taken.append(message[3]), auto_ack=True)
    channel.basic_publish("", "expiry", b"before")
    wait_until(lambda: taken and time.time() > ends + 0.1, connection)
    # The connection stays open, and everything is refused until the client sends a new token.
    assert is_refused(lambda: channel.basic_publish("", "expiry", b"after"), 403)
    assert is_refused(lambda: declare(connection, "after"), 403)
    renew(connection, token(EVERYTHING))
    declare(connection, "renewed")
    assert taken == [b"before"]
    connection.close()


with tempfile.TemporaryDirectory(prefix="ferrymq-") as folder:
    with Server(options(folder)) as server:
        scopes(server)
        refusals(server)
        renewals(server)
        expiry(server)
        # The server checks passwords first. A user with a password needs no token, and a new secret changes nothing for it.
        connection = connect(server, "guest", user="guest")
        renew(connection, "whatever")
        declare(connection, "guests")
        connection.close()
        assert is_refused(lambda: connect(server, "wrong", user="guest"), 403)
        # A token that names a user of the server has the permissions of the token.
        connection = connect(server, token(["ferry.read:*/*"], sub="guest"), user="guest")
        assert is_refused(lambda: declare(connection, "guests"), 403)
        connection.close()

    more = ["--oauth2-scope-prefix=", "--oauth2-additional-scopes-key=roles", "--oauth2-verify-aud=false"]
    with Server([*options(folder, "oauth2"), *more, "--oauth2-preferred-username-claims=mail,name"]) as server:
        connection = connect(server, token("configure:*/*", roles=["write:*/*"], aud=None, name="by name"))
        declare(connection, "prefix")
        publish(connection, "", "prefix", user_id="by name")
        connection.close()
        assert is_refused(lambda: connect(server, "guest", user="guest"), 403)
