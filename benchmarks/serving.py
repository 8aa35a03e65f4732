"""The server under load: as fast as ``birder predict``, no answer mixed up, memory flat, and told when it is too much.

python benchmarks/serving.py --out FOLDER [--photographs FOLDER …] [--model starter] [--clients 64] [--seconds 120]
    [--rate 2x] [--kind small] [--pictures 4000] [--rounds 1] [--options "--backend torch …"]

Makes pictures, once, as ``prediction.py`` does. ``birder predict`` names them and is measured; then so many clients ask
one server for them, each with one picture at a time over a connection that is kept (a closed loop), for so many
seconds; rounds of both take turns, on the same files, options and machine. At last pictures arrive on a steady schedule
at a rate of their own, such as twice what the server could do, whether answers come or not (an open loop). Every answer
is compared with the row that ``birder predict`` wrote for this picture: name, status, reason, classes and scores to the
last decimal. For Linux.

The clients are one process with bare sockets, which sends bytes made before and compares bytes; what it takes of the
processor, which the server could have had, is printed. The time of an answer counts from when the picture was due, so
that waiting is not left out. Ends with 1 if an answer was wrong or none came. FOLDER/serving.json has all figures.
"""

import argparse
import asyncio
import contextlib
import csv
import itertools
import json
import math
import os
import resource
import shlex
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from prediction import family, make_pictures

from birder.inference.results.layout import Layout
from birder.inference.rows import Row

WARM_UP_S = 3.0
PATIENCE_S = 90.0
"""For an answer, or for the server to be ready."""
MOST_CONNECTIONS = 4000
POLL_S = 1.0
"""Seconds between two looks at the memory."""
SHARES = (50, 95, 99)
"""Percents of the answers that were there by the times printed."""
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Seen:
    """What clients saw."""

    seconds: float = 0.0
    """How long pictures were sent."""
    waits: list[float] = field(default_factory=list)
    """Seconds until each right answer."""
    refusals: list[float] = field(default_factory=list)
    """Seconds until each 429."""
    statuses: Counter[str] = field(default_factory=Counter)
    """How many answers of each kind; ``lost`` where none came."""
    wrong: list[str] = field(default_factory=list)
    """What the wrong answers were."""
    late: float = 0.0
    """The most seconds that a picture was sent after it was due: the clients' own fault."""
    clients_cpu: float = 0.0
    """Seconds of a core that the clients took."""
    server_cpu: float = 0.0
    """Seconds of a core that the server and its readers took."""

    @property
    def speed(self) -> float:
        """Pictures answered in a second."""
        return len(self.waits) / self.seconds

    @property
    def clean(self) -> bool:
        """Whether all answers were right, or said that it is too much."""
        return not self.wrong and set(self.statuses) <= {"200", "429"}


class Pace(NamedTuple):
    """How fast ``birder predict`` was."""

    speed: float
    """Pictures in a second."""
    cpu: float
    """Seconds of a core for a picture."""


@dataclass(frozen=True)
class Picture:
    """A request, and what must be answered."""

    name: str
    request: bytes
    cells: list[str]
    """The row of ``birder predict``, without the path."""


