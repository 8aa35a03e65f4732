"""Files appear whole or not at all."""

import os

import pytest

from birder.files import atomic, write_text


def test_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "ünï.txt"
    write_text(path, "old")
    write_text(path, "new\n")
    assert path.read_bytes() == b"new\n"
    assert os.listdir(tmp_path) == ["ünï.txt"]


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("power cut")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_link_stays_a_link(tmp_path):
    write_text(tmp_path / "target.csv", "old")
    (tmp_path / "link.csv").symlink_to("target.csv")
    write_text(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "target.csv").read_text() == "new"


def test_a_replaced_file_passes_on_its_permissions(tmp_path):
    write_text(tmp_path / "secret", "old")
    (tmp_path / "secret").chmod(0o600)
    write_text(tmp_path / "secret", "new")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_names_that_are_no_text_are_written_visibly(tmp_path):
    write_text(tmp_path / "a.txt", "caf\udce9")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\\udce9"


def test_a_long_name_leaves_room_for_the_temporary_one(tmp_path):
    write_text(tmp_path / f"{'x' * 240}.txt", "new")
    assert (tmp_path / f"{'x' * 240}.txt").read_text() == "new"


def test_permissions_are_those_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "ordinary").write_text("")
    write_text(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
