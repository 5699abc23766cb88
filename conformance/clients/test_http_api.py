"""The scripts of conformance/http against this server: its answers are RabbitMQ's but for the differences that are named there."""

import os
import subprocess
import sys

from server import Server, watch

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "http")

# Nothing that the scripts wait for takes longer. What comes with statistics is not built, and is waited for in vain.
WAIT_SECONDS = "0.5"


def scripts():
    return sorted(name.removesuffix(".script") for name in os.listdir(FOLDER) if name.endswith(".script"))


def main():
    with Server(["--listen", "http=127.0.0.1:0"]) as server:
        http, amqp = f"127.0.0.1:{server.http_port}", f"{server.host}:{server.port}"
        play = [sys.executable, os.path.join(FOLDER, "play.py"), "--http", http, "--amqp", amqp, "--wait", WAIT_SECONDS]
        for script in scripts():
            watch()
            subprocess.run([*play, script], check=True)
    print("all scripts give what is recorded")


main()
