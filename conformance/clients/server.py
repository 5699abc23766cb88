"""Starts, kills and restarts the server that a client program talks to.

FERRYMQ_BIN names a binary. Each program starts it on a free port with an empty data directory.
FERRYMQ_AT=HOST:PORT names a running server instead. Then programs that must kill their server or that need TLS are
skipped. FERRYMQ_CERTIFICATES names the folder with certificates for TLS.
"""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request

# The exit code of a program that cannot run here.
SKIPPED = 77


def watch():
    """Starts the watchdog again. A program that still waits after this time is stuck: it prints where it waits, and fails. A
    program that passes needs much less time."""
    faulthandler.dump_traceback_later(150, exit=True)


watch()


def certificate(name):
    """The path of a file from the list in conformance/runner/src/certificates.rs."""
    return os.path.join(os.environ["FERRYMQ_CERTIFICATES"], name)


class Server:
    """A server for the length of a `with` block. Its address is `host` and `port`, with TLS `tls_port` if the caller asks
    for it. The binary is started with `options` and with the additional variables `environment`. `prepare` is
    called before the start. If `disk` is given, the data is there and not in a temporary folder."""

    def __init__(self, options=(), tls=False, environment=None, prepare=None, disk=None):
        self.options = options
        self.environment = environment or {}
        self.prepare = prepare
        self.disk = disk
        self.tls = tls
        self.tls_port = 0
        self.http_port = 0
        self.binary = os.environ.get("FERRYMQ_BIN")
        self.process = None
        self.folder = None
        self.host, self.port = "127.0.0.1", 0

    def __enter__(self):
        if self.binary is None:
            address = os.environ.get("FERRYMQ_AT")
            if address is None:
                sys.exit("set FERRYMQ_BIN=PATH or FERRYMQ_AT=HOST:PORT")
            self.host, port = address.rsplit(":", 1)
            self.port = int(port)
            if self.tls:
                print("skipped: this program must start its server itself, because it needs TLS")
                sys.exit(SKIPPED)
        else:
            self.folder = tempfile.TemporaryDirectory(prefix="ferrymq-")
            self.start()
        return self

    def __exit__(self, kind, problem, trace):
        if self.process is None:
            return
        self.kill()
        if problem is not None:
            with open(os.path.join(self.folder.name, "log"), errors="replace") as log:
                sys.stderr.write(f"--- the server's log\n{log.read()}---\n")
        self.folder.cleanup()

    def start(self):
        """Starts the binary and returns when it is ready. A later start uses the same port again."""
        with open(os.path.join(self.folder.name, "log"), "ab") as log:
            self.process = subprocess.Popen(
                [
                    self.binary,
                    "serve",
                    "--data-dir",
                    self.data,
                    "--listen",
                    f"amqp=127.0.0.1:{self.port}",
                    *self.options,
                    *self.tls_options(),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environment},
                preexec_fn=self.prepare,
            )
        for line in self.process.stdout:
            words = line.split()
            if words[:2] == ["listening", "amqp"]:
                self.port = int(words[2].rsplit(":", 1)[1])
            elif words[:2] == ["listening", "amqps"]:
                self.tls_port = int(words[2].rsplit(":", 1)[1])
            elif words[:2] == ["listening", "http"]:
                self.http_port = int(words[2].rsplit(":", 1)[1])
            elif words == ["ready"]:
                return
        raise AssertionError(f"the server ended with {self.process.wait()} before it was ready")

    @property
    def data(self):
        """The data directory of the server."""
        return os.path.join(self.disk or self.folder.name, "data")

    def memory_mib(self, kind="VmRSS"):
        """The server's memory in MiB: all of it (VmRSS), or the anonymous part (RssAnon)."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) >> 10 for line in status if line.startswith(kind))

    def tls_options(self):
        if not self.tls:
            return []
        return [
            f"--listen=amqps=127.0.0.1:{self.tls_port}",
            f"--tls-certificate-file={certificate('server_certificate.pem')}",
            f"--tls-key-file={certificate('server_key.pem')}",
            f"--tls-client-ca-file={certificate('ca_certificate.pem')}",
            "--tls-client-certificates=optional",
        ]

    def readiness(self):
        """What /health/ready says; the server must have an HTTP listener."""
        with urllib.request.urlopen(f"http://{self.host}:{self.http_port}/health/ready") as answer:
            return json.load(answer)

    def log(self):
        """The text that the server has written to standard error."""
        with open(os.path.join(self.folder.name, "log"), errors="replace") as log:
            return log.read()

    def wait(self):
        """Waits until the server has ended by itself. Returns its exit code."""
        code = self.process.wait()
        self.process.stdout.close()
        return code

    def kill(self):
        """Kills the server with SIGKILL."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        """Asks the server to stop. Returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()

    def must_be_ours_to_kill(self):
        if self.binary is None:
            print("skipped: this program kills its server, and the server at FERRYMQ_AT must not be killed")
            sys.exit(SKIPPED)

    @property
    def url(self):
        return f"amqp://guest:guest@{self.host}:{self.port}/%2F"
