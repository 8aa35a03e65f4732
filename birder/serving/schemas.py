"""What the server says, as documented types. Scores, similarities and novelty are from 0 to 1."""

from pydantic import BaseModel, Field

from birder.inference.rows import Status


class ModelFacts(BaseModel):
    """A model that is served."""

    name: str = Field(description="What it is asked for by.")
    default: bool = Field(description="Whether it is taken where none is asked for.")
    network: str = Field(description="Registered name of its network.")
    size: tuple[int, int] = Field(description="Height and width that pictures are brought to.")
    classes: int = Field(description="How many it tells apart; 0 of one that gives embeddings alone.")
    embedding_size: int
    parameters: int
    bytes: int = Field(description="Size of its file.")
    sha256: str = Field(description="Of its file.")
    backend: str = Field(description="What computes it, such as openvino bf16.")
    calibrated: bool = Field(description="Whether scores are as often right as they say: see birder calibrate.")
    min_score: float = Field(
        description="Pictures whose best score is lower are unsure, unless a request says another."
    )
    threshold: float | None = Field(description="The least score that birder calibrate recommends; null if none.")
    novelty: bool = Field(description="Whether it tells pictures of what is not in its list.")
    index: int = Field(description="Pictures in its index, among which similar ones are found; 0 is none.")
    card: bool = Field(description="Whether it has a card.")


class Models(BaseModel):
    """The models that are served."""

    models: list[ModelFacts]


class Species(BaseModel):
    """A class of a model."""

    label: str = Field(description="As the model calls it.")
    names: dict[str, str] = Field(description="In other languages, by their tags (BCP 47).")


class ModelDetails(ModelFacts):
    """A model and what it can name."""

    species: list[Species]
    languages: list[str] = Field(description="Tags (BCP 47) of the languages that there are names in.")


class ModelName(BaseModel):
    """What has answered."""

    name: str
    sha256: str


class PredictedClass(BaseModel):
    """One answer."""

    label: str
    score: float = Field(description="Its probability; with a checklist, among the classes that are on it.")
    open_score: float | None = Field(description="With a checklist, its probability among all classes.")


class SimilarPicture(BaseModel):
    """A picture of the index that resembles the one that was sent."""

    picture: int = Field(description="Its number: see /v1/models/{model}/pictures/{number}.")
    name: str = Field(description="Name of its file.")
    label: str = Field(description="Name of the folder that it lies in.")
    similarity: float = Field(description="Cosine of the angle between the embeddings, -1 to 1.")


class Picture(BaseModel):
    """What became of a picture."""

    name: str = Field(description="As it was sent.")
    status: Status = Field(description="ok; unsure; not_in_list: too new to be any of the classes; error: no answer.")
    reason: str = Field(description="Why there is no answer, or what is wrong: a code, a colon and words.")
    code: str = Field(description="The first word of the reason, which stays the same from version to version.")
    taken: str = Field(description="When it was taken, such as 2026-05-17T06:12:44, by its EXIF data; may be empty.")
    width: int = Field(description="Of the upright picture, in pixels; 0 if it could not be read.")
    height: int


class PredictedPicture(Picture):
    """What a picture shows."""

    answers: list[PredictedClass] = Field(description="The most probable first.")
    novelty: float | None = Field(description="The share of known pictures that look less new; null if not known.")
    similar: list[SimilarPicture] = Field(description="The most similar first, if they were asked for.")


class Prediction(BaseModel):
    """What the pictures of a request show."""

    model: ModelName
    notice: str = Field(description="What the sender should know of the checklist; empty if there is nothing.")
    rows: list[PredictedPicture] = Field(description="In the order in which the pictures were sent.")


class EmbeddedPicture(Picture):
    """The embedding of a picture."""

    embedding: list[float] | None = Field(description="None of a picture that could not be read.")


class Embeddings(BaseModel):
    """The embeddings of the pictures of a request."""

    model: ModelName
    rows: list[EmbeddedPicture] = Field(description="In the order in which the pictures were sent.")


class Heat(BaseModel):
    """How much each place of a picture speaks for an answer."""

    height: int
    width: int
    values: str = Field(description="Base64 of height x width bytes, row by row: 0 is nothing, 255 the most.")


class Explained(BaseModel):
    """Where an answer comes from."""

    model: ModelName
    name: str
    label: str = Field(description="The class that is explained.")
    score: float
    method: str = Field(description="grad-cam or rollout.")
    heat: Heat = Field(description="Of the whole picture.")


class Health(BaseModel):
    """How the server is."""

    status: str


class ProblemDocument(BaseModel):
    """What went wrong, by RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
