r"""Personal data and secrets in texts: what is found, by which patterns, and what stands in its place.

    email   addresses as in the HTML standard ("valid e-mail address"), with a top-level domain
    ip      IPv4 and IPv6, validated by `ipaddress`; IPv6 in the ranges of machines: 2000::/3, fc00::/7, fe80::/10
    phone   numbers that the library phonenumbers (Google's libphonenumber) calls valid
    key     private keys and JSON web tokens, keys whose form their issuers publish, passwords in addresses, and values
            that look random and are assigned to a name such as `api_key`; KEYS has the source of each
    NAME    any entity of Microsoft's presidio, such as CREDIT_CARD (presidio.py)

Each pattern has a limited length, and a match can begin at a limited number of places, so the time is linear in the
length of the text. Some texts only look like an address, such as the version 10.0.1.2. What stands in front of them
decides; docs/privacy.md lists these rules.
"""

import ipaddress
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lmexp.config.data import PII_KINDS, CleanConfig
from lmexp.data.presidio import Found, Presidio
from lmexp.errors import UserError, nearest

Span = tuple[int, int]


@dataclass(frozen=True)
class Rule:
    """A pattern, and a check of what it matches; the group `secret`, if there is one, is what is replaced."""

    pattern: re.Pattern[str]
    source: str
    """Where the form comes from."""
    hints: tuple[str, ...]
    """Every match holds one of these, which saves the search in most texts; in lower case."""
    accepts: Callable[[re.Match[str]], bool] = lambda match: True

    def spans(self, text: str, lower: str) -> Iterator[Span]:
        """Yield what is found, from left to right; `lower` is the text in lower case."""
        if any(hint in lower for hint in self.hints):
            for match in self.pattern.finditer(text):
                if self.accepts(match):
                    yield match.span("secret" if "secret" in match.re.groupindex else 0)


_LETTER = r"A-Za-z0-9\u00C0-\u024F"  # with the letters of European languages: RFC 6531 allows them
_LABEL = rf"[{_LETTER}](?:[{_LETTER}-]{{0,61}}[{_LETTER}])?"
_EMAIL = Rule(
    # Not `git@host:path`, the address of a repository; `logo@2x.png`, an image; or `name@1.0.0-rc.beta`, a version.
    re.compile(
        rf"(?<![{_LETTER}])(?!git@)[{_LETTER}][{_LETTER}.!#$%&'*+/=?^_`{{|}}~-]{{0,63}}@(?![1-9]x\.)(?!v?\d+\.\d)"
        rf"(?:{_LABEL}\.){{1,8}}(?:xn--[A-Za-z0-9-]{{1,59}}|[A-Za-z]{{2,63}})(?![{_LETTER}])"
    ),
    "https://html.spec.whatwg.org/multipage/input.html#valid-e-mail-address",
    ("@",),
)

_VERSION_BEFORE = re.compile(
    # "version 1.2.3.4", "v1.2.3.4", "==1.2.3.4", "Chrome/100.0.0.1", "section 4.1.2.10", "pkg-1.2.3.4"
    r"(?:\b(?:v|ver|version|release|rev|revision|build|firmware|driver|section|sec|chapter|table|figure|clause|oid"
    r"|objectidentifier)s?"
    r"[\s.:=#'\"(]{0,4}|[=~<>^!]=?\s{0,2}|§\s?|\b[A-Z][A-Za-z]{1,30}/|[A-Za-z][A-Za-z0-9]{0,20}-)$",
    re.IGNORECASE,
)
_VERSION_AFTER = re.compile(
    r"\.(?:tar|zip|whl|jar|dll|exe|deb|rpm|gz|so)\b|-(?:alpha|beta|rc|release|snapshot|r\d)", re.I
)


def _is_ipv4(match: re.Match[str]) -> bool:
    """Whether four numbers are an address that a machine can have, and not a version or the number of a section."""
    try:
        address = ipaddress.IPv4Address(match.group())
    except ValueError:  # a number above 255, or with a zero in front
        return False
    if address.is_loopback or address.is_multicast or address.is_reserved or int(address) < 1 << 24:
        return False
    if _is_network(address, match):
        return False
    if all(len(number) == 1 for number in match.group().split(".")):  # also 1.1.1.1 and 8.8.8.8, which name nobody
        return False
    before = match.string[max(match.start() - 40, 0) : match.start()]
    return not (_VERSION_BEFORE.search(before) or _VERSION_AFTER.match(match.string, match.end()))


_PREFIX = re.compile(r"/\d{1,3}(?!\d)")


def _is_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, match: re.Match[str]) -> bool:
    """Whether an address is followed by a length, as in 10.0.0.0/8, and names a whole network."""
    prefix = _PREFIX.match(match.string, match.end())
    try:
        return prefix is not None and bool(ipaddress.ip_network(f"{address}{prefix.group()}"))
    except ValueError:  # the address of a machine, with the length of its network; or a path
        return False


_IN_USE = tuple(map(ipaddress.IPv6Network, ("2000::/3", "fc00::/7", "fe80::/10")))  # RFC 4291 and RFC 4193


