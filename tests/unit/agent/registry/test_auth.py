"""Challenges of all kinds, and who gets the password for them."""

from __future__ import annotations

import pytest

from agent.registry import auth
from agent.registry.auth import TOKEN_USER, Challenge, Credentials
from shoal.errors import PermissionDenied, Unavailable

ME = Credentials("me", "secret")
BEARER = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull"'


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (['Basic realm="basic-realm"'], [("basic", {"realm": "basic-realm"})]),
        (['basic realm="a b, c", charset=UTF-8'], [("basic", {"realm": "a b, c", "charset": "UTF-8"})]),
        (
            [BEARER],
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:library/a:pull",
                    },
                )
            ],
        ),
        (['Bearer realm="a", Basic realm="b"'], [("bearer", {"realm": "a"}), ("basic", {"realm": "b"})]),
        (["Negotiate", 'Basic realm="b"'], [("negotiate", {}), ("basic", {"realm": "b"})]),
        ([], []),
    ],
)  # fmt: skip
def test_challenges(headers: list[str], found: list[tuple[str, dict[str, str]]]) -> None:
    assert auth.challenges(headers) == [Challenge(*each) for each in found]


def test_a_token_is_asked_for_with_all_scopes_once_each() -> None:
    (challenge,) = auth.challenges([BEARER])
    wanted = auth.token_request(
        challenge,
        registry="registry-1.docker.io",
        scopes=["repository:library/a:pull,push", "repository:library/b:pull"],
        credentials=ME,
    )
    assert wanted.url.query.getall("scope") == ["repository:library/a:pull,push", "repository:library/b:pull"]
    assert wanted.url.query["service"] == "registry.docker.io"
    assert wanted.authorization == ME.basic
    assert "offline_token" not in wanted.url.query


def test_an_identity_token_goes_in_a_form_and_never_in_the_address() -> None:
    (challenge,) = auth.challenges([BEARER])
    me = Credentials(TOKEN_USER, "refresh")
    wanted = auth.token_request(challenge, registry="registry-1.docker.io", scopes=[], credentials=me)
    assert (wanted.authorization, wanted.form["refresh_token"]) == ("", "refresh")
    assert "refresh" not in str(wanted.url)


@pytest.mark.parametrize(
    ("registry", "realm", "told"),
    [
        ("reg.example.com:5000", "https://auth.example.com/token", True),
        ("reg.example.com", "https://reg.example.com:8443/token", True),
        ("reg.example.com", "https://auth.evil.org/token", False),
        ("10.0.0.1:5000", "http://10.0.0.2/token", False),
    ],
)
def test_the_password_goes_to_the_registrys_own_site_alone(registry: str, realm: str, told: bool) -> None:
    challenge = Challenge("bearer", {"realm": realm})
    assert auth.token_request(challenge, registry=registry, scopes=[], credentials=None).authorization == ""
    if told:
        assert auth.token_request(challenge, registry=registry, scopes=[], credentials=ME).authorization == ME.basic
    else:
        with pytest.raises(PermissionDenied, match=r"to send its password to another site"):
            auth.token_request(challenge, registry=registry, scopes=[], credentials=ME)


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b'{"token": 1}', b"<html>"])
def test_a_token_service_that_gives_no_token(answer: bytes) -> None:
    with pytest.raises(Unavailable, match="the token service auth"):
        auth.token_of(answer, realm="auth")


def test_credentials_do_not_show_themselves() -> None:
    assert "secret" not in repr(ME)
