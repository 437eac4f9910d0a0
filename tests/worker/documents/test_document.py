"""What a document may be, and which of its services an operation gets."""

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.documents.document import (
    MAX_BYTES,
    InvalidDocument,
    base_service,
    choose,
    parse,
    select,
    services_of,
)

DECNET = """
name: fleet
networks:
  lan: {driver: bridge}
services:
  decky-01:
    image: debian:12
    hostname: web
    command: [sleep, infinity]
    cap_add: [NET_ADMIN]
    networks: {lan: {ipv4_address: 10.0.0.5}}
  decky-01-ssh: &service
    image: decnet/ssh
    network_mode: service:decky-01
    depends_on: [decky-01]
    environment: {BANNER: "SSH-2.0"}
  decky-01-http:
    <<: *service
    image: decnet/http
    depends_on:
      decky-01: {condition: service_started}
      decky-01-ssh: {condition: service_started}
"""

TWO_DECKIES: dict[str, Any] = {
    "services": {
        "decky-01": {"image": "a"},
        "decky-01-ssh": {"image": "a", "network_mode": "service:decky-01"},
        "decky-02": {"image": "a"},
        "decky-02-ssh": {"image": "a", "network_mode": "service:decky-02"},
    }
}


def refusal(source: Any, decky_name: str = "d") -> str:
    with pytest.raises(InvalidDocument) as refused:
        parse(source, decky_name)
    message = str(refused.value)
    assert "\n" not in message
    return message


def with_service(**fields: Any) -> dict[str, Any]:
    return {"services": {"d": {"image": "x", **fields}}}


def test_a_document_as_decnet_writes_it_is_taken_with_its_anchors_resolved() -> None:
    document = parse(DECNET, "decky-01")
    assert document["services"]["decky-01-http"]["network_mode"] == "service:decky-01"
    assert document["services"]["decky-01-http"]["image"] == "decnet/http"
    assert parse(document, "decky-01") == document == json.loads(json.dumps(document))


