"""Many names in little memory, and each comes back as it was."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from birder.data.names import Names, composed

# All that a file system can give: also bytes that are no UTF-8, which Python shows as lone surrogates.
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.just("caf\udce9.jpg"))


@given(texts)
def test_names_come_back(names: list[str]) -> None:
    kept = Names(names)
    assert len(kept) == len(names) and list(kept) == names
    text, ends = kept.parts()
    for same in (pickle.loads(pickle.dumps(kept)), Names.joined(bytes(text), ends.tobytes())):
        assert [same[index] for index in range(len(same))] == names


def test_a_million_names_take_little_more_than_their_letters() -> None:
    names = Names(f"{number:030d}" for number in range(10_000))
    assert len(pickle.dumps(names)) < 10_000 * (30 + 8) + 200


def test_composed() -> None:
    assert composed("Gru\u0308nfink") == "Grünfink" == composed("Grünfink")
