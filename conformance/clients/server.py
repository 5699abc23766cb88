"""Starts, kills and restarts the server that a client program talks to.

FERRYMQ_BIN names a binary, which each program starts for itself on a free port with an empty data directory.
FERRYMQ_AT=HOST:PORT names a running server instead; a program that must kill its server, or wants it to speak TLS, then
ends as skipped. FERRYMQ_CERTIFICATES names the folder with certificates for TLS.
"""

import faulthandler
import os
import signal
import subprocess
import sys
import tempfile

# The exit code of a program that cannot run here.
SKIPPED = 77

# A program that still waits after this is stuck. It prints where, and fails; none comes near it when all is well.
faulthandler.dump_traceback_later(150, exit=True)


def certificate(name):
    """The path of one of the files that conformance/runner/src/certificates.rs lists."""
    return os.path.join(os.environ["FERRYMQ_CERTIFICATES"], name)


class Server:
    """A server for the length of a `with` block, reachable at `host` and `port`, and under TLS at `tls_port` if wanted;
    a binary is started with `options`, with `environment` beside its own, `prepare` called before
    it is run, and its data on `disk` instead of in a folder of its own."""

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
                sys.exit("say which server: FERRYMQ_BIN=PATH or FERRYMQ_AT=HOST:PORT")
            self.host, port = address.rsplit(":", 1)
            self.port = int(port)
            if self.tls:
                print("skipped: this program talks to a server under TLS that it has started itself")
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
        """Starts the binary and returns when it is ready. After the first time it takes the same port again."""
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
        """The data directory of a binary."""
        return os.path.join(self.disk or self.folder.name, "data")

    def memory_mib(self):
        """What a binary has in memory."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) >> 10 for line in status if line.startswith("VmRSS"))

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

    def log(self):
        """What a binary has written to standard error."""
        with open(os.path.join(self.folder.name, "log"), errors="replace") as log:
            return log.read()

    def wait(self):
        """Waits until the server has ended by itself; gives its exit code."""
        code = self.process.wait()
        self.process.stdout.close()
        return code

    def kill(self):
        """Ends the server as a power cut would, as far as a process can: SIGKILL."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        """Asks the server to end in good order; gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()

    def must_be_ours_to_kill(self):
        if self.binary is None:
            print("skipped: this program kills its server, and FERRYMQ_AT names one that is not ours to kill")
            sys.exit(SKIPPED)

    @property
    def url(self):
        return f"amqp://guest:guest@{self.host}:{self.port}/%2F"
