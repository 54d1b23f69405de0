"""What looks like a password or a key is never shown, and nothing else is lost."""

import pytest

from lmexp.runs.redact import without_secrets


@pytest.mark.parametrize(
    "text",
    [
        "mirror at http://me:hunter2@host/path",
        "WANDB_API_KEY=hunter2",
        '{"password": "hunter2"}',
        "Authorization: Bearer hunter2",
        "aws_secret_access_key = hunter2",
        "token hf_hunter2hunter2hunter2",
        "mysql --user me --password hunter2",
        "curl --api-key=hunter2",
        "ghs_hunter2hunter2hunter2",
        "github_pat_hunter2hunter2hunter2",
        "glpat-hunter2hunter2hunter2",
        "xoxb-hunter2hunter2hunter2",
        "eyJhunter2hunter2.eyJhunter2hunter2.hunter2",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\nhunter2",
        "hunter2\nhunter2\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_secret_is_blotted_out(text):
    assert "hunter2" not in without_secrets(text) and "[left out]" in without_secrets(text)


def test_what_is_no_secret_stays():
    for text in (
        "tokens: 1000000",
        "tokenizer.kind: bpe",
        "loss=2.5 at http://host:80/a",
        "max_tokens=3",
        "--tokens 50",
    ):
        assert without_secrets(text) == text
