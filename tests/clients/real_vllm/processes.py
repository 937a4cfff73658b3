"""The programs of the test: real vLLM engines, and gateways in front of them."""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

MODEL = "DeepSeek-R1"


GIVEN = set()


def free_port():
    """A port that nobody has, and that nobody else was given. Below those of outgoing connections: an engine takes
    half a minute before it binds."""
    while True:
        port = random.randrange(20000, 30000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in GIVEN:
                GIVEN.add(port)
                return port


def get(url):
    """Status and body, also of errors."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(what, seconds, holds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if holds():
                return
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")


class Process:
    """A program in a session of its own, ended with all that it started."""

    def __init__(self, name, command, directory, **environment):
        self.log = directory / f"{name}.log"
        self.log.unlink(missing_ok=True)
        self.command, self.environment = command, environment
        self.start()

    def start(self):
        with self.log.open("a") as log:
            self.child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def restart(self):
        """Anew, at the same port."""
        self.kill()
        self.start()

    def is_alive(self):
        return self.child.poll() is None


class Engine(Process):
    def __init__(self, directory):
        self.port = free_port()
        command = [
            str(directory / "venv/bin/vllm"), "serve", str(directory / "model"),
            "--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", MODEL,
            "--max-model-len", "8192", "--dtype", "float32", "--enforce-eager", "--enable-request-id-headers",
        ]  # fmt: skip
        super().__init__(
            f"engine-{self.port}",
            command,
            directory,
            VLLM_CPU_KVCACHE_SPACE="1",
            VLLM_CPU_OMP_THREADS_BIND="nobind",
            OMP_NUM_THREADS="1",
            VLLM_CACHE_ROOT=str(directory / "cache"),
            VLLM_ENABLE_RESPONSES_API_STORE="1",
        )

    def url(self, path=""):
        return f"http://127.0.0.1:{self.port}{path}"

    def part(self, called):
        """A process behind the one that answers: VLLM::EngineCore, which schedules, or VLLM::Worker, which computes."""
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # After the name, which may have blanks: state, parent, group, session.
                name, _, rest = path.read_text().partition("(")[2].rpartition(")")
                # The system keeps 15 letters of it.
                if name == called[:15] and int(rest.split()[3]) == self.child.pid:
                    return int(path.parent.name)
        raise AssertionError(f"{self.port} has no {called}")

    def is_healthy(self):
        assert self.is_alive(), self.log.read_text()[-3000:]
        return get(self.url("/health"))[0] == 200

    def running(self):
        """Requests it works at, by its own count."""
        _, text = get(self.url("/metrics"))
        lines = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class Gateway(Process):
    def __init__(self, program, engines, directory, name, pool="", rest=""):
        """`pool`: more of its keys; `rest`: more of the configuration's."""
        self.port, self.admin_port = free_port(), free_port()
        self.access_log = directory / f"{name}-access.log"
        self.program, self.file = program, directory / f"{name}.yaml"
        # Orders are taken at the socket without a key.
        admin = f"[127.0.0.1:{self.admin_port}, unix:{directory / f'{name}.sock'}]"
        self.file.write_text(
            f"listen: 127.0.0.1:{self.port}\nadmin: {admin}\n"
            f"pid_file: null\naccess_log: {{ path: {self.access_log} }}\n"
            f"pools:\n  default:\n    endpoints: [{', '.join(f'127.0.0.1:{engine.port}' for engine in engines)}]\n"
            f"{pool}{rest}"
        )
        self.access_log.unlink(missing_ok=True)
        super().__init__(name, [program, "-c", str(self.file)], directory)

    def url(self, path=""):
        return f"http://127.0.0.1:{self.port}{path}"

    def is_ready(self):
        assert self.is_alive(), self.log.read_text()[-3000:]
        return get(self.url("/ready"))[0] == 200

    def endpoints(self):
        return json.loads(get(f"http://127.0.0.1:{self.admin_port}/endpoints")[1])

    def in_flight(self):
        return sum(endpoint["in_flight"] for endpoint in self.endpoints())

    def logged(self, request_id):
        """The line of its access log about one request."""

        def found():
            lines = self.access_log.read_text().splitlines() if self.access_log.exists() else []
            return [line for line in map(json.loads, lines) if line["request_id"] == request_id]

        until(f"{request_id} in {self.access_log}", 5, found)
        return found()[0]
