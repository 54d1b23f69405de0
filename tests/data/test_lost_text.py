"""What a tokenizer loses of a text is measured, said, and refused where next to nothing is kept."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from lmexp.config.data import PairData
from lmexp.config.tokenizers import (
    ByteTokenizerConfig,
    CharTokenizerConfig,
    HFTokenizerConfig,
    WordPieceTokenizerConfig,
)
from lmexp.data.example_writing import prepare_examples
from lmexp.data.prepare import warnings
from lmexp.data.store import Store, prepare
from lmexp.data.tokenizers.lossless import ByteTokenizer
from lmexp.data.tokenizers.lost import LostText
from lmexp.data.tokenizers.wordpiece import WordPieceTokenizer
from lmexp.errors import UserError
from lmexp.files import read_json, write_json

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def lower_case(tmp_path):
    """Return a tokenizer of others that lowers letters, drops white space and knows a to z, letter by letter."""
    tokens = ["[UNK]", "[CLS]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    model = models.WordPiece(vocab={token: i for i, token in enumerate(tokens)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[CLS]"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return HFTokenizerConfig(kind="hf", name=str(tmp_path))


def test_lost_bytes_are_those_of_the_characters_that_do_not_come_back():
    tokenizer = WordPieceTokenizer(["[UNK]", "a", "b", "##b"])
    lost = LostText(tokenizer)
    text = "a bb \u00e9\n"  # the last word is unknown: two bytes; a space and the line feed are not given back either
    lost.add(text, tokenizer.encode(text))
    assert lost.text_lost == pytest.approx(4 / 8)
    assert lost.unknown_tokens == pytest.approx(1 / 4)


def test_what_is_written_for_the_unknown_does_not_stand_for_lost_letters():
    tokenizer = WordPieceTokenizer(["[UNK]", "a"])
    lost = LostText(tokenizer)
    lost.add("UNK [", tokenizer.encode("UNK ["))
    assert lost.text_lost == lost.unknown_tokens == 1.0


@pytest.mark.parametrize("text", ["", "Caf\u00e9  \u5b66\n"])
def test_bytes_lose_nothing(text):
    lost = LostText(ByteTokenizer())
    lost.add(text, ByteTokenizer().encode(text))
    assert lost.text_lost == lost.unknown_tokens == 0.0


def test_the_store_knows_the_loss_and_hashes_the_text_itself(files, lower_case, tmp_path):
    data = files("a.txt", "abcDE\n" * 40, document="line", split="tail", validation=0.25)
    lossy = prepare(data, lower_case, tmp_path / "stores")
    whole = prepare(data, ByteTokenizerConfig(kind="byte"), tmp_path / "stores")
    assert lossy.splits["validation"].text_lost == pytest.approx(2 / 5)
    assert whole.splits["validation"].text_lost == whole.splits["validation"].unknown_tokens == 0.0
    assert lossy.validation_fingerprint == whole.validation_fingerprint != lossy.fingerprint
    assert "decoding does not give back 40.0% of the bytes of the validation text" in warnings(lossy)[0]
    assert not any("loses text" in warning for warning in warnings(whole))
    other = prepare(
        files("b.txt", "abcDF\n" * 40, document="line", split="tail", validation=0.25),
        ByteTokenizerConfig(kind="byte"),
        tmp_path / "stores",
    )
    assert other.validation_fingerprint != whole.validation_fingerprint


def test_a_tokenizer_that_keeps_next_to_nothing_is_refused(files, tmp_path):
    text = "ACGT" * 3000  # one word, which no WordPiece of a hundred entries spells
    data = files("dna.txt", text, split="tail", validation=0.1)
    config = WordPieceTokenizerConfig.model_construct(kind="wordpiece", vocab_size=10)
    with pytest.raises(
        UserError, match=r"keeps next to nothing of the text: .* 100\.0% of the bytes .* 100\.0% of its"
    ):
        prepare(data, config, tmp_path / "stores")


def test_of_pairs_the_targets_are_what_bits_per_byte_counts(lower_case, tmp_path):
    (tmp_path / "a.tsv").write_text("source\ttarget\n" + "".join(f"aBc{i}\tabcD\n" for i in range(10)))
    data = PairData(source="pairs", path=str(tmp_path / "a.tsv"), split="tail", validation=0.5)
    store = prepare_examples(data, CharTokenizerConfig(kind="char"), lower_case, tmp_path / "stores")
    assert store.splits["validation"].text_lost == pytest.approx(1 / 4)


def test_a_store_of_an_earlier_version_is_read_and_knows_nothing_of_it(files, tmp_path):
    data = files("a.txt", "abcDE\n" * 40, document="line", split="tail", validation=0.25)
    store = prepare(data, ByteTokenizerConfig(kind="byte"), tmp_path / "stores")
    manifest = read_json(store.path / "manifest.json")
    del manifest["validation_fingerprint"]
    for split in manifest["splits"].values():
        del split["text_lost"], split["unknown_tokens"]
    write_json(store.path / "manifest.json", manifest)
    old = Store.open(store.path)
    assert old.validation_fingerprint is old.splits["validation"].text_lost is None
    assert old.fingerprint == store.fingerprint
