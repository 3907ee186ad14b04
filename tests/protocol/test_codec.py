from __future__ import annotations

import contextlib
import hashlib
import json
import random
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.codec import (
    MAX_NESTING,
    Encoding,
    command_hash,
    decode_command,
    decode_commands,
    encode_command,
)
from protocol.commands import COMMANDS, Command, Ping, RefreshToken, ToolResult, UserMessage
from protocol.errors import ErrorCode, ParleyError
from protocol.values import canonical
from tests.protocol.strategies import COMMAND_STRATEGIES, FINITE, JSON, commands, few

ENCODINGS: list[Encoding] = ["json", "msgpack"]
both = pytest.mark.parametrize("encoding", ENCODINGS)

PREFIX = b'{"type":"tool_result","id":"c1","call_id":"t","result":'


def packed(result: object) -> bytes:
    """A tool result as MessagePack, whatever the result is."""
    return msgspec.msgpack.encode({"type": "tool_result", "id": "c1", "call_id": "t", "result": result})


def refused(data: bytes | str, encoding: Encoding = "json", **limits: int) -> ParleyError:
    with pytest.raises(ParleyError) as caught:
        decode_command(data, encoding, **limits)
    return caught.value


@pytest.mark.feature("T07")
@both
@pytest.mark.parametrize("name", COMMAND_STRATEGIES)
@few
@given(data=st.data())
def test_every_command_survives_a_round_trip(encoding: Encoding, name: str, data: st.DataObject) -> None:
    command = data.draw(COMMAND_STRATEGIES[name])
    assert decode_command(encode_command(command, encoding), encoding) == command


@given(commands())
def test_text_frames_are_as_good_as_bytes(command: Command) -> None:
    assert decode_command(encode_command(command).decode()) == command


@given(commands(), st.randoms(use_true_random=False))
def test_the_hash_knows_no_encoding_no_order_and_no_delivery(command: Command, chance: random.Random) -> None:
    plain = msgspec.to_builtins(command)
    keys = list(plain)
    chance.shuffle(keys)
    shuffled = {key: plain[key] for key in keys} | {"id": "another", "n": 7}
    variants = [
        decode_command(encode_command(command, "msgpack"), "msgpack"),
        decode_command(msgspec.json.encode(shuffled)),
        decode_command(json.dumps(plain)),
    ]
    assert {command_hash(variant) for variant in variants} == {command_hash(command)}


@given(commands())
def test_the_hash_is_that_of_the_sorted_json(command: Command) -> None:
    """Stored hashes outlive versions: whatever way is taken to it, it is this."""
    value = msgspec.to_builtins(command)
    asked = {key: item for key, item in value.items() if key not in ("id", "n")}
    encoded = msgspec.json.encode(canonical(asked), order="deterministic")
    assert command_hash(command) == hashlib.sha256(encoded).digest()


ODD_FIELDS = st.sampled_from(
    [
        '"n":1.0', '"n":1e0', '"n":true', '"n":"1"', '"n":null', '"n":1e999', '"n":18446744073709551617', '"n":-1',
        '"on_busy":"x"', '"on_busy":"reject"', '"content":""', '"content":"\\u0000"', '"content":"\\ud800"',
        '"content":"\\u0041"', '"content":[]', '"content":[{"type":"text","text":"x"}]', '"content":[{"text":"x"}]',
        '"content":[{"type":"text","text":"\\ud83d\\ude00"}]', '"content":[[["x"]]]', '"content":null',
        '"content":"😀é"', '"type":"ping"', '"type":"nothing"', '"type":null', '"id":"b"', '"id":"b c"', '"id":7',
        '"odd":1', '"agent_type":"coder"', '"agent_type":null', '"turn_id":"00000000-0000-0000-0000-000000000000"',
        '"order":[]', '"remove":null', '"token":"t"',
    ]
)  # fmt: skip


@given(st.sampled_from(sorted(COMMANDS)), st.lists(ODD_FIELDS, max_size=3), st.sampled_from(["", " ", "x", "]"]))
def test_the_short_way_to_a_command_leads_where_the_other_one_does(name: str, fields: list[str], end: str) -> None:
    text = "{" + ",".join([f'"type":"{name}","id":"a","content":"hello"', *fields]) + "}" + end

    def outcome() -> object:
        try:
            return decode_command(text.encode())
        except ParleyError as error:
            return error.code, error.message, error.path, error.id

    quick = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_read_closed", lambda data, max_bytes: None)
        assert outcome() == quick


@given(commands(), commands())
def test_the_hash_tells_commands_apart(a: Command, b: Command) -> None:
    def asked(command: Command) -> Any:
        value = msgspec.to_builtins(command)
        return {key: item for key, item in value.items() if key not in ("id", "n")}

    # Plain comparison takes 1 and 1.0 for equal as the hash does, but also 1 and True, which JSON tells apart.
    if asked(a) != asked(b):
        assert command_hash(a) != command_hash(b)


