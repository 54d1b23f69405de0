"""Which personal data and secrets data.clean.pii finds, which look-alikes it leaves, and what becomes of them."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lmexp.config.data import CleanConfig, FileData, LabelData, PairData, TagData
from lmexp.config.tokenizers import ByteTokenizerConfig
from lmexp.data import pii
from lmexp.data.cleaning import Cleaner
from lmexp.data.pii import KEYS, PersonalData, Rule, entropy
from lmexp.data.store import Store, prepare
from lmexp.errors import UserError

BYTE = ByteTokenizerConfig(kind="byte")
ALL = ["email", "ip", "phone", "key"]
RANDOM = "q7Xr2LmT9vKzB4nWcE8sY1pH"  # 24 characters, 4.6 bits for each
needs_presidio = pytest.mark.skipif(find_spec("presidio_analyzer") is None, reason="presidio is not installed")


def masked(text: str, *kinds: str, **more: str) -> str:
    return PersonalData(CleanConfig(pii=list(kinds or ALL), **more)).replaced(text)


# what is found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail ada@example.com.", "mail [EMAIL]."),
        ("<Ada.Lovelace+x@mail.example.co.uk>", "<[EMAIL]>"),
        ("ada@example.com:hunter2", "[EMAIL]:hunter2"),  # as in a leaked list
        ("联系ada@example.com吧", "联系[EMAIL]吧"),
        ("müller@bücher.de, a@xn--bcher-kva.xn--p1ai", "[EMAIL], [EMAIL]"),
        ("mailto:o'brien@example.org?subject=x", "mailto:[EMAIL]?subject=x"),
    ],
)
def test_addresses_of_mail_are_found(text: str, expected: str) -> None:
    assert masked(text, "email") == expected


@pytest.mark.parametrize(
    "text",
    [
        "@property",
        "root@localhost",
        "git@github.com:org/repo.git",
        "logo@2x.png",
        "lodash@4.17.21",
        "pkg@1.0.0-rc.beta",
    ],
)
def test_what_merely_has_an_at_sign_is_no_address_of_mail(text: str) -> None:
    assert masked(text, "email") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from 203.0.113.7:8080", "from [IP]:8080"),
        ("host 10.20.30.40/24, 192.168.1.17.", "host [IP]/24, [IP]."),
        ("http://93.184.216.34/index", "http://[IP]/index"),
        ("[2001:db8::8a2e:370:7334]:443", "[[IP]]:443"),
        ("2a02:908:1234:5600:c0ff:ee00:1:2", "[IP]"),
        ("fe80::1ff:fe23:4567:890a%eth0", "[IP]%eth0"),
        ("::ffff:198.51.100.23", "::ffff:[IP]"),
    ],
)
def test_addresses_of_machines_are_found(text: str, expected: str) -> None:
    assert masked(text, "ip") == expected


@pytest.mark.parametrize(
    "text",
    [
        "version 10.0.19.41, v1.20.3.4, pkg==21.10.0.1, Chrome/100.0.48.96, lib-2.10.0.1, 3.10.0.12.tar.gz",
        "Section 4.1.2.10, see §4.1.2.11",
        "1.2.3.4",  # four single digits: a version far more often than an address
        "256.1.1.1, 1.2.3.400, 01.02.03.04, 10.1.2.3.4, 1.3.6.1.4.1.311",  # not valid, or not four numbers
        'ObjectIdentifier("2.5.29.15")',
        "127.0.0.1, 0.0.0.0, 255.255.255.0, 224.0.0.251",  # no machine of somebody's
        "10.0.0.0/8, 192.0.2.0/24, 2001:db8::/32",  # networks
        "a[2::3], std::vector, dead::beef, Foo::bar, fade::cab",
        "12:34:56, 2023:10:12 09:11:22, 00:1a:2b:3c:4d:5e, 50:06:01:60:3b:a0:11:22",  # times, hardware addresses
        "::1, ::",
    ],
)
def test_versions_sections_and_times_are_no_addresses_of_machines(text: str) -> None:
    assert masked(text, "ip") == text


@pytest.mark.parametrize(
    ("text", "region", "expected"),
    [
        ("call +1 415 555 2671 now", None, "call [PHONE] now"),
        ("+44 20 7946 0958, +49 (0)30 901820", None, "[PHONE], [PHONE]"),
        ("Tel:+8613812345678", None, "Tel:[PHONE]"),
        ("(415) 555-2671 or 415.555.2671", None, "(415) 555-2671 or 415.555.2671"),
        ("(415) 555-2671 or 415.555.2671", "US", "[PHONE] or [PHONE]"),
        ("030 901820", "DE", "[PHONE]"),
        ("one\n+1 415 555 2671\ntwo", "US", "one\n[PHONE]\ntwo"),
    ],
)
def test_phone_numbers_are_found(text: str, region: str | None, expected: str) -> None:
    pytest.importorskip("phonenumbers")
    assert masked(text, "phone", **({"pii_region": region} if region else {})) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2023-10-12 09:11:22, 12/10/2023, 20231012, 1700000000",
        "order 4155552671, invoice 100-200-300-400, id=1234567890123",
        "3.14159265, 0.4155552671, -2147483648, (-1.7624320982)",
        "x + 14155552671*y + 12042977600*z",
        "ISBN 978-3-16-148410-0, 192.168.101.17, 10.0.0.0/24",
        "+1 2 3 4 5 6 7 8",  # no valid number
        "+1 202-456-1111.25",
    ],
)
def test_dates_orders_and_fractions_are_no_phone_numbers(text: str) -> None:
    pytest.importorskip("phonenumbers")
    assert masked(text, "phone", pii_region="US") == text


BODY = "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"] * 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id AKIAIOSFODNN7EXAMPLE", "id [KEY]"),  # the example of AWS's documentation
        (f"ghp_{'a1B2' * 9}, github_pat_{'1aB' * 7}0_{'xY9' * 19}ab", "[KEY], [KEY]"),
        (f"glpat-{'a1B2-' * 4}", "[KEY]"),
        (f"AIza{'Sy0-a' * 7}", "[KEY]"),
        ("xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcBrzbqgy", "[KEY]"),
        (f"sk_live_{'4eC39HqLyjW' * 2}", "[KEY]"),
        (f"sk-proj-{'aB3_' * 12}, sk-ant-api03-{'aB3-' * 12}A", "[KEY], [KEY]"),
        (f"hf_{'aBcDeFgHiJ' * 3}klmn", "[KEY]"),
        (f"npm_{'a1B2' * 9}", "[KEY]"),
        (f"pypi-AgEIcHlwaS5vcmc{'a1B2_' * 15}", "[KEY]"),
        # The example of RFC 7519, section 3.1, with the line ends taken out.
        (
            "Bearer eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6"
            "Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            "Bearer [KEY]",
        ),
        (f"a\n-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----\nb", "a\n[KEY]\nb"),
        ('"-----BEGIN PRIVATE KEY-----\\n' + BODY.replace("\n", "\\n") + '\\n-----END PRIVATE KEY-----"', '"[KEY]"'),
        ("postgres://ada:hunter2x@db/x", "postgres://ada:[KEY]@db/x"),
        (f'API_KEY = "{RANDOM}"', 'API_KEY = "[KEY]"'),
        (f"client-secret: {RANDOM}", "client-secret: [KEY]"),
        (f"'auth_token': '{'0a1b2c3d4e5f6789' * 2}'", "'auth_token': '[KEY]'"),
        ("token='0011223344556677001122334455aabb'", "token='[KEY]'"),  # 3.25 bits a digit, of at most 4
    ],
)
def test_keys_are_found(text: str, expected: str) -> None:
    assert masked(text, "key") == expected


@pytest.mark.parametrize(
    "text",
    [
        "commit 8902b5110b0b6417c0c5ed6fd06b5f6e0d98d6d8, sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b",
        "password_hash = '5f4dcc3b5aa765d61d8327deb882cf99', etag=0a1b2c3d4e5f67890a1b2c3d4e5f6789",
        "token = get_authentication_token_from_header(request)",
        "private_key: ed25519.Ed25519PrivateKeyTypesOfX1 = load()",
        "api_key = os.environ.get('SOME_SERVICE_API_KEY_NAME')",
        "secret: aaaaaaaaaaaaaaaaaaaaaaaa1111, token = 00000000000000000000000a",
        "https://user:password@host, http://user:***@host, https://example.org:8080/@ada",
        '"-----BEGIN PRIVATE KEY-----"\nFOOTER = "-----END PRIVATE KEY-----"',
        f"-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----",
        f"data:image/png;base64,{RANDOM * 4}, task-force-sk-1, AKIA, ghp_short",
    ],
)
def test_hashes_names_and_placeholders_are_no_keys(text: str) -> None:
    assert masked(text, "key") == text


def test_the_entropy_is_that_of_a_closed_form() -> None:
    assert entropy("abcd" * 5) == 2.0 and entropy("aaaa") == 0.0


# what becomes of it


def test_a_text_is_masked_closed_up_or_left_out() -> None:
    def cleaned(text: str, mode: str) -> str | None:
        data = FileData(source="files", format="txt", path="x", clean=CleanConfig(pii=["email"], pii_mode=mode))
        return Cleaner(data).document(text)

    assert cleaned("to a@b.org!", "mask") == "to [EMAIL]!"
    assert cleaned("to a@b.org!", "remove") == "to !"
    assert cleaned("to a@b.org!", "drop") is None
    assert cleaned("to nobody", "drop") == "to nobody"


def test_keys_are_found_before_letters_become_small_and_after_wide_letters_become_plain() -> None:
    data = FileData(
        source="files", format="txt", path="x", clean=CleanConfig(pii=["key"], unicode="nfkc", lowercase=True)
    )
    assert Cleaner(data).document("ID ＡＫＩＡIOSFODNN7EXAMPLE") == "id [key]"


def test_every_split_is_cleaned_and_the_store_says_how_much_was_found(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"{name} a@b.org\n{name} 203.0.113.9 and c@d.org\n" * 20)
    data = FileData(
        source="files",
        format="txt",
        document="line",
        **{f"{key}path": str(tmp_path / f"{name}.txt") for key, name in (("", "train"), ("validation_", "valid"))},
        test_path=str(tmp_path / "test.txt"),
    )
    said: list[str] = []
    plain = prepare(data, BYTE, tmp_path / "s")
    clean = prepare(
        data.model_copy(update={"clean": CleanConfig(pii=["email", "ip"])}), BYTE, tmp_path / "s", said.append
    )
    again = prepare(data.model_copy(update={"clean": CleanConfig(pii=["ip", "email"])}), BYTE, tmp_path / "s")
    assert clean.pii == {"email": 120, "ip": 60} and plain.pii is None
    assert "data.clean.pii masked 120 email, 60 ip" in said
    for split in ("train", "validation", "test"):
        text = clean.tokenizer().decode(clean.array(split).tolist())
        assert text.count("[EMAIL]") == 40 and text.count("[IP]") == 20 and "@" not in text
    assert clean.path != plain.path and clean.fingerprint != plain.fingerprint
    assert again.fingerprint == clean.fingerprint and Store.open(clean.path).pii == clean.pii


def test_both_texts_of_a_pair_and_the_texts_of_labels_are_cleaned(tmp_path: Path) -> None:
    from lmexp.data.prepare import prepare_examples

    (tmp_path / "p.tsv").write_text("source\ttarget\n" + "".join(f"{i} a@b.org\tzu c@d.org {i}\n" for i in range(60)))
    (tmp_path / "l.csv").write_text("text,label\n" + "".join(f"{i} a@b.org,{'xy'[i % 2]}\n" for i in range(60)))
    clean = CleanConfig(pii=["email"])
    pairs = PairData(source="pairs", format="tsv", path=str(tmp_path / "p.tsv"), clean=clean)
    store = prepare_examples(pairs, BYTE, None, tmp_path / "s")
    assert store.pii == {"email": 120}
    assert all("[EMAIL]" in text for split in ("train", "validation") for text in store.texts(split))
    labels = LabelData(source="labels", format="csv", path=str(tmp_path / "l.csv"), clean=clean)
    assert prepare_examples(labels, BYTE, None, tmp_path / "s").pii == {"email": 60}


# laws


PIECES = ["a@b.org", "203.0.113.9", "+1 415 555 2671", "AKIAIOSFODNN7EXAMPLE", "2001:db8::1", f"token={RANDOM}", "user"]


@given(st.lists(st.sampled_from([*PIECES, " ", ".", ":", "@", "-", "x", "1", "\n", "://"])).map("".join))
def test_a_masked_text_has_nothing_left_to_mask(text: str) -> None:
    pytest.importorskip("phonenumbers")
    once = masked(text)
    assert masked(once) == once


@given(st.lists(st.sampled_from([*PIECES[:2], *"éß 你\u0301\u2028\n[]@.:1aA"])).map("".join))
def test_what_stays_is_the_text_itself(text: str) -> None:
    """A mask takes the place of a stretch; nothing else changes, in any script."""
    left = re.split(r"\[(?:EMAIL|IP|KEY)\]", masked(text, "email", "ip", "key"))
    place = 0
    for piece in left:
        place = text.index(piece, place) + len(piece)


def rules() -> list[Rule]:
    return [pii._EMAIL, *pii._IP, *KEYS.values()]


def test_every_pattern_has_a_limited_length_so_that_its_time_is_linear() -> None:
    from re import _parser

    for rule in rules():
        longest = _parser.parse(rule.pattern.pattern, rule.pattern.flags).getwidth()[1]
        assert longest <= 20_000, rule.pattern.pattern


@pytest.mark.parametrize(
    "unit", ["a", "a.", "a-", "1", "1.", "1:", "f0:", "eyJ", "a@", "a@a.", "key=", "://a:a", "ghp_"]
)
def test_a_long_text_of_what_a_pattern_begins_with_ends(unit: str) -> None:
    pytest.importorskip("phonenumbers")
    text = unit * (20_000 // len(unit))
    masked(text, pii_region="US")
    masked("-----BEGIN PRIVATE KEY-----" * 500, "key")


# what is refused


@pytest.mark.parametrize(
    ("clean", "said"),
    [
        ({"pii": ["emial"]}, r"pii=emial: expected email, ip, phone, key, or an entity .* Did you mean 'email'"),
        ({"pii": ["email", "email"]}, "a kind is named twice"),
        ({"pii": []}, "at least 1 item"),
        ({"pii_mode": "drop"}, r"pii_mode=drop has no effect: set pii too"),
        ({"pii": ["email"], "pii_region": "US"}, "is for phone numbers: add phone to pii"),
        ({"pii": ["email"], "pii_model": "en_core_web_sm"}, "is for presidio"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(clean: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CleanConfig(**clean)


def test_tagged_sentences_keep_their_words() -> None:
    with pytest.raises(UserError, match="a tagged sentence keeps its words"):
        Cleaner(TagData(source="tags", path="x", clean=CleanConfig(pii=["email"])))


def test_an_unknown_country_is_refused() -> None:
    pytest.importorskip("phonenumbers")
    for wrong in ("USA", "us"):
        said = f"pii_region={wrong}: expected a country's two letters, such as US. Did you mean 'US'"
        with pytest.raises(UserError, match=said):
            masked("", "phone", pii_region=wrong)


@pytest.mark.parametrize(
    ("kind", "module", "extra"), [("phone", "phonenumbers", "phone"), ("IBAN_CODE", "presidio_analyzer", "pii")]
)
def test_a_package_that_is_missing_is_named(
    kind: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UserError, match=rf"data.clean.pii={kind} needs .*: pip install 'lmexp\[{extra}\]'"):
        masked("", kind)


# presidio


@needs_presidio
@pytest.mark.slow
def test_presidio_finds_what_its_patterns_and_checksums_confirm_without_a_model_or_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import spacy

    monkeypatch.setattr(spacy.cli, "download", lambda *_: pytest.fail("downloads a model"))
    text = "card 4111 1111 1111 1111, not 4111 1111 1111 1112; GB82 WEST 1234 5698 7654 32; a@b.org"
    found = PersonalData(CleanConfig(pii=["CREDIT_CARD", "IBAN_CODE", "email"]))
    assert found.replaced(text) == "card [CREDIT_CARD], not 4111 1111 1111 1112; [IBAN_CODE]; [EMAIL]"
    assert found.count == {"CREDIT_CARD": 1, "IBAN_CODE": 1, "email": 1}
    far = "x\n" * 60_000 + "card 4111 1111 1111 1111"  # in the second part of a long text
    assert PersonalData(CleanConfig(pii=["CREDIT_CARD"])).replaced(far) == "x\n" * 60_000 + "card [CREDIT_CARD]"
    for kind, said in (
        ("CREDIT_CRAD", "presidio has no pattern for it.* Did you mean 'CREDIT_CARD'"),
        ("PERSON", "names of people and places need a spaCy pipeline: data.clean.pii_model"),
        ("EMAIL_ADDRESS", "write email"),
    ):
        with pytest.raises(UserError, match=said):
            masked("", kind)
    with pytest.raises(UserError, match="pii_model=en_no_such: cannot be loaded; lmexp downloads none"):
        masked("", "PERSON", pii_model="en_no_such")


@needs_presidio
@pytest.mark.slow
def test_names_are_found_by_a_pipeline_of_the_users(tmp_path: Path) -> None:
    """A pipeline with rules instead of a trained one: presidio takes its entities all the same."""
    import spacy

    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ada Lovelace"}])
    pipeline.to_disk(tmp_path / "names")
    assert masked("by Ada Lovelace", "PERSON", pii_model=str(tmp_path / "names")) == "by [PERSON]"
