"""Where strangers may send us: the public Internet, and what the operator opens; never by the detour of a second look-up."""
from __future__ import annotations

import ipaddress

import httpx
import pytest

from service.intake.addresses import AddressRules, FetchFailed, ForbiddenAddress, checked_url, is_allowed, pinned

FORBIDDEN = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255
    192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 192.168.0.1 192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1
    239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:8.8.8.8 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b::808:808 64:ff9b:1::1 100::1 fe80::1
    fe80::1%eth0 fec0::1 fc00::1 fd00:ec2::254 fdff::1 ff02::1 ff0e::1 2001::1 2001:0:7f00:1::1 2001:2::1 2001:10::1 2001:db8::1 2002:7f00:1::1
    2002:a00:1:: 3fff::1 5f00::1 4000::1
"""
ALLOWED = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.169.0.1 223.255.255.255 2606:4700::1111 2a00:1450::1"


@pytest.mark.parametrize("text", FORBIDDEN.split())
def test_inner_addresses_are_forbidden(text: str) -> None:
    assert not is_allowed(ipaddress.ip_address(text))
    host = f"[{text}]" if ":" in text else text
    if "%" not in text:
        with pytest.raises(ForbiddenAddress):
            pinned(checked_url(f"https://{host}/a.zip", AddressRules()), AddressRules())


@pytest.mark.parametrize("text", ALLOWED.split())
def test_public_addresses_are_allowed(text: str) -> None:
    assert is_allowed(ipaddress.ip_address(text))


def test_the_operator_can_open_networks() -> None:
    networks = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
    assert is_allowed(ipaddress.ip_address("127.0.0.1"), networks) and is_allowed(ipaddress.ip_address("fd00::1"), networks)
    assert not is_allowed(ipaddress.ip_address("10.0.0.1"), networks) and not is_allowed(ipaddress.ip_address("::ffff:127.0.0.1"), networks)


@pytest.mark.parametrize("host", ["0x7f.1", "2130706433", "017700000001", "127.1", "0", "localhost", "localhost."])
def test_other_spellings_of_this_machine(host: str) -> None:
    """Whatever the system makes of a name is what is checked."""
    url = checked_url(f"https://{host}/a.zip", AddressRules())
    with pytest.raises(FetchFailed, match=r"not of the public Internet|is not known"):
        pinned(url, AddressRules())


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.zip", "ftp://example.com/a", "file:///etc/passwd", "gopher://example.com/", "//example.com/a", "example.com/a.zip",
        "https:///a.zip", "https://", "", "https://user@example.com/", "https://user:password@example.com/", "https://example.com:22/",
        "https://example.com:8443/", "https://example.com:99999/", "https://exa mple:x/", "https://①②⑦.0.0.1/", "javascript:alert(1)", "\0",
        "https://example.com/\n", "https://example.com/" + "a" * 5000, "jar:https://example.com/!a", "unix:/var/run/docker.sock",
    ],
)  # fmt: skip
def test_urls_of_other_forms_are_refused(url: str) -> None:
    with pytest.raises(ForbiddenAddress) as caught:
        checked_url(url, AddressRules())
    assert "\n" not in str(caught.value) and "password" not in str(caught.value).replace("a user name or a password", "")


def test_http_and_ports_can_be_opened() -> None:
    rules = AddressRules(allow_http=True, ports=(80, 443, 8443))
    for url in ("http://example.com/a", "https://example.com:8443/a", "HTTPS://EXAMPLE.com/a?b=c%20d"):
        assert checked_url(url, rules).host == "example.com"


def test_a_request_goes_to_the_address_that_was_checked() -> None:
    asked: list[tuple[str, int]] = []

    def rebinding(host: str, port: int) -> list[str]:
        """Public when it is checked, this machine afterwards."""
        asked.append((host, port))
        return ["93.184.215.14", "2606:4700::1111"] if len(asked) == 1 else ["127.0.0.1"]

    rules = AddressRules(resolver=rebinding)
    ways = pinned(checked_url("https://Bücher.example./a.zip?key=1", rules), rules)
    assert [str(way.url) for way in ways] == ["https://93.184.215.14/a.zip?key=1", "https://[2606:4700::1111]/a.zip?key=1"]
    for way in ways:
        request = httpx.Request("GET", way.url, headers=way.headers)
        assert request.headers["host"] == "xn--bcher-kva.example." and way.extensions == {"sni_hostname": "xn--bcher-kva.example"}
    assert asked == [("xn--bcher-kva.example", 443)]


@pytest.mark.parametrize("found", [["93.184.215.14", "127.0.0.1"], ["10.0.0.1"], ["::ffff:10.0.0.1"], ["fe80::1%eth0"], ["something"]])
def test_one_inner_address_among_several_is_one_too_many(found: list[str]) -> None:
    rules = AddressRules(resolver=lambda host, port: found)
    with pytest.raises(ForbiddenAddress) as caught:
        pinned(checked_url("https://example.com/", rules), rules)
    assert found[-1] not in str(caught.value)  # inner addresses stay untold


def test_a_host_that_nobody_knows() -> None:
    def failing(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    for resolver in (failing, lambda host, port: []):
        rules = AddressRules(resolver=resolver)
        with pytest.raises(FetchFailed, match="'nowhere.example' is not known"):
            pinned(checked_url("https://nowhere.example/", rules), rules)
