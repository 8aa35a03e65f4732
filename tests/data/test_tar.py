"""Members of tar files are found as the standard library finds them, and damage is named with its place."""

import io
import tarfile
from pathlib import Path

import pytest

from birder.data.tar import Member, tar_members
from birder.errors import DataError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
NAMES = ["a.jpg", "deep/" * 20 + "b.jpg", "n" * 90 + ".c.png", "d", "e.cls"]


def write(path: Path, names: list[str], tar_format: int = tarfile.USTAR_FORMAT, size: int = 700) -> Path:
    with tarfile.open(path, "w", format=tar_format) as tar:
        folder = tarfile.TarInfo("deep")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = size * number
            tar.addfile(member, io.BytesIO(bytes([number]) * member.size))
    return path


def found(path: Path) -> list[Member]:
    with open(path, "rb", buffering=4096) as file:
        members = []
        for member in tar_members(file, path):
            file.seek(0)  # whoever asks may read elsewhere in between
            members.append(member)
        return members


@pytest.mark.parametrize("name", FORMATS)
def test_members_are_those_of_the_standard_library(tmp_path: Path, name: str) -> None:
    names = NAMES if name == "ustar" else [*NAMES, "ö" * 80 + ".jpg", "long/" * 60 + "f.jpg", "last.jpg"]
    path = write(tmp_path / "a.tar", names, FORMATS[name])
    with tarfile.open(path) as tar:
        wanted = [(info.name, info.offset_data, info.size) for info in tar if info.isreg()]
    assert [tuple(member) for member in found(path)] == wanted
    assert [entry[0] for entry in wanted] == names


def test_sizes_beyond_octal_digits_are_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("huge.jpg")
    member.size = 9 * 2**30
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + member.size + 1024)  # sparse: it takes no space
    assert found(path) == [Member("huge.jpg", 512, member.size)]


def test_a_pax_header_says_the_size(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.jpg")
    member.size = 700
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member.pax_headers = {"size": "700", "comment": "path=no"}
        tar.addfile(member, io.BytesIO(bytes(700)))
        tar.addfile(tarfile.TarInfo("b.jpg"))
    assert [member.name for member in found(tmp_path / "a.tar")] == ["a.jpg", "b.jpg"]


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tar", NAMES[:1] + NAMES[3:]).read_bytes()
    end = whole.rindex(b"ustar") - 257 + 512 + 3 * 512  # after the last member: header, 1400 bytes, filled up
    for length in [*range(0, end, 511), end - 512, end]:
        (tmp_path / "a.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"a\.tar ends early, at byte {length} .*: pack it again"):
            found(tmp_path / "a.tar")


def test_damage_is_named_with_its_place(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.tar", ["a", "b"]).read_bytes())
    content[1024 + 3] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar is damaged at byte 1024: pack it again"):
        found(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(b"\xff\xd8\xff no tar file" * 100)
    with pytest.raises(DataError, match=r"a\.tar is no tar file"):
        found(tmp_path / "a.tar")
