"""Which addresses of the network the service may be sent to by a stranger, and requests that go to a checked address only."""
from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], list[str]]
LONGEST_URL = 4096

# Everything that is not the public Internet (IANA's registries of special addresses). Written out, because what
# ipaddress calls global differs between versions of Python.
_FORBIDDEN_4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")  # so fd00:ec2::254, ::ffff:127.0.0.1 and 64:ff9b:: (NAT64) are out
_FORBIDDEN_6 = [
    ipaddress.IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")  # Teredo, 6to4, documents
]


class FetchFailed(Exception):
    """A URL that could not be fetched: one line that the person who gave the URL may read."""


class ForbiddenAddress(FetchFailed):
    """A URL that the service does not go to, whoever asks."""


def system_resolver(host: str, port: int) -> list[str]:
    """The addresses of a name, in the order in which the system would try them."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True)
class AddressRules:
    """Where requests on behalf of strangers may go."""

    allow_http: bool = False
    ports: tuple[int, ...] = (80, 443)
    allow_private_nets: tuple[Network, ...] = ()  # that the operator opens: 127.0.0.0/8 in tests
    resolver: Resolver = field(default=system_resolver, compare=False)


def is_allowed(address: Address, allowed: tuple[Network, ...] = ()) -> bool:
    """Whether the address is of the public Internet, or in a network that the operator allows."""
    if any(address in network for network in allowed):
        return True
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _FORBIDDEN_4)
    return address in _PUBLIC_6 and not any(address in network for network in _FORBIDDEN_6)


def checked_url(text: str, rules: AddressRules) -> httpx.URL:
    """The URL, if its form is allowed; its host is not looked up. Raises ForbiddenAddress."""
    if len(text) > LONGEST_URL:
        raise ForbiddenAddress(f"the URL is longer than {LONGEST_URL} characters")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise ForbiddenAddress("this is no URL; write https://host/path") from None
    schemes = ("https", "http") if rules.allow_http else ("https",)
    if url.scheme not in schemes or not url.host:
        raise ForbiddenAddress(f"the URL has to begin with {' or '.join(f'{scheme}://host' for scheme in schemes)}")
    if url.userinfo:
        raise ForbiddenAddress("the URL holds a user name or a password; give one that works without")
    if port_of(url) not in rules.ports:
        raise ForbiddenAddress(f"the URL names port {port_of(url)}; allowed: {', '.join(map(str, rules.ports))}")
    return url


def port_of(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _name_of(url: httpx.URL) -> str:
    """The host as DNS and certificates write it: in ASCII, without the dot of the root."""
    return url.raw_host.decode("ascii").rstrip(".")


def checked_addresses(url: httpx.URL, rules: AddressRules) -> list[str]:
    """What the host of the URL resolves to, asked once; every address has to be allowed. Raises FetchFailed or ForbiddenAddress."""
    try:
        found = rules.resolver(_name_of(url), port_of(url))
    except (OSError, UnicodeError):
        found = []
    if not found:
        raise FetchFailed(f"the host {url.host!r} is not known")
    for text in found:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise ForbiddenAddress(f"the host {url.host!r} has no usable address") from None
        if not is_allowed(address, rules.allow_private_nets):  # which one stays untold: it is of somebody's inner network
            raise ForbiddenAddress(f"the host {url.host!r} leads to an address that is not of the public Internet")
    return found


@dataclass(frozen=True)
class Pinned:
    """A request's URL with a checked address for its host, and what keeps Host, SNI and the certificate those of the name."""

    url: httpx.URL
    headers: Mapping[str, str]
    extensions: Mapping[str, Any]


def pinned(url: httpx.URL, rules: AddressRules) -> list[Pinned]:
    """Ways to send a request to this URL, one for each checked address. No name is looked up again, so that an answer that
    changes afterwards leads nowhere. Use them with a bare transport, or a client that has trust_env=False and
    follow_redirects=False (which raises httpx.InvalidURL all the same where a redirect leads to nonsense).
    """
    extensions = {"sni_hostname": _name_of(url)} if url.scheme == "https" else {}
    host = {"Host": url.netloc.decode("ascii")}
    return [Pinned(url.copy_with(host=address), host, extensions) for address in checked_addresses(url, rules)]
