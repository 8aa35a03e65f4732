"""The published interface: shapes, types and values, whatever the sample and the state of the network."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import functional as tv

from birder.data.transforms import InferenceTransform, classification_transform
from birder.errors import ImageError
from birder.inference.classification import (
    five_crops,
    infer_batch,
    infer_dataloader,
    infer_dataloader_iter,
    infer_image,
)
from birder.networks import Network
from birder.signature import rgb_stats


@pytest.fixture
def transform() -> InferenceTransform:
    return classification_transform((32, 32), rgb_stats("birder"))


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 255, (50, 40, 3), np.uint8))


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32)


def test_one_picture(network: Network, transform: InferenceTransform, picture: Image.Image) -> None:
    out, embedding = infer_image(network, picture, transform)
    assert embedding is None
    assert out.shape == (1, 5) and out.dtype == np.float32
    with torch.no_grad():
        wanted = network(transform(picture)[None]).softmax(dim=1).numpy()
    assert np.abs(out - wanted).max() < 1e-6


def test_every_kind_of_sample_gives_the_same(
    network: Network, transform: InferenceTransform, picture: Image.Image, tmp_path: Path
) -> None:
    file = io.BytesIO()
    picture.save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    wanted, _ = infer_image(network, picture, transform)
    samples = [tmp_path / "a.png", str(tmp_path / "a.png"), file.getvalue(), np.asarray(picture), transform(picture)]
    for sample in samples:
        out, _ = infer_image(network, sample, transform)
        assert (out == wanted).all()


def test_a_path_is_turned_upright(network: Network, transform: InferenceTransform, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(5).integers(0, 255, (50, 40, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    turned, _ = infer_image(network, tmp_path / "a.png", transform)
    upright, _ = infer_image(network, picture, transform)
    assert (turned == upright).all()


def test_embedding_and_logits(network: Network, inputs: torch.Tensor) -> None:
    out, embedding = infer_batch(network, inputs, return_embedding=True, return_logits=True)
    assert embedding is not None
    with torch.no_grad():
        wanted = network.embedding(inputs)
        logits = network.classify(wanted)
    assert embedding.shape == (3, 16) and embedding.dtype == np.float32
    assert np.abs(embedding - wanted.numpy()).max() < 1e-6
    assert np.abs(out - logits.numpy()).max() < 1e-6
    probabilities, _ = infer_batch(network, inputs, return_embedding=True)
    assert np.abs(probabilities - logits.softmax(dim=1).numpy()).max() < 1e-6


def test_five_crops_are_torchvisions() -> None:
    images = torch.randn(2, 3, 33, 41)
    size = (int(0.8 * 33), int(0.8 * 41))
    wanted = [
        tv.resize(crop, [33, 41], tv.InterpolationMode.BICUBIC, antialias=True) for crop in tv.five_crop(images, size)
    ]
    for mine, theirs in zip(five_crops(images), wanted, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("return_logits", [False, True])
def test_tta_is_the_mean_of_the_crops(network: Network, inputs: torch.Tensor, return_logits: bool) -> None:
    out, embedding = infer_batch(network, inputs, return_embedding=True, tta=True, return_logits=return_logits)
    pairs = [infer_batch(network, crop, True, return_logits=return_logits) for crop in five_crops(inputs)]
    assert np.abs(out - np.mean([out for out, _ in pairs], axis=0)).max() < 1e-6
    assert embedding is not None
    assert np.abs(embedding - np.mean([embedding for _, embedding in pairs], axis=0)).max() < 1e-6
    plain, _ = infer_batch(network, inputs, return_logits=return_logits)
    assert np.abs(out - plain).max() > 1e-3
    assert (infer_batch(network, inputs, tta=True, return_logits=return_logits)[0] == out).all()


def test_the_network_keeps_its_mode_and_gradients(network: Network, inputs: torch.Tensor) -> None:
    wanted, _ = infer_batch(network, inputs)
    network.train()
    frozen = network.body[0].eval()  # type: ignore[index]
    modes = [module.training for module in network.modules()]
    out, _ = infer_batch(network, inputs)
    assert (out == wanted).all()  # no drop path
    assert [module.training for module in network.modules()] == modes
    assert not frozen.training and network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    network(inputs).sum().backward()  # nothing of inference mode is left in the weights


def test_the_mode_comes_back_after_an_error(network: Network) -> None:
    network.train()
    with pytest.raises(RuntimeError):
        infer_batch(network, torch.randn(1, 7, 32, 32))
    assert all(module.training for module in network.modules())


def test_bfloat16_gives_float32(network: Network, inputs: torch.Tensor) -> None:
    wanted, _ = infer_batch(network, inputs)
    network.to(torch.bfloat16)
    for tta in (False, True):
        out, embedding = infer_batch(network, inputs, return_embedding=True, tta=tta)
        assert embedding is not None
        assert out.dtype == embedding.dtype == np.float32
        assert np.abs(out.sum(axis=1) - 1).max() < 1e-5
    assert np.abs(infer_batch(network, inputs)[0] - wanted).max() < 0.1


def test_options_reach_the_network(inputs: torch.Tensor) -> None:
    class Scaled(nn.Module):
        def embedding(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            return x.mean(dim=(2, 3)) * scale

        def classify(self, embedding: torch.Tensor) -> torch.Tensor:
            return embedding

        def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            return self.embedding(x, scale)

    for return_embedding in (False, True):
        out, _ = infer_batch(Scaled(), inputs, return_embedding, return_logits=True, scale=3.0)
        assert np.abs(out - 3 * inputs.mean(dim=(2, 3)).numpy()).max() < 1e-6


@pytest.mark.parametrize("sample", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_tensors_that_are_no_sample(network: Network, transform: InferenceTransform, sample: torch.Tensor) -> None:
    with pytest.raises(ImageError, match=r"a tensor must be \(C, H, W\) floats"):
        infer_image(network, sample, transform)


def test_an_unreadable_file_is_named(network: Network, transform: InferenceTransform, tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        infer_image(network, tmp_path / "no.jpg", transform)
    assert str(caught.value) == f"{tmp_path / 'no.jpg'}: no such file"


def loader(inputs: torch.Tensor, batch_size: int) -> list[tuple[list[str], torch.Tensor, torch.Tensor]]:
    numbers = range(0, len(inputs), batch_size)
    return [
        (
            [f"{index}.jpg" for index in range(start, min(start + batch_size, len(inputs)))],
            batch,
            torch.arange(len(batch)),
        )
        for start, batch in zip(numbers, inputs.split(batch_size), strict=True)
    ]


def test_a_loader_at_once(network: Network) -> None:
    inputs = torch.randn(5, 3, 32, 32)
    calls: list[int] = []
    paths, out, labels, embeddings = infer_dataloader(
        "cpu",
        network,
        loader(inputs, 2),
        return_embedding=True,
        batch_callback=lambda paths, out, labels: calls.append(len(paths)),
    )
    wanted, wanted_embedding = infer_batch(network, inputs, return_embedding=True)
    assert paths == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert out.dtype == np.float32 and np.abs(out - wanted).max() < 1e-6 * np.abs(wanted).max()
    assert labels.dtype == np.int64 and labels.tolist() == [0, 1, 0, 1, 0]
    assert [len(embedding) for embedding in embeddings] == [2, 2, 1] == calls
    assert np.abs(np.concatenate(embeddings) - wanted_embedding).max() < 1e-6 * np.abs(wanted_embedding).max()


def test_a_loader_in_chunks(network: Network) -> None:
    inputs = torch.randn(7, 3, 32, 32)
    wanted, _ = infer_batch(network, inputs)
    for chunks in (
        infer_dataloader("cpu", network, loader(inputs, 2), chunk_size=3),
        infer_dataloader_iter("cpu", network, loader(inputs, 2), chunk_size=3),
    ):
        parts = list(chunks)
        assert [len(paths) for paths, _, _, _ in parts] == [4, 3]
        exact = infer_dataloader("cpu", network, loader(inputs, 2), chunk_size=2)
        assert [len(paths) for paths, _, _, _ in exact] == [2, 2, 2, 1]
        assert np.abs(np.concatenate([out for _, out, _, _ in parts]) - wanted).max() < 1e-6
        assert all(embeddings == [] for *_, embeddings in parts)


def test_an_empty_loader_gives_empty_arrays(network: Network) -> None:
    paths, out, labels, embeddings = infer_dataloader("cpu", network, [])
    assert (paths, embeddings) == ([], [])
    assert out.shape == (0, 5) and out.dtype == np.float32
    assert labels.shape == (0,) and labels.dtype == np.int64
    assert len(list(infer_dataloader_iter("cpu", network, []))) == 1
    assert list(infer_dataloader("cpu", network, [], chunk_size=2)) == []


def test_a_loader_in_bfloat16(network: Network) -> None:
    inputs = torch.randn(4, 3, 32, 32)
    wanted, _ = infer_batch(network, inputs)
    _, automatic, _, _ = infer_dataloader("cpu", network, loader(inputs, 2), amp=True, amp_dtype=torch.bfloat16)
    assert network.classifier.weight.dtype == torch.float32
    _, converted, _, _ = infer_dataloader(
        "cpu", network, loader(inputs, 2), channels_last=True, model_dtype=torch.bfloat16
    )
    assert network.classifier.weight.dtype == torch.bfloat16
    for out in (automatic, converted):
        assert out.dtype == np.float32
        assert 0 < np.abs(out - wanted).max() < 0.1