@given(st.integers(-(2**53), 2**53))
def test_a_number_has_one_hash_however_it_is_written(number: int) -> None:
    as_integer = decode_command(PREFIX + b"%d}" % number)
    as_float = decode_command(PREFIX + b"%d.0}" % number)
    as_double = decode_command(packed(float(number)), "msgpack")
    assert command_hash(as_integer) == command_hash(as_float) == command_hash(as_double)


@given(FINITE)
def test_a_fraction_has_one_hash_in_both_encodings(number: float) -> None:
    as_json = decode_command(PREFIX + json.dumps(number).encode() + b"}")
    assert command_hash(as_json) == command_hash(decode_command(packed(number), "msgpack"))


def test_truth_is_no_number_and_null_is_nothing() -> None:
    hashes = [
        command_hash(decode_command(PREFIX + text + b"}")) for text in (b"1", b"true", b'"1"', b"0", b"false", b"[]")
    ]
    assert len(set(hashes)) == len(hashes)
    assert command_hash(decode_command(PREFIX + b"null}")) == command_hash(ToolResult(id="x", call_id="t"))


def test_a_default_is_a_default_given_or_not() -> None:
    given_, left_out = (
        decode_command(b'{"type":"user_message","id":"a","content":"x"%b}' % extra)
        for extra in (b',"on_busy":"enqueue","agent_type":null', b"")
    )
    assert command_hash(given_) == command_hash(left_out)


@given(JSON, JSON)
def test_the_last_of_two_equal_keys_counts_in_both_encodings(first: Any, last: Any) -> None:
    text = PREFIX + msgspec.json.encode(first) + b',"result":' + msgspec.json.encode(last) + b"}"
    binary = b"\x85" + b"".join(map(msgspec.msgpack.encode, ["type", "tool_result", "id", "c1", "call_id", "t"]))
    binary += b"".join(map(msgspec.msgpack.encode, ["result", first, "result", last]))
    expected = ToolResult(id="c1", call_id="t", result=last)
    assert decode_command(text) == expected
    assert decode_command(binary, "msgpack") == expected


# --- what cannot be kept


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        (rb'"a\u0000"', "$.result", "NUL"),
        (rb'{"a":{"b":["x","\u0000"]}}', "$.result.a.b[1]", "NUL"),
        (rb'{"a":{"\u0000":1}}', "$.result.a", "NUL"),
        (rb'"\ud800"', "$.result", "lone surrogate"),
        (rb'"\udc00 and more"', "$.result", "lone surrogate"),
        (rb'"\ud800\ud800\udc00"', "$.result", "lone surrogate"),
        (rb'{"a":["\udfff"]}', "$.result.a[0]", "lone surrogate"),
        (rb'{"\ud800":1}', "$.result", "lone surrogate"),
        (rb'{"a b":"\ud800"}', '$.result["a b"]', "lone surrogate"),
        (b'"\xed\xa0\x80"', "$.result", "lone surrogate"),
        (b'["\xff"]', "$.result[0]", "not UTF-8"),
        (b'"\xe6\x97"', "$.result", "not UTF-8"),
        (b"NaN", "$.result", "finite"),
        (b"[-Infinity]", "$.result[0]", "finite"),
        (b"1e999", "$.result", "finite"),
        (b"18446744073709551616", "$.result", "64 bits"),
        (b"-9223372036854775809", "$.result", "64 bits"),
    ],
)
def test_json_that_cannot_be_kept_is_refused_by_name(text: bytes, path: str, words: str) -> None:
    error = refused(PREFIX + text + b"}")
    assert (error.code, error.path, error.id) == (ErrorCode.INVALID, path, "c1")
    assert words in error.message


@pytest.mark.parametrize(
    ("result", "path", "words", "code"),
    [
        ("a\0", "$.result", "NUL", ErrorCode.INVALID),
        ([{"a\0": 1}], "$.result[0]", "NUL", ErrorCode.INVALID),
        ([float("nan")], "$.result[0]", "finite", ErrorCode.INVALID),
        (float("-inf"), "$.result", "finite", ErrorCode.INVALID),
        (b"bytes", "$.result", "not bytes", ErrorCode.MALFORMED),
        ({"a": msgspec.msgpack.Ext(5, b"x")}, "$.result.a", "not Ext", ErrorCode.MALFORMED),
        (msgspec.msgpack.Ext(-1, b"\0\0\0\0"), "$.result", "not datetime", ErrorCode.MALFORMED),
        ([{1: 2}], "$.result[0]", "keys are strings, not int", ErrorCode.MALFORMED),
        ({None: 2}, "$.result", "keys are strings", ErrorCode.MALFORMED),
    ],
)
def test_messagepack_that_cannot_be_kept_is_refused_by_name(
    result: object, path: str, words: str, code: ErrorCode
) -> None:
    error = refused(packed(result), "msgpack")
    assert (error.code, error.path, error.id) == (code, path, "c1")
    assert words in error.message