def main() -> None:
    options = parse()
    folder = options.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["BIRDER_HOME"] = str(folder / "home")
    folders = make_pictures(folder, options.kind, (1, options.pictures), options.photographs)
    predict(options, folders, folder / "predicted.csv")  # not counted: files get into the cache, the gate chooses
    paces, closed = [], []
    with Server(options) as server:
        pictures = prepared(server, folders[options.pictures], folder / "predicted.csv")
        for _ in range(options.rounds):
            paces.append(predict(options, folders, folder / "predicted.csv"))
            closed.append(asyncio.run(closed_loop(server, pictures, options.clients, options.seconds)))
            print(described("closed loop", closed[-1]), flush=True)
        paces.append(predict(options, folders, folder / "predicted.csv"))
        rate = rate_of(options.rate, median(seen.speed for seen in closed))
        opened = asyncio.run(open_loop(server, pictures, rate, options.open_seconds))
        print(described(f"open loop of {rate:.0f} pictures/s", opened), flush=True)
    ratio = median(seen.speed for seen in closed) / median(pace.speed for pace in paces)
    heading = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {options.model}, {server.backend}"
    print(f"\n{heading}; {options.kind} pictures of {size_of(pictures):.0f} kB")
    speeds = ", ".join(f"{pace.speed:.1f}" for pace in paces)
    print(f"birder predict: {speeds} pictures/s, {1e3 * median(pace.cpu for pace in paces):.2f} ms of a core for each")
    print(f"birder serve, {options.clients} clients: {ratio:.1%} of it, by the medians")
    print(*server.memory_told(), sep="\n")
    report = {
        "predict": [pace._asdict() for pace in paces],
        "ratio": ratio,
        "backend": server.backend,
        "memory_mib": server.memory,
    }
    report |= {"closed": [figures(seen) for seen in closed], "open": figures(opened) | {"rate": rate}}
    (folder / "serving.json").write_text(json.dumps(report, indent=1))
    sys.exit(not all(seen.clean for seen in (*closed, opened)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, nargs="+", default=[])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120, help="of each closed loop")
    parser.add_argument("--open-seconds", type=float, default=60)
    parser.add_argument(
        "--rate", default="2x", help="pictures in a second of the open loop, or times what was measured"
    )
    parser.add_argument("--kind", choices=["small", "large"], default="small")
    parser.add_argument("--pictures", type=int, default=4000, help="for birder predict: half a minute or more of work")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--options", type=shlex.split, default=[], help="for birder predict and birder serve")
    return parser.parse_args()


def rate_of(text: str, measured: float) -> float:
    return float(text.removesuffix("x")) * (measured if text.endswith("x") else 1)


# birder predict.


def predict(options: argparse.Namespace, folders: dict[int, Path], output: Path) -> Pace:
    """Name all pictures. Start and end, which is what one picture takes, do not count."""
    took = {}
    for count, folder in sorted(folders.items()):
        words = [str(folder), "--output", str(output), "--restart", *options.options]
        began, cpu = time.perf_counter(), cpu_of_ended()
        ended = subprocess.run([*birder("predict"), options.model, *words], capture_output=True, text=True)
        took[count] = (time.perf_counter() - began, cpu_of_ended() - cpu)
        if ended.returncode:
            sys.exit(f"birder predict ended with {ended.returncode}\n{ended.stderr[-2000:]}")
    one, every = sorted(took)
    seconds, cpu = (longer - shorter for shorter, longer in zip(took[one], took[every], strict=True))
    return Pace((every - one) / seconds, cpu / (every - one))


