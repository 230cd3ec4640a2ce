"""Errors name the file that the user gave."""

import pytest

from jaxprot.core.errors import InputError, naming


@pytest.mark.parametrize(
    ("source", "message", "told"),
    [
        ("dir/1abc.pdb", "1abc: no chain 'Z'", "dir/1abc.pdb: no chain 'Z'"),
        ("dir/1abc.pdb", "something else", "something else"),
        (object(), "1abc: no chain 'Z'", "1abc: no chain 'Z'"),
    ],
    ids=["a path", "another message", "a parsed structure"],
)
def test_the_path_takes_the_place_of_the_name(source, message, told):
    with pytest.raises(InputError) as caught, naming(source, "1abc"):
        raise InputError(message)
    assert str(caught.value) == told
