"""Texts that may be shown to others: without what looks like a password or a key."""

import re

SECRETS = (
    re.compile(r"(?<=//)[^/\s:@]+:[^/\s@]+(?=@)"),  # http://me:secret@host
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(
        r"(?i)\b\w*(?:api_?key|password|passwd|secret|auth_?token|access_?token|hf_token)\w*[\"']?\s*[=:]\s*\S+"
    ),
    re.compile(r"(?i)--?(?:api-?key|password|passwd|secret|token|auth-?token|access-?token)[ =]\S+"),  # --password x
    re.compile(r"\b(?:hf|gh[opsru]|github_pat|glpat|sk|pk|wandb_v1|xox[a-z])[_-][A-Za-z0-9_-]{16,}"),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),  # Amazon
    re.compile(r"\bAIza[A-Za-z0-9_-]{35}"),  # Google
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),  # JSON web tokens
    # A private key, all its lines; its beginning or its end may be outside the text.
    re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"),
    re.compile(r"(?s)\A.*-----END [A-Z ]*PRIVATE KEY-----"),
)


def without_secrets(text: str) -> str:
    """Return a text in which everything that looks like a password or a key is replaced."""
    for pattern in SECRETS:
        text = pattern.sub("[left out]", text)
    return text