def cpu_of_ended() -> float:
    """Seconds of a core of all processes that have ended by now."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def birder(command: str) -> list[str]:
    return [sys.executable, "-m", "birder", command]


# The server.


class Server:
    """``birder serve`` with its memory and its time of the processor."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Start it and wait until it is ready."""
        command = [*birder("serve"), options.model, "--port", "0", *options.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            sys.exit(f"birder serve ended with {self.process.wait()}")
        parts = urlsplit(self.address)
        self.host, self.port = parts.hostname or "", parts.port or 0
        self.token = parts.fragment.removeprefix("token=")
        self.model = self._model()
        self.backend = str(self.model["backend"])
        self.memory: list[float] = []
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Server":
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()
        self.process.terminate()
        self.process.wait()

    def cpu(self) -> float:
        """Seconds of all its processes so far, those that ended included."""
        seconds = 0.0
        for pid in family(self.process.pid):
            with contextlib.suppress(OSError):  # it has just ended
                seconds += sum(map(int, _status(pid)[11:15])) / TICK
        return seconds

    def memory_told(self) -> Iterator[str]:
        """The first minute and the last."""
        minute = int(60 / POLL_S)
        for name, values in (("first", self.memory[:minute]), ("last", self.memory[-minute:])):
            yield f"memory, {name} minute: {min(values):.0f} to {max(values):.0f} MiB, median {median(values):.0f}"

    def _look(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE") / 2**20
        while True:
            found = 0.0
            for pid in family(self.process.pid):
                with contextlib.suppress(OSError):
                    found += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
            self.memory.append(found)
            if self._ended.wait(POLL_S):
                return

    def _model(self) -> dict[str, Any]:
        request = Request(f"http://{self.host}:{self.port}/v1/models")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with urlopen(request, timeout=PATIENCE_S) as answer:
            models = json.load(answer)["models"]
        return dict(next(model for model in models if model["default"]))


def _status(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def prepared(server: Server, folder: Path, output: Path) -> list[Picture]:
    """A request for each picture, all of its bytes, and the row that it must get."""
    with open(output, newline="", encoding="utf-8") as file:
        rows = {Path(cells[0]).name: cells[1:] for cells in itertools.islice(csv.reader(file), 1, None)}
    token = f"authorization: Bearer {server.token}\r\n" if server.token else ""
    pictures = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        query = urlencode({"name": path.name})
        head = (
            f"POST /v1/predict?{query} HTTP/1.1\r\nhost: {server.host}:{server.port}\r\n{token}"
            f"content-type: image/jpeg\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        pictures.append(Picture(path.name, head.encode() + content, rows[path.name]))
    return pictures


# The clients.


class Connection(asyncio.Protocol):
    """A connection that is kept from answer to answer."""

    def __init__(self) -> None:
        """Not connected yet."""
        self.transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._whole = 0  # bytes of the answer, once its head is there
        self._answer: asyncio.Future[tuple[str, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Requests may be sent."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Who waits waits in vain."""
        self.transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the server hung up"))

    def data_received(self, data: bytes) -> None:
        """Look whether the answer is whole."""
        self._received += data
        if not self._whole:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end]).lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._whole = end + 4 + int(length)
        if len(self._received) >= self._whole and self._answer is not None and not self._answer.done():
            status = self._received[9:12].decode()
            head, _, body = bytes(self._received[: self._whole]).partition(b"\r\n\r\n")
            del self._received[: self._whole]
            self._whole = 0
            if b"connection: close" in head.lower() and self.transport is not None:
                self.transport.close()
                self.transport = None
            self._answer.set_result((status, body))

    async def ask(self, request: bytes) -> tuple[str, bytes]:
        """Status and body of the answer."""
        if self.transport is None:
            raise ConnectionResetError("the server hung up")
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await asyncio.wait_for(self._answer, PATIENCE_S)


class Clients:
    """Who ask for pictures, one after the other, and look whether each answer is that of the picture."""

    def __init__(self, server: Server, pictures: Sequence[Picture]) -> None:
        """Whom they ask for what, one picture after the other, from the first again after the last."""
        self.server = server
        self.seen = Seen()
        self._pictures = itertools.cycle(pictures)
        self._right: dict[str, bytes] = {}  # answers that were compared in full
        self._free: deque[Connection] = deque()
        self._open = 0

    async def connection(self) -> Connection:
        """One that is not in use."""
        while self._free:
            connection = self._free.pop()
            if connection.transport is not None:
                return connection
            self._open -= 1
        if self._open >= MOST_CONNECTIONS:
            raise ConnectionError("too many connections")
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, self.server.host, self.server.port
        )
        self._open += 1
        return connection

    async def one(self, due: float) -> bool:
        """Send a picture and note what is answered; whether it was taken."""
        picture = next(self._pictures)
        try:
            connection = await self.connection()
            status, body = await connection.ask(picture.request)
        except (OSError, TimeoutError, ValueError) as error:
            self.seen.statuses["lost"] += 1
            self.seen.wrong.append(f"{picture.name}: {error!r}")
            return False
        self._free.append(connection)
        took = time.perf_counter() - due
        self.seen.statuses[status] += 1
        if status == "200" and self._is_right(picture, body):
            self.seen.waits.append(took)
        elif status == "429":
            self.seen.refusals.append(took)
        else:
            self.seen.wrong.append(f"{picture.name}: {status} {body[:500]!r}")
        return status == "200"

    def _is_right(self, picture: Picture, body: bytes) -> bool:
        known = self._right.get(picture.name)
        if known is not None and known == body:
            return True
        (told,) = json.loads(body)["rows"]
        answers = told["answers"]
        row = Row(
            path=told["name"],
            status=told["status"],
            reason=told["reason"],
            labels=tuple(answer["label"] for answer in answers),
            scores=tuple(answer["score"] for answer in answers),
            novelty=told["novelty"],
            taken=told["taken"],
        )
        cells = Layout(top=5, novelty=self.server.model["novelty"]).cells(row)
        if cells != [picture.name, *picture.cells]:
            return False
        self._right[picture.name] = body
        return True


async def closed_loop(server: Server, pictures: Sequence[Picture], count: int, seconds: float) -> Seen:
    """Clients that each ask for the next picture when they have the answer to the last."""
    clients = Clients(server, pictures)

    async def ask_until(end: float) -> None:
        while (now := time.perf_counter()) < end:
            if not await clients.one(now):
                await asyncio.sleep(0.1)

    async def everyone(seconds: float) -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(ask_until(end) for _ in range(count)))

    await everyone(min(WARM_UP_S, seconds))
    clients.seen = Seen()
    with measured(clients.seen, server):
        await everyone(seconds)
    return clients.seen


async def open_loop(server: Server, pictures: Sequence[Picture], rate: float, seconds: float) -> Seen:
    """Pictures that arrive one after the other at equal times."""
    clients = Clients(server, pictures)
    asked = set()
    with measured(clients.seen, server):
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            elif number % 16 == 0:
                await asyncio.sleep(0)  # the answers must be heard even when this is late
            clients.seen.late = max(clients.seen.late, time.perf_counter() - due)
            task = asyncio.create_task(clients.one(due))
            asked.add(task)
            task.add_done_callback(asked.discard)
        await asyncio.gather(*asked)
    return clients.seen


@contextlib.contextmanager
def measured(seen: Seen, server: Server) -> Iterator[None]:
    began, clients, served = time.perf_counter(), time.process_time(), server.cpu()
    yield
    seen.seconds = time.perf_counter() - began
    seen.clients_cpu, seen.server_cpu = time.process_time() - clients, server.cpu() - served


# What is printed.


def described(name: str, seen: Seen) -> str:
    lines = [f"\n{name}: {seen.speed:.1f} pictures/s in {seen.seconds:.0f} s"]
    lines += [f"  {kind}: {latencies(waits)}" for kind, waits in (("200", seen.waits), ("429", seen.refusals)) if waits]
    statuses = ", ".join(f"{count} of {status}" for status, count in sorted(seen.statuses.items()))
    lines += [f"  {statuses}; wrong or lost: {len(seen.wrong)}"]
    each = sum(seen.statuses.values()) or 1
    cores = (
        f"{seen.server_cpu / seen.seconds:.2f} cores for the server, {seen.clients_cpu / seen.seconds:.2f} for clients"
    )
    lines += [
        f"  {cores}: {1e3 * seen.server_cpu / each:.2f} and {1e3 * seen.clients_cpu / each:.2f} ms for each request"
    ]
    if seen.late:
        lines += [f"  the schedule was kept to within {1e3 * seen.late:.0f} ms"]
    lines += [f"  wrong: {words}" for words in seen.wrong[:5]]
    return "\n".join(lines)


def latencies(waits: Sequence[float]) -> str:
    return ", ".join(f"p{share} {1e3 * percentile(waits, share):.0f} ms" for share in SHARES)


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so many percent do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share / 100) - 1)]


def figures(seen: Seen) -> dict[str, Any]:
    """For the file: figures in place of single waits."""
    found: dict[str, Any] = {"speed": seen.speed}
    for name, value in vars(seen).items():
        if name in ("waits", "refusals"):
            found[name] = {f"p{share}": percentile(value, share) for share in SHARES} if value else {}
        else:
            found[name] = value
    return found


def size_of(pictures: Sequence[Picture]) -> float:
    """Kilobytes of a request, in the mean."""
    return sum(len(picture.request) for picture in pictures) / len(pictures) / 1e3


if __name__ == "__main__":
    main()
