"""Families of species from tables as people have them."""

from pathlib import Path

import pytest

from birder.data.taxonomy import read_taxonomy
from birder.errors import DataError


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "taxonomy.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "species,family\nGreat Tit,Paridae\nEurasian Wren,Troglodytidae\n",
        "family;label\nParidae;Great Tit\n\nTroglodytidae;Eurasian Wren\n",
        "\ufeffname\tcode\tfamily\r\nGreat Tit\t7\t Paridae \r\nEurasian Wren\t8\tTroglodytidae\r\n",
        'Species,Order,Family\n"Great Tit",x,Paridae\nEurasian Wren,x,Troglodytidae\nEmu,x,Casuariidae\n',
        "name,species,family\nParus major,Great Tit,Paridae\nx,Eurasian Wren,Troglodytidae\n",
        "label,family\nGreat Tit,Paridae\nGreat Tit,Paridae\nEurasian Wren,Troglodytidae",
    ],
)
def test_tables(tmp_path: Path, text: str) -> None:
    found = read_taxonomy(table(tmp_path, text), ["Eurasian Wren", "Great Tit"])
    assert list(found.items()) == [("Eurasian Wren", "Troglodytidae"), ("Great Tit", "Paridae")]


def test_letters_composed_and_decomposed_are_the_same(tmp_path: Path) -> None:
    path = table(tmp_path, "species,family\nRu\u0308ppell's Parrot,Psittacidae\n")
    assert read_taxonomy(path, ["R\u00fcppell's Parrot"]) == {"R\u00fcppell's Parrot": "Psittacidae"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("species,order\nGreat Tit,x\n", r"must name the columns family and label, species or name; it is 'species,o"),
        ("family,bird\nParidae,Great Tit\n", "must name the columns family and"),
        ("", "must name the columns family and"),
        ("species,family\nGreat Tit,Paridae\nGreat Tit,Laridae\n", "line 3: Great Tit has two families, Paridae and L"),
        ("species,family\nGreat Tit,\n", "line 2: no family"),
        ("species,family\nGreat Tit\n", "line 2: no family"),
        ("species,family\n ,Paridae\n", "line 2: no species"),
        (
            "species,family\nGreat Tits,Paridae\n",
            r"(?s)no family for 1 of 1 species.*  Great Tit; did you mean Great T",
        ),
        ('species,family\n"Great Tit,Paridae\n', "no family"),
    ],
)
def test_tables_that_will_not_do(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_taxonomy(table(tmp_path, text), ["Great Tit"])


def test_files_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_taxonomy(tmp_path / "nothing.csv", [])
    with pytest.raises(DataError, match="save it as 'CSV UTF-8'"):
        read_taxonomy(table(tmp_path, "species,family\nRüppell,Psittacidae\n", "latin-1"), [])


def test_many_missing_species_are_counted(tmp_path: Path) -> None:
    path = table(tmp_path, "species,family\nEmu,Casuariidae\n")
    with pytest.raises(DataError, match=r"(?s)no family for 30 of 31 species.*  bird 9\n  and 20 more$"):
        read_taxonomy(path, ["Emu", *(f"bird {number}" for number in range(30))])


def test_the_families_of_real_birds(shared: Path) -> None:
    names = sorted(path.name for path in (shared / "birds" / "val").iterdir())
    found = read_taxonomy(shared / "birds" / "classes.csv", names)
    assert list(found) == names and found["American Goldfinch"] == "Fringillidae"
