"""What a server counts and measures, in the form that Prometheus reads."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from birder.serving.uploads import Room

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_PICTURES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        """All at zero."""
        self.registry = CollectorRegistry()
        self._requests = Counter("birder_requests", "Requests", ["path", "status"], registry=self.registry)
        self._seconds = Histogram(
            "birder_request_seconds", "Seconds for a request", ["path"], buckets=_SECONDS, registry=self.registry
        )
        self._pictures = Counter("birder_pictures", "Pictures", ["model", "status"], registry=self.registry)
        self._batches = Histogram(
            "birder_batch_pictures", "Pictures in a batch", ["model"], buckets=_PICTURES, registry=self.registry
        )
        self._computing = Counter(
            "birder_computing_seconds", "Seconds in which batches were computed", ["model"], registry=self.registry
        )
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def watch(self, room: Room) -> None:
        """Also tell what the requests under way hold."""
        for name, words, value in (
            ("birder_pictures_under_way", "Pictures that are read, wait or are computed", lambda: room.pictures),
            ("birder_held_bytes", "Bytes of the bodies that are held", lambda: room.held),
        ):
            Gauge(name, words, registry=self.registry).set_function(value)

    def picture(self, model: str, status: str) -> None:
        """A picture has got a row of this status."""
        self._pictures.labels(model, status).inc()

    def batch(self, model: str, pictures: int, seconds: float) -> None:
        """A batch was computed."""
        self._batches.labels(model).observe(pictures)
        self._computing.labels(model).inc(seconds)

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """All of them, as Prometheus asks for them."""
        return generate_latest(self.registry)


class Measured:
    """Stands before an application, and counts the requests."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """The application, and where to count."""
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = scope.get("route")  # not the path, of which there may be any number
            self._metrics.request(getattr(route, "path", "other"), status, time.monotonic() - began)
