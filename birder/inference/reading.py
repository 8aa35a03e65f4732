"""Files to pixels, by processes that read ahead while the network computes.

A picture is decoded in a process of its own kind (see ``reader``): a plain program that starts in a tenth of a second,
knows nothing of the script that uses it, and may crash or hang. The file that it was at is then tried once more in a
fresh process, because it may have been another's fault (memory ran out, the machine was asleep), and if that ends too,
the file is a row with a reason. All others are read as if nothing had happened.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import IO, NamedTuple, TypeAlias

from PIL import Image

from birder.data.fitting import Fit
from birder.errors import ConfigError, DataError
from birder.inference.reader import READY, Read, Request, read, receive

MEMORY = 4 << 30
"""Bytes that a process may take: enough for what Pillow's limit on pixels lets pass."""

_IN_HAND = 2  # files that a process is given: the one it reads, and one to go on with until it is heard
_LONGEST = 1 << 14  # bytes of a line, which any pipe takes while nobody reads; so long a path is none
_AHEAD_FILES = 16  # for each process
_AHEAD_BATCHES = 3  # at least: one goes to the network, one is ready, one is being read
_AHEAD_BYTES = 256 << 20
_PIPE = 1 << 20  # bytes: room for some pictures, so that a process goes on while nobody takes them
_STARTS = 3  # without success, one after the other, until it is given up
_AGAIN_S = 5.0  # until it is tried again, by those who have others that go on
_GLANCE_S = 0.2
_CLOSED = "these readers were closed"
_SOON = 10  # seconds for processes to end that were killed


class _Task(NamedTuple):
    request: Request
    line: bytes
    """The request as it is sent."""
    result: "Future[Read]"


_Tasks: TypeAlias = "SimpleQueue[_Task | None]"