def test_plain_scalars_are_read_as_compose_reads_them() -> None:
    text = """
    services:
      d:
        ports: [22:22, 8080, "80"]
        labels: {on: yes, day: 2024-02-29, at: 12:30:45, mode: 0644, big: 0x1F, half: .5, many: 1e3, no: ~}
        privileged: True
    """
    service = parse(text, "d")["services"]["d"]
    assert service["ports"] == ["22:22", 8080, "80"]
    assert service["labels"] == {
        **{"on": "yes", "day": "2024-02-29", "at": "12:30:45"},
        **{"mode": 0o644, "big": 31, "half": 0.5, "many": 1000.0, "no": None},
    }
    assert service["privileged"] is True
    assert parse("services: {d: {environment: {SERIAL: 1234567890123456789}}}", "d")["services"]["d"] == {
        "environment": {"SERIAL": 1234567890123456789}
    }


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "must be a mapping"),
        ("[]", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("{}", "no services"),
        ("services:", "no services"),
        ("services: {}", "no services"),
        ("services: [ssh]", "no services"),
        ("services: {ssh: }", "services.ssh must be a mapping"),
        ("services: {-ssh: {}}", "not a name that Compose takes"),
        ("services: {'a b': {}}", "not a name that Compose takes"),
        ("services: {'': {}}", "not a name that Compose takes"),
        ("services: {d: {}, d: {}}", "twice in one mapping (line 1, column 19)"),
        ("services: {1: {}}", "services has a key that isn't text (int)"),
        ("services: {? [a] : {}}", "a key must be text"),
        ("services: {d: {x: .nan}}", "services.d.x is not a finite number"),
        ("services: {d: {x: -.inf}}", "services.d.x is not a finite number"),
        ("services: {d: {x: !!binary aGVsbG8=}}", "tags are not supported (line 1, column 19)"),
        ("services: {d: {x: !reset null}}", "tags are not supported"),
        ("services: {d: &a {x: *a}}", "contains itself"),
        ("services: {d: {x: *nowhere}}", "undefined alias"),
        ("services: {d: {network_mode: 'service:gone'}}", "services.d.network_mode names no other service"),
        ("services: {d: {network_mode: 'service:d'}}", "services.d.network_mode names no other service"),
        ("services: {d: {}}\n--- \nservices: {}", "several YAML documents (line 2, column 1)"),
        ("services: {d: {}}\ninclude: [other.yaml]", "`include` is not supported"),
        ("services: {d: {x: \x01}}", "character that YAML doesn't allow"),
        ("services: {d: {x: '\ud800'}}", "isn't Unicode"),
        ("services: {a: {}, b: {}}", "no base service for d"),
        ('services: {d: {x: "\\0"}}', "services.d.x has a NUL"),
        ("services: {d: {<<: text}}", "not valid YAML"),
        ("services: {d: {image: x}", "did not find expected ',' or '}'"),
    ],
)
def test_yaml_that_compose_could_not_use_is_refused_with_its_place(source: str, said: str) -> None:
    assert said in refusal(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "must be a mapping"),
        ([], "must be a mapping"),
        (b"services: {d: {}}", "must be a mapping"),
        ({1: 2}, "the document has a key that isn't text (int)"),
        (with_service(x=b"secret"), "services.d.x is of type bytes"),
        (with_service(x=[1, {2}]), "services.d.x[1] is of type set"),
        (with_service(x=datetime.date(2024, 1, 1)), "services.d.x is of type date"),
        (with_service(x=float("nan")), "services.d.x is not a finite number"),
        (with_service(x=2**63), "services.d.x is a number of more than 64 bits"),
        (with_service(x={None: 1}), "services.d.x has a key that isn't text (NoneType)"),
        (with_service(x={"\0": 1}), "services.d.x has a NUL character in a key"),
        (with_service(x="\ud800"), "isn't valid Unicode"),
    ],
)
def test_values_that_json_does_not_have_are_refused(source: Any, said: str) -> None:
    assert said in refusal(source)


@pytest.mark.parametrize(
    "text", ["p: 'hunter2", "p: *hunter2", "p: !hunter2 x", "p: [hunter2}", "{p: %hunter2}"]
)
def test_a_refusal_gives_line_and_column_and_never_quotes_the_document(text: str) -> None:
    message = refusal("services:\n  " + text)
    assert "hunter2" not in message
    assert "(line " in message


def test_a_document_over_one_mebibyte_is_refused() -> None:
    assert "larger than" in refusal(with_service(x="a" * MAX_BYTES))
    assert "larger than" in refusal(with_service(x=["é" * 1000] * 600))
    assert "larger than" in refusal("services: {d: {x: " + "a" * MAX_BYTES + "}}")
    fits = with_service(x="a" * (MAX_BYTES - 100))
    assert parse(fits, "d") == fits


