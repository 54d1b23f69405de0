"""`lmexp prepare`: tokenise a text once, before the runs that read it."""

from typing import Any

from lmexp.cli.app import RUN, out, print_json, say, verb
from lmexp.cli.options import CommonWithConfigs, Overrides


@verb(RUN, "lmexp prepare data=text data.path=README.md data.document=line tokenizer=byte")
def prepare(common: CommonWithConfigs, overrides: Overrides = None) -> None:
    """Tokenise a text once, into the token store that runs read."""
    from lmexp.config import paths
    from lmexp.config.compose import Composer, allow_code
    from lmexp.config.overrides import refuse_axes
    from lmexp.data.prepare import prepare, warnings
    from lmexp.data.sources import check_apart
    from lmexp.report.terminal.lists import print_store
    from lmexp.runs.directory import STORES

    overrides = overrides or []
    refuse_axes(overrides, "`lmexp train -m`")
    allow_code(overrides, common.config_dir)
    config = Composer(paths.search_roots(common.config_dir), words=overrides).config({})
    check_apart(config.data)
    store = prepare(config, common.output_dir / STORES, say)
    for warning in warnings(store):
        say(f"warning: {warning}")
    document: dict[str, Any] = {"path": str(store.path), "vocab_size": store.vocab_size}
    for split in store.splits:
        document[split] = {
            "tokens": store.tokens(split),
            "documents": store.documents(split),
            "bytes": store.bytes(split),
        }
    if (canary_tokens := getattr(store, "canary_tokens", None)) is not None:
        document["canaries"] = {"documents": config.data.canaries.copies, "tokens": canary_tokens}
    if store.pii is not None:
        document["pii"] = store.pii
    if common.as_json:
        print_json(document)
    else:
        print_store(document, out)
