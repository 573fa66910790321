# What every measurement needs: settings, processes that end with the run, waiting, CPU time, tables.
import datetime
import http.client
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ROUNDS = int(os.environ.get("ROUNDS", "7"))
SECONDS = int(os.environ.get("SECONDS", "2"))
BASE = int(os.environ.get("BENCH_PORT_BASE", "28100"))
READY_PATH = "/latchkey/ready"


def say(text):
    """Prints progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def fail(text):
    sys.exit(f"bench: {text}")


def cores():
    """One core for the measured process, one for everything else; the same one if the machine has only one."""
    own = sorted(os.sched_getaffinity(0))
    return own[0], own[-1]


def wait_until(what, condition, seconds=30, pause=0.05):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            fail(f"{what} did not happen within {seconds} s")
        time.sleep(pause)


def command(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()


class Bench:
    """The folder and the processes of one measurement, which are gone at its end."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="latchkey-bench-"))
        self.processes = []
        self.ports = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def port(self):
        """The next port that is not in use."""
        while True:
            self.ports += 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", BASE + self.ports - 1))
                    return BASE + self.ports - 1
                except OSError:
                    continue

    def run(self, name, words, core, stdin=subprocess.DEVNULL, stdout=None, **environment):
        log = open(self.folder / f"{name}.log", "ab")
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=stdin,
            stdout=stdout or log,
            stderr=log if stdout is None else None,
            env={**os.environ, **environment},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        self.processes.append(process)
        return process

    def end(self, process):
        """Ends a process before the measurement does."""
        process.terminate()
        process.wait(timeout=30)
        self.processes.remove(process)

    def interrupt(self, process):
        """Ends a process as Ctrl-C does."""
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        self.processes.remove(process)

    def envoy(self, name, config, core, concurrency=1, options=(), **environment):
        path = self.folder / f"{name}.yaml"
        path.write_text(config)
        words = [ROOT / ".tools/bin/envoy", "--config-path", path, "--concurrency", concurrency]
        words += ["--disable-hot-restart", "--log-level", "warning", "--service-node", "bench", "--service-cluster", "bench"]
        words += options
        return self.run(name, words, core, **environment)


class ControlPlane:
    """`latchkey serve` with its own database or a given one, and its REST."""

    def __init__(self, bench, name, core, database=None, settings="", log="", tokens=None):
        self.bench, self.name, self.core, self.port = bench, name, core, bench.port()
        # No log line for each request, because that would be measured, too.
        self.log = ",".join(["info", "latchkey::api=warn", *([log] if log else [])])
        self.database = database or bench.folder / f"{name}.db"
        self.settings = bench.folder / f"{name}.toml"
        self.settings.write_text(settings)
        self.tokens = tokens or [bench.folder / f"{name}-{kind}-token" for kind in ("admin", "edge")]
        self.start()

    def start(self):
        admin, edge = self.tokens
        words = [ROOT / "dist/latchkey", "serve", f"--listen=127.0.0.1:{self.port}", f"--database={self.database}"]
        words += [f"--admin-token-file={admin}", f"--edge-token-file={edge}", f"--config={self.settings}"]
        self.process = self.bench.run(self.name, words, self.core, LATCHKEY_LOG=self.log)
        wait_until(f"the start of {self.name}", lambda: self.process.poll() is not None or answers(self.port, "/healthz") == 200)
        if self.process.poll() is not None:
            fail(f"{self.name} did not start: {(self.bench.folder / f'{self.name}.log').read_text()}")
        self.admin_token, self.edge_token = (path.read_text().strip() for path in self.tokens)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def stop(self):
        self.connection.close()
        self.bench.end(self.process)

    def post(self, path, body=None):
        headers = {"authorization": f"Bearer {self.admin_token}", "content-type": "application/json"}
        return self.call("POST", path, headers, json.dumps(body or {}))

    def call(self, method, path, headers, body=None):
        # The last connection may have been idle for longer than the control plane keeps it.
        self.connection.close()
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 201, 204):
            fail(f"{method} {path} was answered {answer.status}: {text.decode()}")
        return json.loads(text) if text else None

    def get(self, path):
        headers = {"authorization": f"Bearer {self.admin_token}"}
        return self.call("GET", path, headers)

    def retire(self, instance):
        self.call("DELETE", f"/edge/v1/instances/{instance}", {"authorization": f"Bearer {self.edge_token}"})

    def rss(self):
        return memory(self.process, "VmRSS")

    def logged(self, pattern):
        """The last match in its log."""
        found = re.findall(pattern, (self.bench.folder / f"{self.name}.log").read_text())
        return found[-1] if found else None


def answers(port, path, **headers):
    """The status of a GET; 0 without an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def worker_of(process):
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        if (task / "comm").read_text().startswith("wrk:worker_0"):
            return task
    fail("Envoy has no worker thread")


def cpu_ns(task):
    return int((task / "schedstat").read_text().split()[0])


def process_cpu_ns(process):
    """CPU time of all threads that have not ended."""
    return sum(cpu_ns(task) for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir())


def memory(process, field):
    """Bytes, from the process's status: VmRSS now, VmHWM at the peak so far."""
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", text).group(1)) * 1024


def wrk(port, core, **load):
    """Sends keep-alive load, as fast as it is answered. Returns the output of wrk."""
    return printed(wrk_begun(port, core, **load))


def printed(run):
    """The output of a load, once it has ended."""
    text, _ = run.communicate()
    if run.returncode:
        fail(f"wrk ended with {run.returncode}: {text}")
    return text


def wrk_begun(port, core, *, path="/v1/plain", connections=8, seconds=SECONDS, headers=(), script=None, arguments=()):
    """Starts such a load, and returns its process."""
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    for header in headers:
        words += ["-H", header]
    if script:
        words += ["-s", ROOT / "tests/bench" / script]
    words += [f"http://127.0.0.1:{port}{path}"]
    if arguments:
        words += ["--", *arguments]
    pinned = lambda: os.sched_setaffinity(0, {core})
    return subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=pinned)


def requests_in(text):
    """How many requests wrk made; all of them must have been answered 2xx."""
    if "Non-2xx" in text:
        fail(f"not every request was answered 2xx:\n{text}")
    return int(re.search(r"(\d+) requests in", text).group(1))


def cost_us(worker, port, core, **load):
    """CPU of the worker for one request, in microseconds."""
    before = cpu_ns(worker)
    requests = requests_in(wrk(port, core, **load))
    return (cpu_ns(worker) - before) / requests / 1000


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def budget(what, limit, seen, unit=""):
    word = "met" if seen <= limit else "missed"
    return f"- budget: {what} at most {limit:g}{unit}; measured {seen:.3g}{unit}: {word}"


def percentile(values, share):
    """The smallest value that `share` percent of all don't exceed."""
    return sorted(values)[max(0, -(-len(values) * share // 100) - 1)]


median = statistics.median


def commit():
    return command("git", "rev-parse", "--short", "HEAD") + ("+" if command("git", "status", "--porcelain") else "")


def machine():
    """Where and with what it was measured, in one line."""
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    envoy = command(".tools/bin/envoy", "--version").split("version:")[-1].strip()
    name = cpu.group(1) if cpu else platform.processor()
    return f"Envoy {envoy}; {name}, {os.cpu_count()} cores"


def heading():
    return f"{datetime.date.today().isoformat()}, {commit()}"


def at_most(seconds):
    """Ends the run when a measurement hangs."""

    def over(*_):
        fail(f"a measurement took more than {seconds} s")

    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
