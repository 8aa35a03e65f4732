"""Names in other languages from tables as people have them."""

from pathlib import Path

import pytest

from birder.errors import DataError
from birder.serving.species import SpeciesNames, read_names

CLASSES = ["Eurasian Wren", "Great Tit"]
NAMES = {"Eurasian Wren": {"de": "Zaunkönig"}, "Great Tit": {"de": "Kohlmeise"}}


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "names.csv"
    path.write_bytes(text.encode(encoding))
    return path


def read(folder: Path, text: str, classes: list[str] = CLASSES) -> SpeciesNames:
    return read_names(table(folder, text), classes)


@pytest.mark.parametrize(
    "text",
    [
        "species,de\nGreat Tit,Kohlmeise\nEurasian Wren,Zaunkönig\n",
        "de;label\nZaunkönig;Eurasian Wren\n\nKohlmeise;Great Tit\n;\n",
        "\ufeffName\tDE\r\nGreat Tit\t Kohlmeise \r\n Eurasian Wren \tZaunkönig\r\n",
        "species,de\ngreat_tit,Kohlmeise\nEURASIAN  wren,Zaunko\u0308nig\nEmu,Emu\n",
        "species,de\nGreat Tit,Kohlmeise\nGreat Tit,Kohlmeise\nGreat Tit,\nEurasian Wren,Zaunkönig",
        "species,de\nGreat Tit,Kohlmeise\ngreat tit,Meise\nEurasian Wren,Zaunkönig",  # exactly goes before nearly
        'species,de\n"Great Tit","Kohlmeise"\nEurasian Wren,Zaunkönig,\n',
    ],
)
def test_tables(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == SpeciesNames(languages=("de",), of=NAMES)


def test_a_language_for_each_column_and_what_is_not_there(tmp_path: Path) -> None:
    text = (
        "label,pt_br,zh-hant-tw,family,sl-ROZAJ-1994,Deutsch\nGreat Tit,Chapim,,Paridae,x,Meise\nEurasian Wren,,,T,,\n"
    )
    names = read(tmp_path, text)
    assert names.languages == ("pt-BR", "zh-Hant-TW", "sl-rozaj-1994")
    assert names.of == {"Great Tit": {"pt-BR": "Chapim", "sl-rozaj-1994": "x"}}
    assert names.notice == (
        f"{tmp_path}/names.csv has no names for 1 of 2 species: Eurasian Wren; "
        f"{tmp_path}/names.csv: columns that are no tag of a language were passed over: family, Deutsch"
    )


def test_a_model_without_classes_has_no_names(tmp_path: Path) -> None:
    assert read(tmp_path, "species,de\nGreat Tit,Kohlmeise\n", []) == SpeciesNames(languages=("de",))


def test_a_notice_is_short(tmp_path: Path) -> None:
    notice = read(tmp_path, "species,de\nEmu,Emu\n", ["Emu", *(f"Bird {number}" for number in range(9))]).notice
    assert notice.endswith("for 9 of 10 species: Bird 0; Bird 1; Bird 2; Bird 3; Bird 4; and 4 more")


def test_classes_that_differ_in_case_alone_are_told_apart(tmp_path: Path) -> None:
    names = read(tmp_path, "species,en\nBLUE TIT,either\nblue tit,lower\n", ["Blue Tit", "blue tit"])
    assert names.of == {"Blue Tit": {"en": "either"}, "blue tit": {"en": "lower"}}


@pytest.mark.parametrize("key", ["label", "species"])
def test_the_first_of_the_columns_that_name_a_species(tmp_path: Path, key: str) -> None:
    assert read(tmp_path, f"name,{key},de\nParus major,Great Tit,Kohlmeise\n").of == {"Great Tit": NAMES["Great Tit"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "first line must name a column label, species or name"),
        ("bird,de\nGreat Tit,Kohlmeise\n", "it is 'bird, de'"),
        ("species,family\nGreat Tit,Paridae\n", "one for each language by its tag"),
        ("species,pt-br,pt_BR\nGreat Tit,a,b\n", "two columns of names in pt-BR"),
        ("species,de\nEmu,Emu\n", "no name for any species of the model, such as Eurasian Wren"),
        ("species,de\nGreat Tit,\n", "no name for any species"),
        ("species,de\nGreat Tit,Meise\nGreat Tit,Kohlmeise\n", "line 3: Great Tit has two names in de, Meise and Kohl"),
        ("species,de\nGreat Tit,Meise\n\nWren, Eurasian,x\n", "line 4 has 3 cells, and the first line 2"),
    ],
)
def test_tables_that_do_not_do(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path, text)
    assert "names.csv" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.csv cannot be read as CSV: .*No such file"):
        read_names(tmp_path / "no.csv", CLASSES)
    with pytest.raises(DataError, match="no text in UTF-8: save it as"):
        read_names(table(tmp_path, "species,de\nEurasian Wren,Zaunkönig\n", "latin-1"), CLASSES)
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read(tmp_path, f'species,de\n"{"x" * 200_000}",y\n')
