"""The addresses of the interface: what each takes and gives."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Query, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from birder.errors import NotFinite
from birder.explain import Method
from birder.inference.rows import Row
from birder.serving import schemas
from birder.serving.desk import Desk, told
from birder.serving.models import Seen, Served, encoded
from birder.serving.problems import CODES, MEDIA_TYPE, Problem
from birder.serving.uploads import MOST_NAMES, Body, shown

_LONGEST = 300  # letters of a parameter
_MOST_SIMILAR = 50
_MOST_ANSWERS = 100_000  # of a request, which would hold up all others while they are written down

Text: TypeAlias = Annotated[str, Query(max_length=_LONGEST)]
ModelQuery: TypeAlias = Annotated[str, Query(max_length=_LONGEST, description="Name of a model; empty is the default.")]
NameQuery: TypeAlias = Annotated[
    str, Query(max_length=_LONGEST, description="What to call a picture that is sent raw.")
]
TopQuery: TypeAlias = Annotated[
    Annotated[int, Query(ge=1, le=1_000_000)] | Literal["all"], Query(description="Classes for each picture.")
]
ScoreQuery: TypeAlias = Annotated[
    float | None,
    Query(ge=0, le=1, allow_inf_nan=False, description="Pictures whose best score is lower are unsure."),
]
SpeciesQuery: TypeAlias = Annotated[
    Sequence[Text], Query(max_length=MOST_NAMES, description="Only these may be named, as with the field checklist.")
]
SimilarQuery: TypeAlias = Annotated[
    int, Query(ge=0, le=_MOST_SIMILAR, description="Pictures of the index that resemble each picture.")
]
LabelQuery: TypeAlias = Annotated[
    str, Query(max_length=_LONGEST, description="The class to explain; empty is the best answer.")
]

_BINARY = {"type": "string", "format": "binary"}
_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["files"],
    "additionalProperties": False,
    "properties": {
        "files": {"type": "array", "minItems": 1, "items": _BINARY},
        "checklist": {"type": "string", "description": "Species that may be named, one in a line."},
    },
}
_FORM_OF_ONE: dict[str, Any] = {
    **_FORM,
    "properties": {"files": {"type": "array", "minItems": 1, "maxItems": 1, "items": _BINARY}},
}


def _bodies(form: dict[str, Any]) -> dict[str, Any]:
    """The documentation of what is sent: a form, or a picture by itself."""
    content = {
        "multipart/form-data": {"schema": form, "encoding": {"files": {"contentType": "image/*"}}},
        "application/octet-stream": {"schema": {**_BINARY, "minLength": 1}},
    }
    return {"requestBody": {"required": True, "content": content}}


_PROBLEM = schemas.ProblemDocument.model_json_schema()
_ALWAYS = ("unauthorized", "forbidden", "too-many", "internal")
_WITH_PICTURES = (*_ALWAYS, "bad-request", "unknown-model", "slow", "too-large", "invalid", "busy")


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The documentation of what may go wrong: status -> titles, and the form of the answer."""
    titles: dict[int, list[str]] = {}
    for code in codes:
        status, title = CODES[code]
        titles.setdefault(status, []).append(title)
    return {
        status: {"description": "; ".join(words), "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
        for status, words in sorted(titles.items())
    }


def models_router(desk: Desk) -> APIRouter:
    """What is served."""
    router = APIRouter(prefix="/v1/models", tags=["models"], responses=problems(*_ALWAYS))
    missing = problems("unknown-model", "invalid")

    @router.get("", summary="The models that are served")
    async def list_models() -> schemas.Models:
        return schemas.Models(models=[_facts(served, desk) for served in desk.models.values()])

    @router.get("/{model}", summary="A model, and what it can name", responses=missing)
    async def describe_model(model: str) -> schemas.ModelDetails:
        return _details(desk.find(model), desk)

    @router.get("/{model}/card", summary="Its card, Markdown", response_class=Response, responses=missing)
    async def read_card(model: str) -> Response:
        card = desk.find(model).card
        if not card:
            raise Problem("not-found", f"{model} has no card: a Markdown file of the same name beside its own")
        return Response(card, media_type="text/markdown; charset=utf-8")

    @router.get(
        "/{model}/pictures/{number}",
        summary="A picture of its index, square and small",
        response_class=Response,
        responses={**missing, **problems("busy"), 200: {"content": {"image/jpeg": {"schema": _BINARY}}}},
    )
    async def show_picture(model: str, number: int) -> Response:
        served = desk.find(model)
        count = 0 if served.similar is None else len(served.similar.paths)
        content = await desk.thumbnail(served, number) if 0 <= number < count else None
        if content is None:
            raise Problem("not-found", f"{model} has no picture {number} in its index, or it cannot be read any more")
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    return router


def pictures_router(desk: Desk) -> APIRouter:
    """What is done with pictures."""
    router = APIRouter(prefix="/v1", tags=["pictures"], responses=problems(*_WITH_PICTURES))

    @router.post("/predict", summary="What pictures show", openapi_extra=_bodies(_FORM))
    async def predict(
        *,
        request: Request,
        model: ModelQuery = "",
        name: NameQuery = "",
        top: TopQuery = 5,
        min_score: ScoreQuery = None,
        similar: SimilarQuery = 0,
        species: SpeciesQuery = (),
    ) -> schemas.Prediction:
        served = desk.find_classifier(model)

        async def answer(body: Body) -> schemas.Prediction:
            with told():
                checklist = await served.checklist([*species, *body.checklist])
                answers = served.answers(top=None if top == "all" else top, min_score=min_score, checklist=checklist)
            if answers.layout.top * len(body.uploads) > _MOST_ANSWERS:
                raise Problem("invalid", f"top: more than {_MOST_ANSWERS} answers; send fewer pictures at a time")
            seen = await desk.each(served, body.uploads, lambda upload: served.predicted(upload, answers, similar))
            notice = "" if checklist is None else checklist.notice
            return schemas.Prediction(
                model=_model_name(served), notice=notice, rows=[_predicted(one, served) for one in seen]
            )

        return await desk.answered(request, answer)

    @router.post("/embed", summary="Embeddings of pictures", openapi_extra=_bodies(_FORM))
    async def embed(request: Request, model: ModelQuery = "", name: NameQuery = "") -> schemas.Embeddings:
        served = desk.find(model)

        async def answer(body: Body) -> schemas.Embeddings:
            seen = await desk.each(served, body.uploads, served.embedded)
            return schemas.Embeddings(model=_model_name(served), rows=[_embedded(one) for one in seen])

        return await desk.answered(request, answer)

    @router.post(
        "/explain",
        summary="Where in a picture an answer comes from",
        openapi_extra=_bodies(_FORM_OF_ONE),
        response_model=schemas.Explained,
        responses={
            **problems("invalid", "picture"),
            200: {"content": {"image/png": {"schema": _BINARY}}, "description": "As numbers, or laid over the picture"},
        },
    )
    async def explain(
        request: Request, model: ModelQuery = "", name: NameQuery = "", label: LabelQuery = "", method: Method = "auto"
    ) -> schemas.Explained | Response:
        served = desk.find_classifier(model)
        drawn = "image/png" in request.headers.get("accept", "")
        return await desk.answered(request, partial(_explained, served, label=label, method=method, drawn=drawn))

    return router


def operations_router(desk: Desk) -> APIRouter:
    """For whoever looks after the server."""
    router = APIRouter(tags=["operation"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", summary="Whether the process lives")
    async def healthz() -> schemas.Health:
        return schemas.Health(status="ok")

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", summary="Whether it can answer", responses=problems("stopping"))
    async def readyz() -> schemas.Health:
        if not desk.ready():
            raise Problem("stopping", "no process that reads pictures can be started")
        return schemas.Health(status="ready")

    @router.get("/metrics", summary="For Prometheus", response_class=Response, responses=problems(*_ALWAYS))
    async def metrics() -> Response:
        return Response(desk.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


async def _explained(
    served: Served, body: Body, *, label: str, method: Method, drawn: bool
) -> schemas.Explained | Response:
    if len(body.uploads) != 1:
        raise Problem("bad-request", f"one picture can be explained at a time, not {len(body.uploads)}")
    (upload,) = body.uploads
    with told():
        await served.check_explanation(label, method)
    try:
        reasons = await served.explained(upload, label or None, method)
    except NotFinite as error:
        raise Problem("picture", str(error), reason=f"not_finite: {error}") from error
    if isinstance(reasons, Row):
        raise Problem(
            "picture", f"{upload.name or 'the picture'} cannot be read: {reasons.reason}", reason=reasons.reason
        )
    if drawn:
        return Response(await served.overlay(upload, reasons), media_type="image/png")
    height, width = reasons.heat.shape
    return schemas.Explained(
        model=_model_name(served),
        name=upload.name,
        label=reasons.label,
        score=reasons.score,
        method=reasons.method,
        heat=schemas.Heat(height=height, width=width, values=encoded(reasons.heat)),
    )


def _model_name(served: Served) -> schemas.ModelName:
    return schemas.ModelName(name=served.name, sha256=served.model.digest)


def _facts(served: Served, desk: Desk) -> schemas.ModelFacts:
    network, calibration = served.network, served.model.known.calibration
    return schemas.ModelFacts(
        name=served.name,
        default=served.name == desk.default,
        network=network.name,
        size=network.size,
        classes=network.num_classes,
        embedding_size=network.embedding_size,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        bytes=served.model.bytes,
        sha256=served.model.digest,
        backend=str(served.ready.chosen.way),
        calibrated=calibration is not None,
        min_score=served.min_score,
        threshold=None if calibration is None else calibration.threshold,
        novelty=calibration is not None and calibration.novelty is not None,
        index=0 if served.similar is None else len(served.similar.paths),
        card=bool(served.card),
    )


def _details(served: Served, desk: Desk) -> schemas.ModelDetails:
    names = served.names
    labels = served.model.names if served.classifies else []
    return schemas.ModelDetails(
        **_facts(served, desk).model_dump(),
        species=[
            schemas.Species(label=label, names={} if names is None else dict(names.of.get(label, {})))
            for label in labels
        ],
        languages=[] if names is None else list(names.languages),
    )


def _picture(seen: Seen) -> dict[str, Any]:
    """What every row has."""
    row, (width, height) = seen.row, seen.size
    return {
        "name": row.path,
        "status": row.status,
        "reason": row.reason,
        "code": row.code,
        "taken": row.taken,
        "width": width,
        "height": height,
    }


def _predicted(seen: Seen, served: Served) -> schemas.PredictedPicture:
    row = seen.row
    open_scores = row.open_scores or (None,) * len(row.scores)
    return schemas.PredictedPicture(
        **_picture(seen),
        answers=[
            schemas.PredictedClass(label=label, score=score, open_score=open_score)
            for label, score, open_score in zip(row.labels, row.scores, open_scores, strict=True)
        ],
        novelty=row.novelty,
        similar=[_similar(served, neighbour.picture, neighbour.similarity) for neighbour in seen.similar],
    )


def _similar(served: Served, number: int, similarity: float) -> schemas.SimilarPicture:
    assert served.similar is not None, "it has found them"
    *_, folder, name = ("", *served.similar.paths[number].replace("\\", "/").rsplit("/", 2))
    return schemas.SimilarPicture(picture=number, name=shown(name), label=shown(folder), similarity=similarity)


def _embedded(seen: Seen) -> schemas.EmbeddedPicture:
    embedding = seen.row.embedding
    return schemas.EmbeddedPicture(**_picture(seen), embedding=None if embedding is None else embedding.tolist())