@pytest.mark.parametrize(
    ("bad", "path"),
    [("QQ", "$.result"), (["a", "QQ"], "$.result[1]"), ({"a": {"b": "QQ"}}, "$.result.a.b"), ({"QQ": 1}, "$.result")],
)
@pytest.mark.parametrize("raw", [b"\xff\xff", b"\xc3("])
def test_messagepack_text_that_is_not_utf8_is_refused_by_name(bad: object, path: str, raw: bytes) -> None:
    error = refused(packed(bad).replace(b"QQ", raw), "msgpack")
    assert (error.code, error.path, error.id) == (ErrorCode.INVALID, path, "c1")
    assert "not UTF-8" in error.message


def test_messagepack_that_is_bad_far_inside_is_refused_where_the_look_ends() -> None:
    error = refused(packed([[[[[["QQ"]]]]]]).replace(b"QQ", b"\xff\xff"), "msgpack")
    assert error.path is not None
    assert error.path.startswith("$.result[0][0]")


def test_a_uuid_is_text_in_messagepack_too() -> None:
    data = msgspec.msgpack.encode({"type": "cancel", "id": "c1", "turn_id": bytes(16)})
    assert refused(data, "msgpack").path == "$.turn_id"


def test_what_can_be_kept_is_kept() -> None:
    text = r'"日本 😀 𝄞 \u2028 \t  "'
    assert decode_command(PREFIX + text.encode() + b"}") == ToolResult(
        id="c1", call_id="t", result="日本 😀 𝄞 \u2028 \t  "
    )
    escaped = decode_command(PREFIX + rb'"\ud83d\ude00 \\ud800 \\u0000"}')
    assert escaped == ToolResult(id="c1", call_id="t", result=r"😀 \ud800 \u0000")


# --- what cannot be read


@pytest.mark.parametrize(
    "data",
    [b"", b" ", b"{", b"nul", PREFIX, PREFIX + b"1}}", PREFIX + b'"\x01"}', b"{'type':'ping'}", b'{"type":"ping",}'],
)
def test_what_is_no_json_is_malformed(data: bytes) -> None:
    assert refused(data).code is ErrorCode.MALFORMED


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", packed(1)[:-1], packed(1) + b"\0", b"\xdd\xff\xff\xff\xff", b"\x81\x81\x01\x02\x03"]
)
def test_what_is_no_messagepack_is_malformed(data: bytes) -> None:
    assert refused(data, "msgpack").code is ErrorCode.MALFORMED


def test_messagepack_does_not_come_as_text() -> None:
    assert refused('{"type":"ping"}', "msgpack").code is ErrorCode.MALFORMED


@pytest.mark.parametrize("data", [b"[]", b"5", b'"ping"', b"null"])
def test_what_is_no_object_is_invalid(data: bytes) -> None:
    assert refused(data).code is ErrorCode.INVALID


@pytest.mark.feature("T06")
def test_too_many_bytes() -> None:
    data = PREFIX + b'"%b"}' % (b"x" * 100)
    assert decode_command(data, max_bytes=len(data))
    for form in (data, data.decode()):
        error = refused(form, max_bytes=len(data) - 1)
        assert (error.code, error.message) == (ErrorCode.TOO_LARGE, f"at most {len(data) - 1} bytes are allowed")
    # The limit is in bytes, also where the input is text.
    assert refused('{"type":"ping","id":"%s"}' % ("é" * 20), max_bytes=45).code is ErrorCode.TOO_LARGE


@pytest.mark.feature("T06")
@both
@pytest.mark.parametrize("shape", ["array", "object"])
def test_nesting_is_limited_in_words_and_not_by_the_stack(
    encoding: Encoding, shape: Literal["array", "object"]
) -> None:
    def nested(levels: int) -> bytes:
        # The command is a level itself, and brackets inside of strings are none.
        value: object = '[[[["{{{{'
        for _ in range(levels - 1):
            value = [value] if shape == "array" else {"a": value}
        return PREFIX + msgspec.json.encode(value) + b"}" if encoding == "json" else packed(value)

    assert decode_command(nested(MAX_NESTING), encoding)
    error = refused(nested(MAX_NESTING + 1), encoding)
    assert (error.code, error.id) == (ErrorCode.TOO_LARGE, "c1")
    assert "64 levels" in error.message
    assert refused(nested(4), encoding, max_nesting=3).code is ErrorCode.TOO_LARGE


