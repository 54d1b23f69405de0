"""Composition: every shipped config is valid, and a mistake is one line that helps."""

from pathlib import Path

import pytest

from lmexp.config import paths
from lmexp.config.cells import corners, expand
from lmexp.config.checks import check_config
from lmexp.config.compose import Composer, allow_code
from lmexp.config.outside import check_code
from lmexp.config.trust import trusting
from lmexp.errors import UserError
from lmexp.runs.directory import RunDir
from lmexp.train.checkpoint import load_final

ROOTS = [paths.shipped_root()]
GROUPS = sorted(paths.groups(ROOTS))
CHOICES = [(group, choice) for group in GROUPS for choice in paths.group_choices(group, ROOTS)]
MISSING = {
    ("model", "gpt"): ["model.n_layers=1", "model.d_model=4", "model.n_heads=1"],
    ("model", "llama"): ["model.n_layers=1", "model.d_model=4", "model.n_heads=1"],
    ("model", "moe"): ["model.n_layers=1", "model.d_model=4", "model.n_heads=1", "model.n_experts=2"],
    ("model", "bert"): ["model.n_layers=1", "model.d_model=4", "model.n_heads=1"],
    ("model", "encdec"): ["model.n_layers=1", "model.d_model=4", "model.n_heads=1"],
    ("model", "lstm"): ["model.n_layers=1", "model.d_model=4"],
    ("model", "lstm_encdec"): ["model.n_layers=1", "model.d_model=4"],
    ("model", "hf_config"): ["model.model_type=gpt2"],
    ("model", "hf_pretrained"): ["model.pretrained=x"],
    ("data", "hub"): ["data.name=x"],
    **{("data", f"hub_{kind}"): ["data.name=x"] for kind in ("pairs", "labels", "tags")},
    **{
        ("data", name): ["data.path=x"]
        for name in ("text", "jsonl", "csv", "parquet", "pairs", "labels", "tags", "conllu")
    },
    ("tokenizer", "hf"): ["tokenizer.name=x"],
    ("launcher", "ray"): ["launcher.address=head:6379"],
}
"""What a choice leaves to the user."""
FITTING = {
    "left_to_right": ["task=causal_lm"],
    "both_ways": ["task=masked_lm", "model=bert_nano"],
    "source_to_target": ["task=seq2seq", "data=reverse", "model=encdec_nano"],
    "labels": ["task=classify", "data=sentiment"],
    "tags": ["task=tag", "data=roles"],
}
"""The other choices that go with a model that reads so, or with a task of such data."""
HOLDING = {
    "text": [],
    "pairs": ["task=seq2seq", "model=encdec_nano"],
    "labels": ["task=classify"],
    "tags": ["task=tag"],
}


def compose(*words: str):
    return Composer(ROOTS, words=list(words)).config({})


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_shipped_choice_composes_and_says_what_it_is(group: str, choice: str):
    words = [f"{group}={choice}", *MISSING.get((group, choice), [])]
    if group == "model":
        words += ["batch.tokens=4096", "model.context=1024"]
        words += [word for word in FITTING[compose(*words).model.reads] if not word.startswith("model=")]
    elif group == "task":
        task = compose(*words).task
        fitting = FITTING[task.holds if task.head == "labels" else task.reads[0]]
        words += [word for word in fitting if not word.startswith("task=")]
    elif group == "data":
        words += HOLDING[compose(*words).data.holds]
    check_config(compose(*words))
    assert paths.first_comment(paths.group_choices(group, ROOTS)[choice])


@pytest.mark.parametrize("name", paths.sweep_files(ROOTS))
def test_every_shipped_sweep_composes_and_says_what_it_is(name: str):
    _, file = paths.find_sweep(name, ROOTS)
    if name in ("papers/forecast2026", "papers/multipower2025", "papers/sardana2023"):
        with pytest.raises(UserError, match="this paper has no runs to train; `lmexp reproduce"):
            Composer(ROOTS, file)
        return
    spec = Composer(ROOTS, file).sweep_spec()
    expansion = expand(spec, ["data.path=x"] if name == "tinyshakespeare" else [])
    composer = Composer(ROOTS, file, expansion.fixed)
    cells = list(corners(spec.search)) if spec.search else expansion.cells
    for cell in cells if len(cells) < 20 else [cells[0], cells[-1]]:  # a large grid has the same keys in every cell
        check_config(composer.config(cell))
    assert paths.first_comment(file) and composer.sweep_spec().question


def test_the_schema_names_every_key_of_the_shipped_groups_and_a_run_reads_its_own_config_back(tmp_path: Path):
    from lmexp.config.schema import RunInfo
    from lmexp.runs.directory import RunDir

    config = compose("model=gpt2").model_copy(update={"run": RunInfo(id="0" * 12, sweep="s", slug="x")})
    assert RunDir.create(tmp_path / "x-0", config).read_config() == config