@pytest.mark.parametrize("merge", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_that_expand_without_bound_are_refused_before_they_do(merge: str) -> None:
    lines = ["x0: &x0 {a: lol}"]
    for level in range(1, 40):
        lines.append(f"x{level}: &x{level} " + merge.format(", ".join([f"*x{level - 1}"] * 9)))
    assert "larger than" in refusal("\n".join([*lines, "services: {d: {}}"]))


def test_more_values_than_any_decky_needs_are_refused() -> None:
    assert "more than" in refusal("services: {d: {x: [" + "1," * 200_000 + "]}}")


def test_objects_that_are_shared_or_contain_themselves_are_refused() -> None:
    shared: list[Any] = ["lol"]
    for _level in range(40):
        shared = [shared] * 9
    assert "larger than" in refusal(with_service(x=shared))
    loop: dict[str, Any] = {}
    loop["x"] = loop
    assert "contains itself" in refusal(with_service(x=loop))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_nesting_is_bounded(opening: str) -> None:
    assert "nested more than" in refusal(opening * 100_000)


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!<|>'\"#?%@, \n\t\0\x85\ud800~1.")))
def test_no_text_makes_it_fail_in_another_way(text: str) -> None:
    for source in (text, "services: {d: {x: " + text + "}}"):
        try:
            document = parse(source, "d")
        except InvalidDocument:
            continue
        assert parse(document, "d") == document


def test_the_base_is_named_like_the_decky_or_shares_its_network_or_is_alone() -> None:
    assert base_service(TWO_DECKIES, "decky-02") == "decky-02"
    shared = {"services": {"ssh": {"network_mode": "service:net"}, "net": {}}}
    assert base_service(shared, "decky-01") == "net"
    assert base_service({"services": {"any": {}}}, "decky-01") == "any"
    assert "decky-02-ssh" in refusal(TWO_DECKIES, "decky-03")


@pytest.mark.parametrize(
    "services",
    [
        {"decky-01": {}},
        {"decky-01": {}, "decky-01-ssh": {"network_mode": "service:decky-01"}},
        {"web": {}, "web-ssh": {"network_mode": "service:web"}},
        {"base": {"labels": {"decnet.fleet.decky": "web"}}, "ssh": {"network_mode": "service:base"}},
    ],
)
def test_the_document_of_another_decky_is_refused(services: Any) -> None:
    assert "this is the document of" in refusal({"services": services}, "decky-99")


def test_a_decky_has_all_services_unless_the_document_has_several_deckies() -> None:
    one = {"services": {"ssh": {}, "d": {}, "http": {"network_mode": "service:d"}}}
    assert services_of(one, "d") == ["d", "ssh", "http"]
    assert services_of(TWO_DECKIES, "decky-02") == ["decky-02", "decky-02-ssh"]


@pytest.mark.parametrize("labels", [{"decnet.fleet.decky": "e"}, ["decnet.fleet.decky=e"]])
def test_a_service_labelled_for_another_decky_is_not_touched(labels: Any) -> None:
    assert services_of({"services": {"d": {}, "e": {"labels": labels}, "d-ssh": {}}}, "d") == ["d", "d-ssh"]


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (None, ["decky-01", "decky-01-ssh", "decky-01-http"]),
        ([], ["decky-01"]),
        (["decky-01"], ["decky-01"]),
        (["http", "ssh"], ["decky-01", "decky-01-http", "decky-01-ssh"]),
        (["ssh", "decky-01-ssh", "ssh"], ["decky-01", "decky-01-ssh"]),
    ],
)
def test_services_are_found_by_their_long_and_short_names(asked: list[str] | None, chosen: list[str]) -> None:
    assert choose(parse(DECNET, "decky-01"), "decky-01", asked) == chosen


@pytest.mark.parametrize(
    ("asked", "said"), [(["smb"], "has no service 'smb'; it has: decky-01, "), ("ssh", "list")]
)
def test_services_that_are_not_there_are_refused_with_those_that_are(asked: Any, said: str) -> None:
    with pytest.raises(InvalidDocument, match=said):
        choose(parse(DECNET, "decky-01"), "decky-01", asked)


def test_a_selection_has_these_services_only_and_depends_on_no_other() -> None:
    document = parse(DECNET, "decky-01")
    before = json.dumps(document)
    selected = select(document, "decky-01", ["decky-01", "decky-01-http"])
    assert set(selected) == {"networks", "services"}
    assert set(selected["services"]) == {"decky-01", "decky-01-http"}
    assert selected["services"]["decky-01-http"]["depends_on"] == {
        "decky-01": {"condition": "service_started"}
    }
    listed = {"services": {"d": {"depends_on": ["gone"]}, "gone": {}, "e": {"depends_on": ["d", "gone"]}}}
    assert select(listed, "d", ["d", "e"])["services"] == {"d": {}, "e": {"depends_on": ["d"]}}
    assert json.dumps(document) == before
