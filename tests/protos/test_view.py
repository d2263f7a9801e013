"""Our reading of a CheckRequest has no field that Envoy's message lacks, and each means the same bytes."""

import pytest
from google.protobuf.descriptor import FieldDescriptor

from protos.edgekeeper.view import check_pb2
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

BYTES, MESSAGE = FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE


def pairs(view, envoys):
    """Each field of the view, with the field of Envoy's message that it reads."""
    for field in view.fields:
        other = envoys.fields_by_name[field.name]
        yield field, other
        if field.type == MESSAGE and not field.message_type.GetOptions().map_entry:
            yield from pairs(field.message_type, other.message_type)


PAIRS = {
    field.full_name: (field, other)
    for field, other in pairs(check_pb2.CheckRequest.DESCRIPTOR, CheckRequest.DESCRIPTOR)
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_field_is_that_of_envoys_or_the_bytes_of_its_message(name):
    field, envoys = PAIRS[name]
    assert envoys.number == field.number
    if field.type == BYTES:  # a message may come in pieces: its bytes are those of all pieces in a row
        assert (MESSAGE, True) == (envoys.type, field.is_repeated)
    else:
        assert (envoys.type, envoys.is_repeated) == (field.type, field.is_repeated)


def test_a_map_has_the_entries_of_envoys():
    maps = [(a, b) for a, b in PAIRS.values() if a.type == MESSAGE and a.message_type.GetOptions().map_entry]
    assert 2 == len(maps)
    for field, envoys in maps:
        assert [(f.number, f.type) for f in envoys.message_type.fields] == [
            (f.number, f.type) for f in field.message_type.fields
        ]
