"""The catalogue is what was published, and a user's own adds to it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import birder
from birder.catalogue import STARTER, catalogue, find, list_pretrained_models, supported
from birder.errors import ConfigError, UnknownName
from birder.home import home, offline
from birder.networks import networks

REMOVED = "vit_l16_mim-eu-common"


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's catalogue, which is not there yet."""
    monkeypatch.setenv("BIRDER_HOME", str(tmp_path))
    return tmp_path / "catalogue.toml"


@pytest.fixture(scope="module")
def published(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "spec" / "pretrained_catalogue.json").read_text(encoding="utf-8"))


def test_it_is_what_was_published(published: dict[str, Any]) -> None:
    ours = catalogue()
    assert [name for name in ours if name not in (REMOVED, STARTER)] == [row["name"] for row in published["models"]]
    for row in published["models"]:
        entry = ours[row["name"]]
        assert (entry.name, entry.network, entry.tag, entry.epoch, entry.reparameterized, entry.task) == tuple(
            row[key] for key in ("name", "network", "tag", "epoch", "reparameterized", "task")
        )
        assert list(entry.resolution) == row["resolution"]
        assert {name: entry.address(name) for name in entry.formats} == row["files"]
        assert {
            name: {"file_size_mb": file.file_size, "sha256": file.sha256} for name, file in entry.formats.items()
        } == (row["formats"])
        assert list(entry.superseded) == [file["sha256"] for file in row.get("superseded_files", [])]
        for key in ("backbone", "encoder"):
            part = getattr(entry, key)
            assert (part and {k: v for k, v in vars(part).items() if v is not None}) == row.get(key)


def test_the_model_of_a_card_that_is_no_longer_published(published: dict[str, Any]) -> None:
    row = next(row for row in published["removed_or_renamed_models"] if row["name"] == REMOVED)
    entry = find(REMOVED)
    assert (entry.network, entry.tag, list(entry.resolution)) == ("vit_l16", "mim-eu-common", [256, 256])
    assert entry.address("pt") == f"{row['base_url']}/{REMOVED}.pt"
    assert [(file.file_size, file.sha256) for file in entry.formats.values()] == [
        (row["files"][0]["file_size_mb"], row["files"][0]["sha256"])
    ]


def test_names_are_sorted_by_the_first_word_of_the_network() -> None:
    names = list_pretrained_models()
    order = list(catalogue())
    assert names == birder.list_pretrained_models()
    assert len(names) == 223
    assert names == sorted(names, key=lambda name: (name.split("_")[0], order.index(name)))


@pytest.mark.parametrize(
    ("pattern", "task", "names"),
    [
        ("regnet_y*", None, {"regnet_y_200m_il-common", "regnet_y_8g_intermediate-eu-common"}),
        ("*convnext_v2_tiny*", "object_detection", {"deformable_detr_boxref_coco_convnext_v2_tiny_imagenet21k"}),
        (None, "masked_image_modeling", {"mae_hiera_hiera_abswin_base"}),
        ("unicorn", None, set()),
    ],
)
def test_a_filter(pattern: str | None, task: str | None, names: set[str]) -> None:
    found = set(list_pretrained_models(pattern, task))
    assert names <= found
    assert len(found) < 12 and (names or not found)


def test_an_unknown_task() -> None:
    with pytest.raises(
        UnknownName, match=r"no task is called 'detection' \(there are: image_classification, object_det"
    ):
        list_pretrained_models(task="detection")


def test_an_unknown_name() -> None:
    with pytest.raises(UnknownName, match=f"no published model is called '{REMOVED[:-1]}'; did you mean {REMOVED}"):
        find(REMOVED[:-1])


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("convnext_v2_tiny_intermediate-il-common", "il-common"),
        ("pvt_v2_b2_mmcr-il-all256px", "il-all"),
        (REMOVED, "eu-common"),
        ("vit_parallel_s16_18x2_ls_avg_data2vec-intermediate-arabian-peninsula", "arabian-peninsula"),
        ("vit_l16_mim_400", ""),
        ("repvgg_a0_il-common_reparameterized", "il-common"),
        ("vit_reg4_m16_rms_avg_i-jepa-inat21-256px", "inat21"),
        ("hieradet_small_sam2_1", ""),
        ("lw_detr_2stg_objects365-coco_pe_spatial_s16", "objects365-coco"),
        ("alexnet_inat21", "inat21"),
    ],
)
def test_the_region_is_in_the_tag(name: str, region: str) -> None:
    assert find(name).region == region


def test_every_region_is_a_place_or_a_data_set() -> None:
    regions = {entry.region for entry in catalogue().values()}
    assert regions == {
        *("", "arabian-peninsula", "danube-delta", "eu-common", "il-all", "il-common", "yellowstone", "bio", "generic"),
        *(
            "bioscan5m",
            "coco",
            "cub100",
            "imagenet12k",
            "imagenet21k",
            "inat21",
            "lvd142m",
            "objects365",
            "objects365-coco",
        ),
        *("places365", "sa1b", "webli"),
    }