@pytest.mark.feature("T06")
@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (PREFIX + b"[" * 500_000 + b"]" * 500_000 + b"}", "json"),
        (PREFIX + b'{"a":' * 150_000, "json"),
        (packed(None)[:-1] + b"\x91" * 1_000_000 + b"\x01", "msgpack"),
        (packed(None)[:-1] + b"\x81\xa1a" * 300_000 + b"\x01", "msgpack"),
    ],
    ids=["json arrays", "json objects", "msgpack arrays", "msgpack maps"],
)
def test_a_bomb_is_refused(data: bytes, encoding: Encoding) -> None:
    assert refused(data, encoding).code is ErrorCode.TOO_LARGE


@both
@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_command_or_a_refusal(encoding: Encoding, data: bytes) -> None:
    with contextlib.suppress(ParleyError):
        decode_command(data, encoding)


@both
@given(command=commands(), place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_damaged_command_is_a_command_or_a_refusal(
    encoding: Encoding, command: Command, place: int, byte: int
) -> None:
    data = bytearray(encode_command(command, encoding))
    data[place % len(data)] = byte
    try:
        decode_command(bytes(data), encoding)
    except ParleyError as error:
        # A refusal can itself be told to the other side.
        msgspec.json.encode(error.to_problem())


def test_a_refusal_is_short_however_long_its_cause() -> None:
    error = refused(b'{"type":"%b"}' % (b"x" * 100_000))
    assert len(error.message) < 1000
    error = refused(b'{"type":"ping","%b":1}' % (b"x" * 100_000))
    assert error.path is not None
    assert len(error.path) < 1000


# --- arrays


def test_one_bad_item_spoils_no_other() -> None:
    items = decode_commands(
        rb'[{"type":"ping","id":"a"},{"type":"ping","id":"b c"},7,'
        rb'{"type":"tool_result","id":"d","call_id":"t","result":["\ud800"]},'
        rb'{"type":"tool_result","id":"e","call_id":"t","result":"\u0000"},{"type":"ping","id":"f"}]'
    )
    assert [item.path if isinstance(item, ParleyError) else item.id for item in items] == [
        "a",
        "$[1].id",
        "$[2]",
        "$[3].result[0]",
        "$[4].result",
        "f",
    ]
    assert [item.id for item in items] == ["a", None, None, "d", "e", "f"]


def test_one_bad_item_spoils_no_other_in_messagepack() -> None:
    bad = packed("QQ").replace(b"QQ", b"\xff\xff")
    items = decode_commands(b"\x93" + packed(1) + bad + packed({1: 2}), "msgpack")
    assert items[0] == ToolResult(id="c1", call_id="t", result=1)
    assert [item.path for item in items[1:] if isinstance(item, ParleyError)] == ["$[1].result", "$[2].result"]


@both
@few
@given(wanted=st.lists(commands(), max_size=5))
def test_arrays_survive_a_round_trip(encoding: Encoding, wanted: list[Command]) -> None:
    parts = [encode_command(command, encoding) for command in wanted]
    data = b"[" + b",".join(parts) + b"]" if encoding == "json" else bytes([0x90 + len(parts)]) + b"".join(parts)
    assert decode_commands(data, encoding) == wanted


def test_a_single_command_is_an_array_of_one() -> None:
    assert decode_commands(b'{"type":"ping"}') == [Ping()]
    (error,) = decode_commands(b'{"type":"ping","id":5}')
    assert isinstance(error, ParleyError)
    assert error.path == "$.id"


@pytest.mark.feature("T06")
def test_too_many_commands() -> None:
    with pytest.raises(ParleyError, match="at most 2 commands") as caught:
        decode_commands(b'[{"type":"ping"},{"type":"ping"},{"type":"ping"}]', max_commands=2)
    assert caught.value.code is ErrorCode.TOO_LARGE


def test_an_array_that_cannot_be_read_is_refused_whole() -> None:
    with pytest.raises(ParleyError) as caught:
        decode_commands(b'[{"type":"ping"},')
    assert caught.value.code is ErrorCode.MALFORMED


# --- encoding


def test_what_has_no_form_is_not_sent() -> None:
    with pytest.raises(ParleyError) as caught:
        encode_command(UserMessage(id="c1", content="\ud800"))
    assert (caught.value.code, caught.value.id) == (ErrorCode.INVALID, "c1")
    with pytest.raises(ParleyError):
        encode_command(ToolResult(id="c1", call_id="t", result=2**70), "msgpack")
    with pytest.raises(ParleyError):
        encode_command(ToolResult(id="c1", call_id="t", result=object()))


def test_options_that_are_not_used_are_not_sent() -> None:
    assert encode_command(UserMessage(id="c1", content="hi")) == b'{"type":"user_message","id":"c1","content":"hi"}'
    assert encode_command(RefreshToken(id="c1", token="s")) == b'{"type":"refresh_token","id":"c1","token":"s"}'
