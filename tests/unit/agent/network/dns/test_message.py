import contextlib

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network.dns import message


def query(name="web.app", kind="A", **options):
    made = dns.message.make_query(name, kind, **options)
    return made, message.parse(made.to_wire())


def test_questions_are_read_and_answers_understood():
    made, ours = query("Web.App", "A")
    assert (ours.name, ours.kind, ours.extended, ours.udp_bytes) == ("web.app", message.A, False, 512)
    records = [message.address_record("10.0.0.1"), message.address_record("10.0.0.2")]
    answer = dns.message.from_wire(message.respond(ours, message.NO_ERROR, records))
    assert made.is_response(answer)
    assert {str(item) for item in answer.answer[0]} == {"10.0.0.1", "10.0.0.2"}
    assert answer.answer[0].ttl == message.TTL_S
    assert answer.flags & dns.flags.RA


def test_edns_is_tolerated_and_answered():
    made, ours = query(use_edns=0, payload=4096)
    assert (ours.extended, ours.udp_bytes) == (True, message.UDP_BYTES)
    answer = dns.message.from_wire(message.respond(ours, message.NO_SUCH_NAME))
    assert answer.edns == 0
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert made.is_response(answer)


def test_what_does_not_fit_is_truncated():
    _, ours = query()
    records = [message.address_record(f"10.0.0.{number}") for number in range(200)]
    short = message.respond(ours, message.NO_ERROR, records)
    assert len(short) <= 512
    assert dns.message.from_wire(short).flags & dns.flags.TC
    whole = message.respond(ours, message.NO_ERROR, records, limit=message.TCP_BYTES)
    assert len(dns.message.from_wire(whole).answer[0]) == 200


def test_pointers():
    _, ours = query("2.0.0.10.in-addr.arpa", "PTR")
    assert message.reverse_address(ours.name) == "10.0.0.2"
    answer = dns.message.from_wire(message.respond(ours, 0, [message.pointer_record("web.app")]))
    assert str(answer.answer[0][0]) == "web.app."


@pytest.mark.parametrize("name", ["web", "1.2.3.in-addr.arpa", "1.2.3.999.in-addr.arpa", "a.b.c.d.in-addr.arpa"])
def test_what_asks_for_no_address(name):
    assert message.reverse_address(name) == ""


@given(st.binary(max_size=80))
def test_garbage_is_refused_never_a_crash(data):
    with contextlib.suppress(ValueError):
        message.parse(data)


@given(st.binary(max_size=60), st.data())
def test_damaged_queries_are_refused_or_understood(noise, data):
    wire = bytearray(dns.message.make_query("tasks.shop.example", "A", use_edns=0).to_wire())
    at = data.draw(st.integers(0, len(wire)))
    wire[at : at + len(noise)] = noise
    try:
        found = message.parse(bytes(wire))
    except ValueError:
        return
    assert message.respond(found, message.NO_ERROR)[:2] == bytes(wire[:2])


def test_answers_to_something_else_are_not_taken():
    asked = dns.message.make_query("web.app", "A")
    right = dns.message.make_response(asked).to_wire()
    assert message.answers(right, asked.to_wire())
    assert not message.answers(asked.to_wire(), asked.to_wire())
    assert not message.answers(b"\0\0" + right[2:], asked.to_wire()) or asked.id == 0
    other = dns.message.make_query("evil.app", "A", id=asked.id)
    assert not message.answers(dns.message.make_response(other).to_wire(), asked.to_wire())
    assert message.with_id(right, 7)[:2] == b"\0\7"


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64])
def test_names_that_dns_cannot_hold(name):
    with pytest.raises(ValueError, match="no DNS name"):
        message.encode_name(name)
