"""Microsoft's presidio as a finder of personal data: entities such as CREDIT_CARD, by patterns and checksums.

Nothing is downloaded. presidio's own default would fetch a model of 400 MB; here its pattern recognisers run on a
blank spaCy pipeline, which only cuts a text into words. Names of people and places need a trained pipeline: the user
installs one, and names it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from lmexp.errors import UserError, nearest, reason_of

Found = tuple[str, int, int]
"""A kind of personal data, and where it begins and ends in a text."""

MIN_SCORE = 0.5
"""The confidence, 0 to 1, from which on a match counts. presidio gives less to patterns without a checksum if no word
beside them supports them, such as any nine digits for a passport."""
MAX_CHARACTERS = 100_000
"""A longer text is searched in parts, cut at the end of a line: the memory of spaCy grows with the text."""
_OURS = {"EMAIL_ADDRESS": "email", "IP_ADDRESS": "ip", "PHONE_NUMBER": "phone"}


class Presidio:
    """Finds entities of presidio's."""

    def __init__(self, entities: Sequence[str], model: str | None) -> None:
        """`model` is the name of an installed spaCy pipeline, or None.

        Raises UserError if presidio or the pipeline is missing, and for an entity that presidio does not have.
        """
        self._entities = list(entities)
        for entity in entities:
            if entity in _OURS:
                raise UserError(f"data.clean.pii={entity}: write {_OURS[entity]}, which lmexp finds without presidio")
        self._language, self._analyzer = _analyzer(entities[0], model)
        known = set(self._analyzer.get_supported_entities(self._language)) - set(_OURS)
        for entity in entities:
            if entity not in known:
                needs = "" if model else "; names of people and places need a spaCy pipeline: data.clean.pii_model"
                raise UserError(
                    f"data.clean.pii={entity}: presidio has no pattern for it{needs}.{nearest(entity, known)} "
                    f"It has {', '.join(sorted(known))}"
                )

    def found(self, text: str) -> list[Found]:
        """Return what is found in a text, from left to right; of two that overlap, the surer one, else the longer."""
        found: list[Found] = []
        for offset, part in _parts(text):
            results = self._analyzer.analyze(
                part, language=self._language, entities=self._entities, score_threshold=MIN_SCORE
            )
            chosen: list[Any] = []
            for each in sorted(results, key=lambda result: result.start):
                if not chosen or each.start >= chosen[-1].end:
                    chosen.append(each)
                elif (each.score, each.end - each.start) > (chosen[-1].score, chosen[-1].end - chosen[-1].start):
                    chosen[-1] = each
            found += [(each.entity_type, offset + each.start, offset + each.end) for each in chosen]
        return found


def _analyzer(entity: str, model: str | None) -> tuple[str, Any]:
    """Return the language of a pipeline, and presidio's engine on it. Raises UserError."""
    try:
        from presidio_analyzer import AnalyzerEngine  # first: without it, nothing slow is imported
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
        from presidio_analyzer.recognizer_registry import RecognizerRegistryProvider
        import spacy  # isort: skip
    except ImportError:
        raise UserError(f"data.clean.pii={entity} needs presidio: pip install 'lmexp[pii]'") from None
    try:
        pipeline: Any = spacy.load(model) if model else spacy.blank("en")
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"data.clean.pii_model={model}: cannot be loaded; lmexp downloads none, so install it first, for example "
            f"with `python -m spacy download en_core_web_sm` ({reason_of(error)})"
        ) from None
    engine: Any = SpacyNlpEngine()
    engine.nlp = {pipeline.lang: pipeline}  # its load() would download a model that is missing
    languages = {"supported_languages": [pipeline.lang]}
    registry = RecognizerRegistryProvider(registry_configuration=languages).create_recognizer_registry()
    if model:
        registry.add_nlp_recognizer(nlp_engine=engine)
    return pipeline.lang, AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=[pipeline.lang])


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Yield parts of a text with their offsets: cut at the end of a line or, in a line that is too long, anywhere."""
    start = 0
    while len(text) - start > MAX_CHARACTERS:
        cut = text.rfind("\n", start, start + MAX_CHARACTERS) + 1
        end = cut if cut > start else start + MAX_CHARACTERS
        yield start, text[start:end]
        start = end
    yield start, text[start:]
