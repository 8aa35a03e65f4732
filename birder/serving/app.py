"""The application: the interface, the page, and what stands before them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

import birder
from birder.serving.access import Access, Token
from birder.serving.desk import Desk, patience_s
from birder.serving.metrics import Measured, Metrics
from birder.serving.models import Served
from birder.serving.problems import install
from birder.serving.routes import models_router, operations_router, pictures_router
from birder.serving.settings import Settings
from birder.serving.static import add_page
from birder.serving.uploads import Room


def create_app(models: Sequence[Served], settings: Settings, metrics: Metrics | None = None) -> FastAPI:
    """An application that serves models; what each address does stands in its /openapi.json, and in docs/serving.md.

    Args:
        models: Of different names; the first is the default. They are closed when the application ends.
        settings: What is allowed, and to whom.
        metrics: Where requests and pictures are counted; None begins at zero.
    """
    metrics = metrics or Metrics()
    room = Room(settings.limits, partial(patience_s, models))
    metrics.watch(room)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for served in models:
            served.close()

    app = FastAPI(
        title="birder",
        version=birder.__version__,
        summary="Recognises wildlife, first of all birds, in photographs.",
        docs_url=None,  # they would fetch scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    desk = Desk(models, settings.limits, metrics, room)
    for router in (models_router(desk), pictures_router(desk), operations_router(desk)):
        app.include_router(router)
    add_page(app)
    install(app)
    app.add_middleware(Token, token=settings.token)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(Access, settings=settings)
    app.add_middleware(Measured, metrics=metrics)
    return app