class Readers:
    """Processes that read pictures, started at once and kept until they are closed.

    Several threads may use them, each with an iteration of its own. What is not closed ends with the last reference to
    it, and with the main process, however that ends.

        with Readers(2) as readers:
            for reads in readers.read(batches, fit):
                ...
    """

    def __init__(self, workers: int, *, timeout: float = 30.0) -> None:
        """Start them.

        Args:
            workers: How many; 0 reads in this process, where a decoder that crashes or hangs is not survived.
            timeout: Seconds for one picture; not on Windows.

        Raises:
            ConfigError: A number that makes no sense, or a program that has no Python to start processes with.
        """
        if workers < 0 or not 0 < timeout < 1e6:
            raise ConfigError(f"workers must be 0 or more and timeout above 0, not {workers} and {timeout}")
        if workers and (not sys.executable or getattr(sys, "frozen", False)):
            raise ConfigError("this program cannot start processes of Python's: use workers=0")
        self._tasks: _Tasks = SimpleQueue()
        self._lanes: list[_Lane] = []
        self._lanes += (_Lane(self._tasks, self._lanes, timeout) for _ in range(workers))
        self._end = weakref.finalize(self, _end, self._tasks, self._lanes)
        for lane in self._lanes:
            lane.thread.start()

    def __enter__(self) -> "Readers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they are at."""
        self._end()

    @property
    def working(self) -> bool:
        """Whether pictures can be read: not closed, and not all processes are such that they do not start."""
        return self._end.alive and not (self._lanes and all(lane.failed for lane in self._lanes))

    def read(
        self, batches: Iterable[list[str]], fit: Fit, *, exact: bool = False, truncated: bool = False
    ) -> Iterator[list[Read]]:
        """Read files, batch by batch, in their order.

        ``batches`` is taken in the thread that takes the results, as far ahead as it needs to keep the processes busy:
        some 16 files for each, at least three batches. It may be endless; while it waits, so do the results.

        Args:
            batches: Lists of paths. Relative ones start from the folder that is the current one when they are taken.
            fit: What to make of each picture.
            exact: Decode every pixel of large JPEGs; otherwise at a reduced scale where that is nearly twice the size.
            truncated: Take what is there of files that were cut off, with a reason beside the pixels.

        Raises:
            DataError: The processes do not start, or were closed.
        """
        if not self._end.alive:
            raise DataError(_CLOSED)
        jobs = ([Request(path, fit, exact, truncated) for path in batch] for batch in batches)
        return self._read_ahead(jobs, fit) if self._lanes else ([_read_here(job) for job in batch] for batch in jobs)

    def submit(self, request: Request) -> "Future[Read]":
        """Ask for one picture, whose content may be given; where there are no processes it is read at once.

        Raises:
            DataError: The processes were closed; or, of the result, do not start.
        """
        if self._lanes:
            return self._ask(request)
        result: Future[Read] = Future()
        result.set_result(_read_here(request))
        return result

    def _read_ahead(self, batches: Iterator[list[Request]], fit: Fit) -> Iterator[list[Read]]:
        files = min(_AHEAD_FILES * len(self._lanes), _AHEAD_BYTES // (3 * fit.size[0] * fit.size[1]))
        ahead: deque[list[Future[Read]]] = deque()
        waiting = True
        try:
            while True:
                while waiting and (len(ahead) < _AHEAD_BATCHES or sum(map(len, ahead)) < files):
                    batch = next(batches, None)
                    waiting = batch is not None
                    if batch is not None:
                        ahead.append([self._ask(request) for request in batch])
                if not ahead:
                    return
                reads = [result.result() for result in ahead[0]]
                ahead.popleft()
                yield reads
        finally:
            for results in ahead:
                for result in results:
                    result.cancel()

    def _ask(self, request: Request) -> "Future[Read]":
        path = request.path if request.content is not None else _absolute(request.path)
        line = request._replace(path=path).encoded()
        task = _Task(request, line, Future())
        if len(line) > _LONGEST:
            task.result.set_result(_read_here(request))
            return task.result
        self._tasks.put(task)
        if not self._end.alive:  # closed by another thread, and nobody may be there to take it
            raise DataError(_CLOSED)
        return task.result


class _Lane:
    """A thread that looks after one process, and after the next if that one dies."""

    def __init__(self, tasks: _Tasks, lanes: "list[_Lane]", timeout: float) -> None:
        self.thread = threading.Thread(target=self._run, name="birder-reader", daemon=True)
        self._tasks, self._lanes, self._timeout = tasks, lanes, timeout
        self._hand: deque[_Task] = deque()  # asked for and not answered yet; the process is at the first
        self._sent = 0  # of these
        self._suspect: _Task | None = None  # a process has died at it
        self._process: subprocess.Popen[bytes] | None = None
        self.failed = False
        self._closed = threading.Event()
        self._starting = threading.RLock()  # a process is either not started, or there to be killed

    def close(self) -> None:
        """Kill the process; the thread notices, and ends."""
        with self._starting:
            self._closed.set()
            process = self._process
            if process is not None:
                process.kill()

    def _run(self) -> None:
        while not self._closed.is_set():
            error: BaseException = DataError(_CLOSED)
            try:
                self._work()
            except BaseException as unforeseen:  # a thread that just ended would be waited for in vain
                error = unforeseen
                self.failed = True
            self._stop()
            while self._hand:
                self._hand.popleft().result.set_exception(error)
            if not self.failed:
                return
            self._rest(error)

    def _rest(self, error: BaseException) -> None:
        """Wait before another try. As long as no process works, tasks are refused, and not left to wait."""
        again = time.monotonic() + _AGAIN_S
        while not self._closed.is_set() and time.monotonic() < again:
            if not all(lane.failed for lane in self._lanes):
                self._closed.wait(_GLANCE_S)
                continue
            with contextlib.suppress(Empty):
                task = self._tasks.get(timeout=_GLANCE_S)
                if task is None:
                    return
                _refuse(task, error)

    def _work(self) -> None:
        process = self._start()
        self.failed, self._sent = False, 0
        while self._take(process):
            request = self._hand[0].request
            answer = receive(request.path, request.fit.size, _pipe(process.stdout))
            if answer is not None:
                self._hand.popleft().result.set_result(answer)
                self._sent -= 1
                self._send(process)
            elif self._closed.is_set():
                return
            else:
                self._died(self._stop())
                process = self._start()
                self._sent = 0
                self._send(process)

    def _take(self, process: "subprocess.Popen[bytes]") -> bool:
        """Fill the hand, and wait if it is empty; False when there will be no more."""
        while len(self._hand) < _IN_HAND:
            if self._hand and self._tasks.qsize() < len(self._lanes):
                break  # little is left, so that the others are faster at it
            try:
                task = self._tasks.get(block=not self._hand)
            except Empty:
                break
            if task is None:
                return False
            if task.result.set_running_or_notify_cancel():
                self._hand.append(task)
                self._send(process)
        return True

    def _send(self, process: "subprocess.Popen[bytes]") -> None:
        """What is in hand; but while the process reads one, no more than waits in the pipe, or both would wait."""
        while self._sent < len(self._hand):
            task = self._hand[self._sent]
            if self._sent and len(task.line) + len(task.request.content or b"") > _waiting_room(process):
                return
            _send(task, process)
            self._sent += 1

    def _died(self, code: int) -> None:
        task = self._hand[0]
        # Who has sent a file waits for the answer, and can send it again; the time for a second try is that of others.
        final = task is self._suspect or (task.request.content is not None and _timed_out(code))
        if not final:
            self._suspect = task
            return
        path = self._hand.popleft().request.path
        task.result.set_result(Read(path, None, _cause_of_death(code, self._timeout)))

    def _start(self) -> "subprocess.Popen[bytes]":
        for attempt in range(_STARTS):
            said = ""
            self._closed.wait(attempt / 2)
            try:
                with self._starting:
                    if self._closed.is_set():
                        raise DataError(_CLOSED)
                    process = self._process = _popen(self._timeout)
            except OSError as error:
                said = str(error)
                continue
            for line in _pipe(process.stdout):
                if line.endswith(READY):
                    return process
                said = (said + line.decode(errors="replace"))[-2000:]
            code = self._stop()
            said = said or f"exit code {code}"
        raise DataError(
            f"a process that reads pictures does not start; workers=0 reads without. It said:\n{said.strip()}"
        )

    def _stop(self) -> int:
        """End the process; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what could not be sent any more
                _pipe(pipe).close()
        return process.wait()


def _end(tasks: _Tasks, lanes: list[_Lane]) -> None:
    for lane in lanes:
        lane.close()
        tasks.put(None)
    for lane in lanes:
        if lane.thread.is_alive() and lane.thread is not threading.current_thread():
            lane.thread.join(_SOON)
    while not tasks.empty():
        left = tasks.get()
        if left is not None:
            _refuse(left, DataError(_CLOSED))


def _refuse(task: _Task, error: BaseException) -> None:
    if task.result.set_running_or_notify_cancel():
        task.result.set_exception(error)


def _popen(timeout: float) -> "subprocess.Popen[bytes]":
    """Start a process with the modules that this one has."""
    modules = os.pathsep.join(map(os.path.abspath, sys.path))
    environment = os.environ | {"PYTHONPATH": modules, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    limits = [timeout, MEMORY, Image.MAX_IMAGE_PIXELS or 0]
    process = subprocess.Popen(
        # -P: not from the folder that happens to be the current one, which may be full of pictures and scripts
        [sys.executable, "-P", "-W", "ignore", "-m", "birder.inference.reader", *map(str, limits)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux, as far as the user's share goes
        import fcntl

        for pipe in (process.stdout, process.stdin):
            fcntl.fcntl(_pipe(pipe), fcntl.F_SETPIPE_SZ, _PIPE)
    return process


def _waiting_room(process: "subprocess.Popen[bytes]") -> int:
    """Bytes that its pipe takes while nobody reads them."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        return fcntl.fcntl(_pipe(process.stdin), fcntl.F_GETPIPE_SZ)
    return _LONGEST


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "both were asked for"
    return pipe


def _send(task: _Task, process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):  # the process is dead, which is noticed where its answer is awaited
        pipe = _pipe(process.stdin)
        pipe.write(task.line)
        if task.request.content is not None:
            pipe.write(task.request.content)
        pipe.flush()


def _timed_out(code: int) -> bool:
    return hasattr(signal, "SIGALRM") and code == -signal.SIGALRM


def _cause_of_death(code: int, timeout: float) -> str:
    if _timed_out(code):
        return f"timeout: not read within {timeout:g} s"
    cause = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"crashed: the decoder died at this file ({cause})"


def _absolute(path: str) -> str:
    # The current folder of a process stays what it was when the process was started.
    with contextlib.suppress(OSError):
        return os.path.join(os.getcwd(), path) if path else path
    return path


def _read_here(request: Request) -> Read:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about the oddities of single files
        return read(request)