MISTAKES = {
    "model=gpt_tinny": "there is no model 'gpt_tinny'. Did you mean 'gpt_tiny'?",
    "modle=gpt2": "modle is not a key of the config. Did you mean 'model'?",
    "model.n_layer=3": "model.n_layer is not a key of the config. Did you mean 'model.n_layers'?",
    "+model.depth=3": "model.depth is not a key of the config.",
    "trainer.max_steps=5": "trainer.max_steps is not a key of the config. It is set by budget.tokens.",
    "+trainer.precision=16": "trainer.precision is not a key of the config. It is set by precision=bf16",
    "model.n_layers=two": "model.n_layers=two: input should be a valid integer",
    "model.n_layers=0": "model.n_layers=0: input should be greater than 0",
    "budget.tokens=0": "budget.tokens=0: input should be greater than 0",
    "budget.tokens=2.5": "budget.tokens=2.5: input should be a valid integer",
    "optim.lr=nan": "optim.lr=nan: input should be a finite number",
    "data=text": "data.path must be given, as in data.path=...",
    "data.source=web": "data.source=web: expected one of 'stdlib', 'markov', 'files', 'hub', 'pairs'",
    "model._target_=os.system": "model._target_=os.system is code from outside lmexp",
    "model._target_=lmexp.models.gpt.GTP": "model._target_=lmexp.models.gpt.GTP: expected one of 'lmexp.models.bert",
    "model.d_ff=${model.width}": "model.d_ff: Interpolation key 'model.width' not found",
    "model.n_layers": "'model.n_layers' is not an override",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key(word: str):
    with pytest.raises(UserError) as caught:
        compose(word)
    message = str(caught.value)
    assert MISTAKES[word] in message and "\n" not in message


def test_a_mistake_in_a_sweep_file_names_the_file(tmp_path: Path):
    file = tmp_path / "sweeps" / "mine.yaml"
    file.parent.mkdir()
    for body, said in {
        "budget: {token: 5}": "budget.token is not a key of the config. Did you mean 'tokens'?",
        "sweep: {grids: {seed: [1]}}": "sweep.grids is not a key of the config. Did you mean 'grid'?",
        "sweep: {grid: {model.n_layer: [1]}}": "model.n_layer is not a key of the config.",
        "sweep: {grid: {seed: 1}}": "sweep.grid.seed=1: input should be a valid list",
    }.items():
        file.write_text(f"# @package _global_\n{body}\n")
        with pytest.raises(UserError) as caught:
            composer = Composer(ROOTS, file)
            composer.config(expand(composer.sweep_spec(), []).cells[0])
        assert str(caught.value).endswith(said) or said in str(caught.value)
        assert "mine.yaml:2: " in str(caught.value)
    file.write_text("sweep: [1, 2\n")
    with pytest.raises(UserError, match=r"mine\.yaml:2: not YAML"):
        Composer(ROOTS, file)


def test_a_key_of_the_sweep_file_that_the_chosen_group_lacks_is_named_with_the_word_that_drops_it(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("sweep: {}\ntokenizer: {vocab_size: 300}\n")
    with pytest.raises(UserError, match=r"mine\.yaml:2 sets it, and tokenizer=byte has no .* '~tokenizer\.vocab_size'"):
        Composer(ROOTS, file, ["tokenizer=byte"]).config({})
    dropped = Composer(ROOTS, file, ["tokenizer=byte", "~tokenizer.vocab_size"]).config({})
    assert dropped.tokenizer == compose("tokenizer=byte").tokenizer
    with pytest.raises(UserError, match=r"config\.$"):  # the words set it, so dropping the file's is no help
        Composer(ROOTS, file, ["tokenizer=byte", "tokenizer.vocab_size=9"]).config({})


def test_of_words_that_set_one_key_the_last_counts_however_it_is_written():
    for words, layers in {
        ("model.n_layers=1", "++model.n_layers=3"): 3,
        ("++model.n_layers=3", "model.n_layers=1"): 1,
        ("model.n_layers=1", "model.n_layers=2"): 2,
        ("++model.n_layers=1", "++model.n_layers=5"): 5,
    }.items():
        assert compose(*words).model.n_layers == layers
    assert compose("model=gpt_nano", "model=gpt_tiny").model.name == "gpt_tiny"


def test_a_misspelt_key_is_not_taken_for_one_of_the_sweep():
    file = paths.sweep_files(ROOTS)["demo"]
    with pytest.raises(UserError) as caught:
        Composer(ROOTS, file).config({"optim.nosuch": 1})
    said, hint = str(caught.value).split(" is not a key of the config.")
    assert said.endswith("optim.nosuch") and "sweep" not in hint


def test_numbers_may_be_written_as_people_write_them():
    assert compose("budget.tokens=1e6").budget.tokens == compose("budget.tokens=1_000_000").budget.tokens == 1_000_000


def test_interpolations_are_resolved():
    assert compose("model.d_ff=${model.d_model}").model.d_ff == 128


def test_values_set_without_omegaconf_give_the_config_that_it_would_give(monkeypatch: pytest.MonkeyPatch):
    words = ["data=text", "optim.lr=0.5", "model.dropout=0.25"]
    cells: list[dict] = [
        {"data.path": "a,b: c", "seed": 3},
        {"data.path": "x", "optim.lr": 1e-3, "model": "llama_nano", "model.n_layers": 3, "precision": "bf16"},
        {"data.path": "x", "init.pretrain": {"model": "gpt_tiny"}},
        {"data.path": "${model.name}"},
    ]
    composed: list[dict] = []
    compose = Composer._compose
    monkeypatch.setattr(Composer, "_compose", lambda self, values: composed.append(values) or compose(self, values))
    configs = list(map(Composer(ROOTS, words=words).config, cells))
    assert composed == [{}, {"model": "llama_nano", "precision": "bf16"}, cells[2], cells[3]]
    assert configs[0].optim.lr == 0.5 and configs[1].optim.lr == 1e-3 and configs[3].data.path == "gpt_tiny"
    monkeypatch.setattr(Composer, "_with_leaves", lambda self, values: None)
    assert configs == list(map(Composer(ROOTS, words=words).config, cells))


def test_a_users_own_folder_comes_first(tmp_path: Path):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("defaults: [gpt_nano, _self_]\nname: mine\nn_layers: 7\n")
    (tmp_path / "conf" / "model" / "gpt_tiny.yaml").write_text("defaults: [gpt_nano, _self_]\nname: hidden\n")
    roots = paths.search_roots(tmp_path)
    assert Composer(roots, words=["model=mine"]).config({}).model.n_layers == 7
    assert Composer(roots, words=["model=gpt_tiny"]).config({}).model.name == "hidden"
    with pytest.raises(UserError, match="no folder conf/ or sweeps/"):
        paths.search_roots(tmp_path / "conf")


def test_lightnings_trainer_has_every_option_that_the_config_names():
    import inspect

    import pytorch_lightning as pl

    from lmexp.config.trainer import TrainerConfig

    ours = set(TrainerConfig.model_fields) - {"log_every", "compile", "activation_checkpointing"}  # these are lmexp's
    assert ours <= set(inspect.signature(pl.Trainer.__init__).parameters)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.n_heads=3"], "model.d_model=128 is not divisible by model.n_heads=3"),
        (["batch.tokens=1000"], "batch.tokens=1000 is not a multiple of model.context=256; 768 would be"),
        (
            ["model=encdec_nano", "task=seq2seq", "data=reverse", "model.input_context=20", "batch.tokens=1000"],
            "batch.tokens=1000 is not a multiple of a source and a target together, 84 tokens; 924 would be",
        ),
        (["batch.micro=3"], "batch.micro=3 does not divide the 16 sequences"),
        (["trainer.devices=3"], "which 3 devices cannot share evenly"),
        (["trainer.strategy=fsdp"], "trainer.strategy=fsdp shares weights among devices: set trainer.devices to 2"),
        (["trainer.strategy=fsdp", "trainer.devices=2", "precision=fp16"], "trainer.strategy=fsdp goes with fp32"),
        (["trainer.strategy=fsdp", "trainer.devices=2", "precision=fp8"], "trainer.strategy=fsdp goes with fp32"),
        (
            ["model=lstm_nano", "trainer.activation_checkpointing=full"],
            "of the family lstm, whose layers are one module",
        ),
        (
            ["task=classify", "data=sentiment", "init.freeze=true", "trainer.activation_checkpointing=selective"],
            "layers have no backward pass: use none",
        ),
        (["budget.tokens=5", "budget.flops=5"], "two budgets: budget.tokens and budget.flops"),
        (["schedule=wsd", "schedule.warmup=0.9"], "are more than the whole budget"),
        (["task=masked_lm", "model=bert_nano", "data.canaries.count=1"], "task=masked_lm does not"),
        (["data.canaries.count=1", "model.context=16"], "has up to 25 tokens, and model.context=16 is less"),
        (["data=reverse", "data.canaries.count=1"], "Only sources of running text have it"),
        (["data=reverse", "+data.canaries.count=1"], "planted into running text, and this source has pairs"),
    ],
)
def test_values_that_do_not_go_together_are_refused(words: list[str], said: str):
    with pytest.raises(UserError) as caught:
        check_config(compose(*words))
    assert said in str(caught.value)


def test_somebody_elses_sweep_and_run_let_code_of_a_model_run_only_if_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for folder in ("mine", "theirs/sweeps"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    file = tmp_path / "theirs" / "sweeps" / "own.yaml"
    file.write_text("model: {trust_remote_code: true}\nsweep: {seeds: 1}\n")
    words = ["model=hf_pretrained", "model.pretrained=their/model", "model.context=8", "model.predicts=causal"]
    with trusting():
        with pytest.raises(UserError, match="add --trust trust_remote_code"):
            Composer(paths.search_roots(), file, words).config({})
        allow_code(["model.trust_remote_code=true"])
        config = Composer(paths.search_roots(), file, words).config({})
        check_code(config)
    run = RunDir.create(tmp_path / "theirs" / "run", config)
    with pytest.raises(UserError, match="add --trust trust_remote_code"):  # the worker, retry
        check_code(run.read_config())
    run.final.mkdir(parents=True)
    (run.final / "model.safetensors").touch()
    RunDir(run.final).write_config(config)
    with pytest.raises(UserError, match="add --trust trust_remote_code"):  # generate, score, eval, bench, export
        load_final(run)
