import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lexmax.index.sparse.vocabulary import GrowingVocabulary, Vocabulary
from lexmax.index.strings import StringTable

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(words, unique=True, max_size=40), st.lists(words, max_size=10))
def test_find_is_what_a_dict_says(strings, others):
    table = StringTable.of(strings)
    positions = {string: i for i, string in enumerate(strings)}
    wanted = strings + others
    assert table.find(wanted).tolist() == [positions.get(string, -1) for string in wanted]
    assert table.take(range(len(table))) == strings
    assert table.to_arrow().to_pylist() == strings


def test_equal_hashes_are_told_apart():
    from lexmax.index.kernels.hashing import find_string

    a, b = StringTable.of(["ab"]), StringTable.of(["cd", "ab"])
    same = b._hashes.copy()
    same[:] = 7
    same.flags.writeable = False
    assert find_string(b._characters, b._offsets, same, b._order, a._characters, same[0]) == 1
    assert find_string(b._characters, b._offsets, same, b._order, a._characters[:1], same[0]) == -1


def test_a_table_survives_the_disk(tmp_path):
    strings = ["", "a", "größe", "日本", "a" * 5000]
    StringTable.of(strings).write(tmp_path / "s.lex")
    table = StringTable.open(tmp_path / "s.lex")
    assert table.find([*strings, "b"]).tolist() == [0, 1, 2, 3, 4, -1]


def test_a_growing_vocabulary_numbers_new_strings_after_the_known():
    known = Vocabulary([StringTable.of(["a", "b"]), StringTable.of(["c"])])
    growing = GrowingVocabulary(known)
    assert growing.number(["c", "x", "a"]).tolist() == [2, 3, 0]
    assert growing.number(["y", "x"]).tolist() == [4, 3]
    assert growing.new == ["x", "y"]
    assert known.find(["c", "q", "b"]).tolist() == [2, -1, 1]
    assert known.strings(np.array([0, 2, 9], np.int32)) == ["a", "c", "#9"]
