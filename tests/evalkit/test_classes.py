import pytest

from evalkit.classes import join
from evalkit.data import Source
from evalkit.errors import InputError


def source(*classes, **more):
    return Source(name="photos", paths=["a"], classes=classes, load=print, **more)


def test_names_of_the_data_find_their_outputs():
    joined = join(source("cat", "dog"), stored=["dog", "eel", "cat"])

    assert joined.names == ("dog", "eel", "cat")
    assert (joined.outputs["cat"], joined.outputs["dog"]) == (2, 0)
    assert joined.warnings == ()


def test_the_option_comes_before_the_checkpoint():
    assert join(source("cat"), given=["cat"], stored=["dog"]).names == ("cat",)


def test_unknown_names_fail_with_their_list():
    with pytest.raises(InputError) as error:
        join(source("cat", "dog", "yak"), given=["cat"])

    assert str(error.value) == (
        "data must have only classes that the model knows by the option, 1 name such as cat, got 2 "
        "others in photos: dog, yak: leave their samples out with on_unknown_class='skip'"
    )


@pytest.mark.parametrize("on_unknown", ["fail", "skip"])
def test_data_of_which_nothing_is_known(on_unknown):
    with pytest.raises(InputError) as error:
        join(source("n01440764"), stored=["tench"], on_unknown=on_unknown)

    assert str(error.value) == (
        "data must have only classes that the model knows by the checkpoint, 1 name such as tench, "
        "got 1 other in photos: n01440764: none of them fits, so name the outputs of the model in "
        "their order with classes"
    )


def test_unknown_names_are_set_aside_when_asked():
    joined = join(source("cat", "yak"), stored=["cat"], on_unknown="skip")

    assert joined.unknown == ("yak",)
    assert "yak" not in joined.outputs


def test_on_unknown_class_must_be_one_of_two():
    with pytest.raises(InputError) as error:
        join(source("cat"), on_unknown="ignore")

    assert str(error.value) == "on_unknown_class must be fail or skip, got 'ignore'"


def test_numbers_alone_are_positions_and_that_is_said():
    joined = join(source("0", "2", numbered=True), stored=["dog", "eel", "cat"])

    assert joined.names == ("dog", "eel", "cat")
    assert joined.outputs == {"0": 0, "1": 1, "2": 2}
    assert joined.warnings == (
        "the data know their classes by number alone: the numbers were taken for positions among "
        "the outputs that the checkpoint names, from 0: 0 is dog, 2 is cat",
    )


@pytest.mark.parametrize("labels", [("1", "3"), ("0", "01"), ("-1",)])
def test_numbers_that_are_no_positions_are_refused(labels):
    with pytest.raises(InputError, match="data must have only classes that the model knows"):
        join(source(*labels, numbered=True), stored=["dog", "eel", "cat"])


def test_folders_named_by_numbers_are_names():
    with pytest.raises(InputError, match="data must have only classes that the model knows"):
        join(source("0", "1"), stored=["dog", "eel"])


def test_numbers_that_are_the_names_of_the_outputs():
    joined = join(source("1", "3", numbered=True), stored=["3", "1"])

    assert (joined.outputs, joined.warnings) == ({"3": 0, "1": 1}, ())


def test_nobody_names_the_outputs():
    assert join(source("cat", "dog")).warnings == (
        "the checkpoint does not name its classes: outputs were taken in the order of the data, "
        "cat, dog",
    )
    assert join(source("1", "10", "2", order_is_a_guess=True)).warnings == (
        "the checkpoint does not name its classes: outputs were taken in the order 1, 10, 2; "
        "programs that count naturally have 1, 2, 10: if the model was trained so, name the "
        "classes",
    )
    assert join(source("0", "1", numbered=True)).warnings == (
        "neither the checkpoint nor the data name the classes: the numbers of the data were taken "
        "for outputs, in the order 0, 1",
    )


def test_blanks_around_the_names_of_the_data_are_said():
    with pytest.raises(InputError, match=r": remove the blanks around 'dog '$"):
        join(source("cat", "dog "), stored=["cat", "dog"])


def test_numbers_are_positions_only_where_none_is_a_name():
    """Of outputs 1, 2 and 3 the labels 1 and 2 are names; as positions all would be shifted."""
    joined = join(source("0", "1", "2", numbered=True), stored=["1", "2", "3"], on_unknown="skip")

    assert (joined.unknown, joined.outputs["1"], joined.outputs["2"]) == (("0",), 0, 1)
    with pytest.raises(InputError, match="others of its numbers are names of outputs"):
        join(source("0", "1", "2", numbered=True), stored=["1", "2", "3"])


def test_letters_that_are_composed_otherwise_are_the_same():
    """Folders from macOS have the accent behind its letter, as a character of its own."""
    joined = join(source("cafe\u0301", "tea"), stored=["caf\u00e9", "tea"])

    assert joined.names == ("caf\u00e9", "tea")
    assert joined.outputs["cafe\u0301"] == 0


def test_both_compositions_of_a_name_are_two_classes():
    with pytest.raises(InputError, match="1 other in photos"):
        join(source("cafe\u0301", "caf\u00e9"), stored=["caf\u00e9", "tea"])


@pytest.mark.parametrize("name", ["Red", " red"])
def test_names_that_differ_in_case_or_blanks_are_said(name):
    with pytest.raises(InputError) as error:
        join(source("red", "blue"), stored=[name, "blue"])

    assert str(error.value).endswith(
        f": write them alike, as only blanks or case differ: 'red' and {name!r}"
    )
