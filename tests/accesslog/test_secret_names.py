"""Names that are remembered: what clients choose cannot fill the memory, and says the same each time."""

from accesslog.secret_names import NAMES_IN, Remembered


def test_a_name_is_looked_into_once() -> None:
    asked: list[str] = []
    lengths = Remembered(lambda name: asked.append(name) or len(name))
    assert [3, 3] == [lengths["abc"], lengths["abc"]]
    assert ["abc"] == asked


def test_no_more_than_4096_names_are_remembered() -> None:
    lengths = Remembered(len)
    for number in range(10_000):
        assert len(str(number)) == lengths[str(number)]
    assert 0 < len(lengths) <= 4096


def test_a_long_name_is_answered_and_not_remembered() -> None:
    lengths = Remembered(len)
    assert [256, 257] == [lengths["x" * 256], lengths["x" * 257]]
    assert ["x" * 256] == list(lengths)


def test_a_parameter_s_name_may_hold_several_names() -> None:
    assert (("user", "user"), ("accesstoken", "access_token"), ("", "")) == NAMES_IN["User[Access_Token]"]
