"""What travels with the weights."""

from typing import Any

import pytest

from birder.errors import ModelFileError, UnknownName
from birder.signature import (
    PRESETS,
    get_channels_from_signature,
    get_num_classes_from_signature,
    get_size_from_signature,
    make_signature,
    rgb_stats,
)

PUBLISHED = {"inputs": [{"data_shape": [0, 3, 256, 320]}], "outputs": [{"data_shape": [0, 371]}]}


def test_it_is_made_in_the_published_form() -> None:
    assert make_signature(371, 3, (256, 320)) == PUBLISHED


def test_it_is_read() -> None:
    assert get_size_from_signature(PUBLISHED) == (256, 320)
    assert get_channels_from_signature(PUBLISHED) == 3
    assert get_num_classes_from_signature(PUBLISHED) == 371


def test_shapes_may_be_tuples() -> None:
    signature = {"inputs": ({"data_shape": (0, 1, 64, 96)},), "outputs": ({"data_shape": (0, 2)},)}
    assert (get_size_from_signature(signature), get_channels_from_signature(signature)) == ((64, 96), 1)


def test_detection_has_its_own_word_for_classes() -> None:
    signature = {"inputs": PUBLISHED["inputs"], "outputs": ["boxes", "labels"], "num_labels": 12}
    assert get_num_classes_from_signature(signature) == 12


@pytest.mark.parametrize(
    "signature",
    [
        {},
        {"inputs": []},
        {"inputs": [{}]},
        {"inputs": [{"data_shape": [0, 3, 256]}]},
        {"inputs": [{"data_shape": ["a", "b", "c", "d"]}]},
        {"inputs": None},
    ],
)
def test_another_form_is_refused(signature: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError, match=r"no inputs\[0\].data_shape"):
        get_size_from_signature(signature)
    with pytest.raises(ModelFileError, match=r"no inputs\[0\].data_shape"):
        get_channels_from_signature(signature)
    with pytest.raises(ModelFileError, match=r"no outputs\[0\].data_shape"):
        get_num_classes_from_signature(signature)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_three_channels(preset: str) -> None:
    stats = rgb_stats(preset)
    assert len(stats["mean"]) == len(stats["std"]) == 3
    assert all(deviation > 0 for deviation in stats["std"])


def test_an_unknown_preset_is_answered_with_the_known() -> None:
    with pytest.raises(
        UnknownName, match=r"no colour preset is called 'imagnet'; did you mean imagenet\? \(there are: birder"
    ):
        rgb_stats("imagnet")