def test_what_can_be_loaded() -> None:
    assert find("convnext_v2_tiny_intermediate-il-common").obstacle == ""
    assert find("lw_detr_2stg_objects365_pe_spatial_s16").obstacle == "task object_detection is not supported yet"
    assert supported("convnext_v2_atto") and not supported("unicorn_v2")
    for entry in catalogue().values():
        if entry.task == "image_classification" and not entry.reparameterized and "pt" in entry.formats:
            assert (not entry.obstacle) == (entry.network in networks), entry.name


OWN = """
url = "https://birds.example/models/"
licence = "CC0-1.0"

[models."vit_l16_kenya-2.0"]
network = "vit_l16"
tag = "mim-kenya"
resolution = [224, 320]
formats.safetensors = {{ file_size = 1, sha256 = "{digest}" }}

[models.{removed}]
network = "convnext_v2_atto"
resolution = [64, 64]
url = "http://127.0.0.1:80"
formats.pt = {{ file_size = 2.5, sha256 = "{digest}" }}
""".format(digest="ab" * 32, removed=REMOVED)


def test_ones_own_models_are_added_and_replace(own: Path) -> None:
    own.write_text(OWN, encoding="utf-8")
    kenya = find("vit_l16_kenya-2.0")
    assert kenya.address("safetensors") == "https://birds.example/models/vit_l16_kenya-2.0.safetensors"
    assert (kenya.region, kenya.licence, kenya.resolution) == ("kenya", "CC0-1.0", (224, 320))
    assert find(REMOVED).network == "convnext_v2_atto"
    assert find(REMOVED).address("pt") == f"http://127.0.0.1:80/{REMOVED}.pt"
    assert len(list_pretrained_models()) == 224
    own.unlink()
    assert find(REMOVED).network == "vit_l16"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('network = "vit_l16"', "", r'models.vit_l16_kenya-2.0.network: missing'),
        ('tag = "mim', 'tga = "mim', r"models.vit_l16_kenya-2.0.tga: no such option; did you mean tag"),
        ("[224, 320]", "224", r"models.vit_l16_kenya-2.0.resolution: expected a list, got 224"),
        ("ab" * 32, "ABC", r"models.vit_l16_kenya-2.0.formats.safetensors.sha256: must be 64 hexadecimal digits"),
        ("https://birds", "http://birds", r"models.vit_l16_kenya-2.0.url: must begin with https://, not 'http://birds"),
        ("vit_l16_kenya-2.0", "../vit", r"models.../vit.name: '../vit' has letters that a file name should not have"),
        ("licence =", "license =", r"license: no such entry; did you mean licence?"),
        ("formats.safetensors = ", "formats = {} #", r"models.vit_l16_kenya-2.0.formats: names no file"),
        ("tag = ", "task = ", r"models.vit_l16_kenya-2.0.task: 'mim-kenya' is not one of image_classification, obj"),
        ("[models.", "[", r"vit_l16_kenya-2.0: no such entry"),
        ("[models.\"vit", "models = 1\n[\"vit", r"models: expected a table of models"),
        ("=", "", r"(Expected|Invalid)"),
    ],
)  # fmt: skip
def test_a_wrong_catalogue_of_ones_own(old: str, new: str, message: str, own: Path) -> None:
    text = OWN.split("[models.vit_l16_mim")[0]
    assert old in text
    own.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{re.escape(str(own))}: {message}"):
        catalogue()


def test_every_mistake_is_named(own: Path) -> None:
    own.write_text(OWN.replace("network =", "netwrok ="), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        catalogue()
    assert len(str(caught.value).splitlines()) == 4
    assert all(line.startswith(f"{own}: models.") for line in str(caught.value).splitlines())


def test_names_can_be_files(root: Path) -> None:
    text = (root / "birder" / "weights.toml").read_text(encoding="utf-8")
    assert len(re.findall(r"^\[models\.", text, re.MULTILINE)) == 223
    assert all(re.fullmatch(r"[a-z0-9_-]+", name) for name in catalogue())


def test_the_list_needs_no_torch(root: Path) -> None:
    code = "import sys, birder; assert len(birder.list_pretrained_models()) > 221; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_the_home_is_a_cache_unless_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert home() == tmp_path
    monkeypatch.setenv("BIRDER_HOME", "~/birds")
    assert home() == Path("~/birds").expanduser()
    monkeypatch.delenv("BIRDER_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home() == tmp_path / "cache" / "birder"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert home() == Path("~/.cache/birder").expanduser()


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("yes", True), ("0", False), ("", False), ("no", False)])
def test_offline(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIRDER_OFFLINE", value)
    assert offline() == expected