def _is_ipv6(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv6Address(match.group())
    except ValueError:  # a time, a hardware address, a part of code
        return False
    if not int(address) & ((1 << 64) - 1):  # `2001:db8::` is a network: the last 64 bits are the machine's
        return False
    return any(address in network for network in _IN_USE)


_IP = (
    Rule(
        re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"),
        "https://docs.python.org/3/library/ipaddress.html",
        (".",),
        _is_ipv4,
    ),
    Rule(
        # The first group of an address in use has four digits, so `a[2::3]` and `std::vector` are none.
        re.compile(r"(?<![\w:.])[23fF][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{1,34}(?![\w:])"),
        "https://www.rfc-editor.org/rfc/rfc4291",
        (":",),
        _is_ipv6,
    ),
)


def entropy(text: str) -> float:
    """Return the entropy of the characters of a text, in bits for each (Shannon 1948, section 6)."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


MIN_ENTROPY, MIN_ENTROPY_HEX = 3.5, 3.0
"""Bits for each character: gitleaks' limit for generic keys, and detect-secrets' limit for hexadecimal ones."""


def _looks_random(match: re.Match[str]) -> bool:
    """Whether an assigned value may be a key: letters and digits that are mixed, and not a word or a path."""
    value = match.group("secret")
    is_quoted = match.string[match.start("secret") - 1] in "'\""
    if len(re.findall(r"\d", value)) < (1 if is_quoted else 3) or not re.search(r"[A-Za-z]", value):
        return False  # without quotes it may be a name in code, such as PKCS7PrivateKey
    if not is_quoted and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value):
        return False  # such as ed25519.Ed25519PrivateKey
    is_hex = re.fullmatch(r"[0-9a-fA-F-]+", value) is not None
    return entropy(value) >= (MIN_ENTROPY_HEX if is_hex else MIN_ENTROPY)


_PLACEHOLDERS = {"pass", "password", "passwd", "pwd", "secret", "token", "pw"}


def _is_password(match: re.Match[str]) -> bool:
    """Whether the password in an address is not `password` itself, nor `***`."""
    value = match.group("secret").lower()
    return value not in _PLACEHOLDERS and len(set(value)) > 1


def _is_key_block(match: re.Match[str]) -> bool:
    """Whether what stands between the lines of a block is a key: base64, of which one line has 40 characters."""
    body = re.sub(r"\\[nr]|[\s\"'+,]", " ", match.group("body"))
    base64 = len(re.findall(r"[A-Za-z0-9+/=]", body))
    return re.search(r"[A-Za-z0-9+/]{40}", match.group("body")) is not None and base64 >= 0.85 * len(
        body.replace(" ", "")
    )


_GITLEAKS = "https://github.com/gitleaks/gitleaks/blob/master/config/gitleaks.toml"
_ALONE = r"(?<![A-Za-z0-9_-])(?:{})(?![A-Za-z0-9_-])"


def _token(pattern: str, source: str, *hints: str) -> Rule:
    return Rule(re.compile(_ALONE.format(pattern)), source, hints)


KEYS = {
    "private key": Rule(
        re.compile(
            r"-----BEGIN (?P<kind>[A-Z0-9 ]{0,30})PRIVATE KEY(?: BLOCK)?-----(?P<body>(?:(?!-----)[\s\S]){64,16000}?)"
            r"-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
        ),
        "https://www.rfc-editor.org/rfc/rfc7468 and rfc9580 (OpenPGP)",
        ("private key",),
        _is_key_block,
    ),
    "JSON web token": _token(
        r"eyJ[A-Za-z0-9_-]{10,4000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{10,2000}",
        "https://www.rfc-editor.org/rfc/rfc7519",
        "eyj",
    ),
    "AWS access key": _token(
        r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",
        "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html",
        "akia",
        "asia",
        "abia",
        "acca",
    ),
    "GitHub": _token(
        r"gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
        "https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/",
        *(f"gh{letter}_" for letter in "pousr"),
        "github_pat_",
    ),
    "GitLab": _token(
        r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_-]{20,64}",
        "https://docs.gitlab.com/security/tokens/#token-prefixes",
        "glpat-",
        "gldt-",
        "glrt-",
        "glcbt-",
        "glptt-",
        "glft-",
        "glsoat-",
    ),
    "Google": _token(r"AIza[A-Za-z0-9_-]{35}", _GITLEAKS, "aiza"),
    "Slack": _token(r"xox[abposr]-[A-Za-z0-9-]{10,250}", "https://api.slack.com/authentication/token-types", "xox"),
    "Stripe": _token(r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,247}", "https://docs.stripe.com/keys", "_live_", "_test_"),
    "OpenAI and Anthropic": _token(
        r"sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]{3,9}-)?[A-Za-z0-9_-]{32,200}", _GITLEAKS, "sk-"
    ),
    "Hugging Face": _token(r"hf_[A-Za-z]{34}", _GITLEAKS, "hf_"),
    "npm": _token(
        r"npm_[A-Za-z0-9]{36}", "https://github.blog/security/announcing-npms-new-access-token-format/", "npm_"
    ),
    "PyPI": _token(r"pypi-[A-Za-z0-9_-]{85,250}", "https://pypi.org/help/#apitoken", "pypi-"),
    "password in an address": Rule(
        re.compile(r"://[^\s/:@'\"<>]{1,64}:(?P<secret>[^\s/:@'\"<>{}$]{3,128})@"),
        "https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1",
        ("://",),
        _is_password,
    ),
    "assignment": Rule(
        re.compile(
            r"(?:api|auth|access|secret|client|private|token|passw|pwd|credential)[a-z_.-]{0,20}"
            r"(?<=key|ret|ken|ord|pwd|ial)s?['\"]?\s{0,3}(?::=|=>|[=:])\s{0,3}['\"]?"
            r"(?P<secret>[A-Za-z0-9+/_=.~-]{20,200})(?![A-Za-z0-9+/_=.~(\[-])",
            re.IGNORECASE,
        ),
        f"{_GITLEAKS} (generic-api-key) and https://github.com/Yelp/detect-secrets",
        ("key", "secret", "token", "password", "passwd", "pwd", "credential"),
        _looks_random,
    ),
}
"""What counts as a key, by who issues it or what it is."""


_PLAIN_NUMBER = re.compile(r"[^\d+\uff0b]*\d+|\D*\d+\.\d+|[+\uff0b]\s.*")
"""Digits alone, as of an order or an account, a decimal fraction, and a term of a sum: no phone numbers."""


class _Phones:
    """Finds phone numbers: those with a `+` and the code of a country, or those as they are written in one country."""

    # 7 digits, the fewest of a number that is valid; one search for it is much faster than the library's.
    _CANDIDATE = re.compile(r"\d(?:[\s().\-/\u2010-\u2015]{0,3}\d){6}")

    def __init__(self, region: str | None) -> None:
        """Raises UserError without phonenumbers, or for an unknown region."""
        try:
            import phonenumbers
        except ImportError:
            raise UserError("data.clean.pii=phone needs phonenumbers: pip install 'lmexp[phone]'") from None
        if region is not None and region not in phonenumbers.SUPPORTED_REGIONS:
            known = nearest(region.upper(), phonenumbers.SUPPORTED_REGIONS)
            raise UserError(f"data.clean.pii_region={region}: expected a country's two letters, such as US.{known}")
        self._matcher: Any = phonenumbers.PhoneNumberMatcher
        # A number with the code of its country may be grouped in any way. Without one, it must be grouped as is usual.
        leniency = phonenumbers.Leniency
        self._region, self._leniency = region, leniency.STRICT_GROUPING if region else leniency.VALID

    def found(self, text: str) -> Iterator[Found]:
        """Yield the numbers of a text, from left to right."""
        start = 0
        for line in text.split("\n"):  # in a long text, the library would search all of it for each candidate
            has_plus = "+" in line or "\uff0b" in line
            if (self._region or has_plus) and self._CANDIDATE.search(line):
                for each in self._matcher(line, self._region, self._leniency, max_tries=sys.maxsize):
                    is_fraction = re.match(r"\.\d", line[each.end : each.end + 2]) is not None
                    if not is_fraction and not _PLAIN_NUMBER.fullmatch(each.raw_string):
                        yield "phone", start + each.start, start + each.end
            start += len(line) + 1


class PersonalData:
    """Finds the kinds of personal data that a config names, masks or removes it, and counts it."""

    def __init__(self, clean: CleanConfig) -> None:
        """Raises UserError if a kind needs a package that is missing, or is no entity of presidio's."""
        kinds = clean.pii or ()
        self._removes = clean.pii_mode == "remove"
        entities = [kind for kind in kinds if kind not in PII_KINDS]
        self._presidio = Presidio(entities, clean.pii_model) if entities else None
        regions = dict.fromkeys([None, clean.pii_region]) if "phone" in kinds else {}
        self._phones = [_Phones(region) for region in regions]
        self._rules: list[tuple[str, Rule]] = []
        if "key" in kinds:  # first: an address may hold a password
            self._rules += [("key", rule) for rule in KEYS.values()]
        if "email" in kinds:
            self._rules.append(("email", _EMAIL))
        if "ip" in kinds:
            self._rules += [("ip", rule) for rule in _IP]
        self.count: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        """How often each kind was found so far."""

    def replaced(self, text: str) -> str:
        """Return the text without the personal data, and count what was found."""
        lower = text.lower()
        for kind, rule in self._rules:
            text = self._without(text, ((kind, *span) for span in rule.spans(text, lower)))
        for search in self._phones:
            text = self._without(text, search.found(text))
        return self._without(text, self._presidio.found(text)) if self._presidio else text

    def _without(self, text: str, found: Iterable[Found]) -> str:
        """Return the text with stretches replaced; they do not overlap, and come from left to right."""
        parts, done = [], 0
        for kind, start, end in found:
            parts += [text[done:start], "" if self._removes else f"[{kind.upper()}]"]
            done = end
            self.count[kind] += 1
        return "".join([*parts, text[done:]]) if parts else text
