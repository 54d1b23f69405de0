"""What a run is made of: the typed schema that every resolved config must meet.

Hydra composes YAML; pydantic checks the result against these classes. A field's docstring is its meaning
and its unit. Two rules keep run identities stable (see identity.py): a default here never changes its
value, and a new field gets the default that reproduces what was done before it existed.

Nothing in a config names code freely: each ``_target_`` is one of a closed set, so a run directory from
somebody else can be read, continued and sampled from without running anything but lmexp and torch.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

SCHEMA_VERSION = 1


def _no_boolean(value: Any) -> Any:
    """YAML's true would pass for 1."""
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true or false")
    return value


Share = Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, le=1)]
Count = Annotated[int, BeforeValidator(_no_boolean), Field(gt=0)]
Seed = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0, lt=2**32)]
Positive = Annotated[float, BeforeValidator(_no_boolean), Field(gt=0)]
Dtype = Literal["fp32", "bf16", "fp16"]
Compute = Literal["fp32", "tf32", "bf16", "fp16", "fp8"]


class Section(BaseModel):
    """A part of the config: immutable, no keys beyond those named, no NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True, allow_inf_nan=False
    )


class GPTConfig(Section):
    """Decoder-only Transformer after GPT-2 (Radford et al. 2019): learned positions, pre-norm, GELU."""

    target: Literal["lmexp.models.gpt.GPT"] = Field(alias="_target_")
    family: Literal["gpt"] = "gpt"
    name: str
    """The size's name, as in tables."""
    n_layers: Count
    d_model: Count
    """Width of the residual stream."""
    n_heads: Count
    """Attention heads; must divide d_model."""
    d_ff: Count | None = None
    """Width of the feed-forward layer; null means 4 d_model."""
    context: Count
    """Longest sequence, in tokens; also the length of the training sequences."""
    vocab_size: Count | None = None
    """Rows of the embedding; null means the tokenizer's."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    bias: bool = True
    """Whether linear layers and norms have biases."""
    tie_embeddings: bool = True
    """Whether the output head shares the token embedding's weights."""

    @property
    def d_feed_forward(self) -> int:
        """Width of the feed-forward layer, resolved."""
        return self.d_ff or 4 * self.d_model


ModelConfig = GPTConfig  # becomes a union, told apart by `_target_`, as families join


class DataSection(Section):
    """What every source shares: how its documents are split."""

    split: Literal["hash", "tail"] = "hash"
    """hash: each document goes to a side by a hash of its text; tail: the last part of the text validates."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of documents (hash) or of characters (tail) that validates."""
    fingerprint: str | None = None
    """Hash of the source's content, filled in when the config is resolved; stands for the paths in identities."""


class StdlibData(DataSection):
    """The Python standard library's own source and documentation, found beside the interpreter."""

    source: Literal["stdlib"]


class FileData(DataSection):
    """Local files."""

    source: Literal["files"]
    path: str
    """A file, a folder or a glob; relative to the folder the command runs in."""
    format: Literal["txt", "jsonl", "csv", "parquet"]
    field: str = "text"
    """The column or key that holds the text (jsonl, csv, parquet)."""
    document: Literal["file", "paragraph", "line"] = "file"
    """What one document is in txt files; a paragraph ends at an empty line."""


class HubData(DataSection):
    """A Hugging Face dataset, by name and revision, or a local folder of one."""

    source: Literal["hub"]
    name: str
    config: str | None = None
    revision: str | None = None
    """Commit, tag or branch; a study that is to be repeated names a commit."""
    subset: str = "train"
    """The dataset's own split that is read; ours is made from it."""
    field: str = "text"


DataConfig = Annotated[StdlibData | FileData | HubData, Field(discriminator="source")]


class ByteTokenizerConfig(Section):
    """One token a UTF-8 byte, and one that begins a document."""

    kind: Literal["byte"]


class CharTokenizerConfig(Section):
    """One token for each character that occurs in the text, and one that begins a document."""

    kind: Literal["char"]


class BPETokenizerConfig(Section):
    """Byte-level byte-pair encoding, trained on the training split."""

    kind: Literal["bpe"]
    vocab_size: Annotated[int, Field(ge=258, le=1_000_000)]
    """Entries, the 256 bytes and the document token included."""


TokenizerConfig = Annotated[ByteTokenizerConfig | CharTokenizerConfig | BPETokenizerConfig, Field(discriminator="kind")]


class CausalLMConfig(Section):
    """Predict each token from those before it."""

    target: Literal["lmexp.tasks.causal_lm.CausalLM"] = Field(alias="_target_")
    name: Literal["causal_lm"] = "causal_lm"


TaskConfig = CausalLMConfig  # becomes a union as tasks join


class OptimSection(Section):
    """What every optimizer shares."""

    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """On matrices and embeddings only; never on norms and biases."""
    grad_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest global norm of the gradient; null clips nothing."""


class AdamConfig(OptimSection):
    """Adam (Kingma and Ba 2015), or AdamW with decoupled weight decay (Loshchilov and Hutter 2019)."""

    target: Literal["torch.optim.AdamW", "torch.optim.Adam"] = Field(alias="_target_")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0)] = 1e-8


class SGDConfig(OptimSection):
    """Stochastic gradient descent with momentum."""

    target: Literal["torch.optim.SGD"] = Field(alias="_target_")
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False


OptimConfig = Annotated[AdamConfig | SGDConfig, Field(discriminator="target")]


class ScheduleConfig(Section):
    """The learning rate as a function of the share of the budget that is spent."""

    name: Literal["cosine", "linear", "constant", "wsd"]
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the budget over which the rate rises linearly from 0."""
    final: Share = 0.1
    """The last rate, as a share of the peak (cosine, linear, wsd)."""
    cooldown: Share = 0.2
    """Share of the budget, at its end, over which wsd falls by 1 - sqrt."""


class BudgetConfig(Section):
    """What a run may spend: exactly one of these, or none, which means 1,000,000 tokens."""

    tokens: Count | None = None
    flops: Annotated[float, Field(gt=0)] | None = None
    """Training FLOPs, by the convention of cost/flops.py."""
    tokens_per_param: Annotated[float, Field(gt=0)] | None = None
    """Tokens for each parameter, embeddings included."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training split."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds of training steps; starting, validation and checkpoints come on top."""
    dollars: Annotated[float, Field(gt=0)] | None = None
    """Price of the training steps, at hardware.dollars_per_hour for each device."""


class BatchConfig(Section):
    """The global batch, in tokens, whatever the devices."""

    tokens: Count
    """Tokens for each optimizer step, over all devices; a multiple of the model's context."""
    micro: Count | Literal["auto"] | None = None
    """Sequences for each forward pass and device; null means as many as the batch holds for the device, auto
    the largest divisor of that which fits into its memory."""


class EvaluationConfig(Section):
    """When the whole validation split is scored, besides the end."""

    every: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the budget between two evaluations."""


class CheckpointConfig(Section):
    """When the state of training is saved."""

    every: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the budget between two saves of last.ckpt."""


class DivergenceConfig(Section):
    """When a training loss that is still a number ends the run all the same."""

    multiple: Positive | None = 1.5
    """Of the first step's loss: what the training loss must not stay above; null lets it."""
    share: Share = 0.05
    """Share of the budget for which it may."""


class PrecisionConfig(Section):
    """What each tensor is stored and multiplied in."""

    name: Literal["fp32", "tf32", "bf16", "bf16_true", "fp16", "fp8"]
    weights: Dtype
    gradients: Dtype
    optimizer: Dtype
    compute: Compute
    """What matrices are multiplied in."""
    lightning: Literal["32-true", "bf16-mixed", "bf16-true", "16-mixed"]
    """The name of the Lightning precision plugin that does it."""
    emulate: bool = False
    """Whether fp8 products may be computed in float32 from operands rounded to 8 bits: to study its effect on
    quality on a device that lacks it. Slow, and its speed says nothing."""


class TrainerConfig(Section):
    """Lightning's own Trainer options; lmexp sets the others (steps, accumulation, loggers, validation)."""

    accelerator: str = "auto"
    devices: Count = 1
    """How many devices train a run together; which ones is the launcher's business."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several devices share a run. ddp, which auto means there, gives each the whole model; fsdp gives each a
    part of every weight, its gradient and its optimizer state (torch's fully_shard)."""
    num_nodes: Count = 1
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    inference_mode: bool = True
    detect_anomaly: bool = False
    sync_batchnorm: bool = False
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    enable_model_summary: bool = False
    enable_progress_bar: bool = False
    compile: bool = False
    """Whether torch.compile makes the model's kernels: tens of seconds once, then faster on GPUs."""
    log_every: Count = 10
    """Optimizer steps between two points of the curve (ours; Lightning's own logging is off)."""


class HardwareConfig(Section):
    """What one device can do, by its datasheet, and what an hour of it costs.

    `auto` stands for the file of conf/hardware/ that names the device found; what is set beside it prevails.
    """

    name: str = "auto"
    match: list[str] = []
    """Patterns (as in a shell, case ignored) of the names that the driver gives the device; none fits any."""
    memory_gb: Positive | None = None
    """GB (1e9 bytes) of memory of one device."""
    bandwidth_gb_per_second: Positive | None = None
    """Peak memory bandwidth, 1e9 bytes per second."""
    peak_flops: dict[Compute, Positive] = {}
    """Dense matmul FLOP/s by what is multiplied; sparse figures, twice as high, do not belong here."""
    peak_source: str | None = None
    """The document that says so."""
    watts: Positive | None = None
    """Power under load of one device, where its energy cannot be counted: the board's rated power."""
    dollars_per_hour: Annotated[float, BeforeValidator(_no_boolean), Field(ge=0)] | None = None
    """Price of one device; an example that a user overrides with their own."""
    price_source: str | None = None
    """Whose price, and when."""


class LoggerConfig(Section):
    """A mirror of the curve and the record; it may fail without harm to the run."""

    name: Literal["none", "wandb", "tensorboard", "mlflow"]
    project: str = "lmexp"
    mode: Literal["offline", "online", "disabled"] = "offline"
    """W&B only."""
    entity: str | None = None
    """W&B only."""
    uri: str | None = None
    """MLflow only: the tracking server; null means a folder in the run directory."""


class LocalLauncher(Section):
    """This machine: one process a run, slots of devices."""

    name: Literal["local"] = "local"
    slots: Count | None = None
    """Runs at a time; null means as many as the devices allow, and one on a CPU."""
    devices_per_run: Positive | None = None
    """Devices that a run takes; null means trainer.devices. A fraction shares one device between runs."""
    exclusive: bool = True
    """Whether each run is to have its devices to itself; false is needed for a fraction of one."""
    threads: Count | None = None
    """CPU threads a run; null splits the cores evenly."""


class ClusterLauncher(Section):
    """A cluster: its nodes see the outputs under the same path and have the same lmexp."""

    max_jobs: Count = 1000
    """Runs that are handed over to the scheduler at a time."""
    cpus: Count = 1
    """CPU cores, and threads, a process of a run."""
    memory_gb: Positive | None = None
    """Host memory a node of a run, GB; null means the cluster's default."""


class SlurmLauncher(ClusterLauncher):
    """Slurm, through submitit; many runs of one shape are one array job."""

    name: Literal["slurm"]
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gpus_per_node: Annotated[int, BeforeValidator(_no_boolean), Field(ge=0)] | None = None
    """GPUs of each node of a run; null asks for none, or one a process where trainer.accelerator is a GPU."""
    constraint: str | None = None
    minutes: Count = 60
    """The job's time limit; a run that needs longer is saved before it and queued again under the same id."""
    signal_seconds: Count = 60
    """How long before the time limit, or a preemption, a run is told to save."""
    requeues: Count = 100
    """How often a run may reach its time limit."""
    running_jobs: Count | None = None
    """Jobs of one array that run at a time; null means as many as the cluster gives."""
    setup: list[str] = []
    """Shell lines before the run: `module load`, `source .../activate`."""
    options: dict[str, str | int] = {}
    """Further options of sbatch, as in {exclude: node7}."""


class RayLauncher(ClusterLauncher):
    """An existing Ray cluster."""

    name: Literal["ray"]
    address: str
    """HOST:PORT of the cluster's head; `auto` would take whatever cluster was last seen on the machine."""
    gpus: Annotated[float, BeforeValidator(_no_boolean), Field(ge=0)] | None = None
    """GPUs a run; a fraction shares one; null asks for none, or one a process where trainer.accelerator is a GPU."""
    exclusive: bool = True
    """Whether each run is to have its GPUs to itself; false is needed for a fraction of one."""
    resources: dict[str, Positive] = {}
    """Further resources of the cluster that a run takes, as in {a100: 1}."""


LauncherConfig = Annotated[LocalLauncher | SlurmLauncher | RayLauncher, Field(discriminator="name")]


class RunInfo(Section):
    """Who the run is."""

    id: str
    """Hash of what determines the result."""
    sweep: str
    slug: str
    """The swept values in words."""


class RunConfig(Section):
    """One resolved config: everything that one training run depends on."""

    schema_version: Literal[1] = 1
    seed: Seed = 0
    model: ModelConfig
    data: DataConfig
    tokenizer: TokenizerConfig
    task: TaskConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    budget: BudgetConfig
    batch: BatchConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    divergence: DivergenceConfig = DivergenceConfig()
    precision: PrecisionConfig
    trainer: TrainerConfig
    hardware: HardwareConfig = HardwareConfig()
    logger: LoggerConfig
    launcher: LauncherConfig = LocalLauncher()
    run: RunInfo | None = None


class Interval(Section):
    """Numbers from low to high, both included; whole ones where low, high and step are."""

    low: Annotated[int | float, BeforeValidator(_no_boolean)]
    high: Annotated[int | float, BeforeValidator(_no_boolean)]
    log: bool = False
    """Whether ratios count alike, not differences: from 1e-4 to 1e-3 is as far as from 1e-3 to 1e-2."""
    step: Annotated[int | float, BeforeValidator(_no_boolean), Field(gt=0)] | None = None
    """Distance of two neighbours; null means 1 where low and high are whole, else any number between them."""

    @model_validator(mode="after")
    def _check(self) -> "Interval":
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be less than high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, and it is {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step={self.step} is more than high - low")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are integers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step) if number is not None)


class Choices(Section):
    """A list of values."""

    choices: Annotated[list[bool | int | float | str | None], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> "Choices":
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("a value is in it twice")
        return self


def _kind_of_axis(value: Any) -> str:
    return "choices" if isinstance(value, Choices) or (isinstance(value, dict) and "choices" in value) else "interval"


def _a_mapping(value: Any) -> Any:
    if not isinstance(value, dict | Interval | Choices):
        raise ValueError("write {low: ..., high: ...} or {choices: [...]}")
    return value


SearchAxis = Annotated[
    Annotated[Interval, Tag("interval")] | Annotated[Choices, Tag("choices")],
    Discriminator(_kind_of_axis),
    BeforeValidator(_a_mapping),
]
"""The values of one key that a search draws from."""


class Pruning(Section):
    """Asynchronous successive halving (ASHA, Li et al. 2020): at each rung only the best of every few go on.

    Rungs are shares of the budget: `from`, then `reduction` times as much each time, below 1.
    """

    reduction: Annotated[int, BeforeValidator(_no_boolean), Field(ge=2)] = 3
    """Of how many trials that have reached a rung one goes on; before as many have reached it, all do."""
    start: Annotated[float, BeforeValidator(_no_boolean), Field(gt=0, lt=1)] = Field(0.25, alias="from")
    """The first rung."""

    @property
    def rungs(self) -> list[float]:
        """The shares of the budget at which trials are compared."""
        shares = [self.start]
        while shares[-1] * self.reduction < 1 - 1e-9:
            shares.append(shares[-1] * self.reduction)
        return shares


class SearchSpec(Section):
    """The `sweep.search:` node: cells that are chosen one after another, by what the earlier ones gave."""

    sampler: Literal["tpe", "random", "nsga2"] = "tpe"
    """Who proposes: a tree-structured Parzen estimator (Bergstra et al. 2011), chance, or NSGA-II (Deb et al. 2002)."""
    trials: Count
    """In all, those of earlier calls included."""
    objectives: Annotated[dict[str, Literal["minimize", "maximize"]], Field(min_length=1)] = {"loss": "minimize"}
    """Columns of the record; of several, the search is for their frontier."""
    space: Annotated[dict[str, SearchAxis], Field(min_length=1)]
    """The keys that vary, and between which values."""
    prune: Pruning | None = None
    """When trials are given up early; null: never."""
    parallel: Count | None = None
    """Trials under way at a time; null means as many as there are places here, a fifth of the trials on a cluster."""
    seed: Seed = 0
    """Of the proposals: one trial at a time, the same seed proposes the same."""


class SweepSpec(Section):
    """The `sweep:` node of a sweep file: which cells the study has."""

    question: str | None = None
    """What the study is to find out; the report opens with it."""
    grid: dict[str, list[Any]] = {}
    """Axes that are crossed: every combination is a cell."""
    zip: dict[str, list[Any]] = {}
    """Axes of one length that advance together; crossed with the grid."""
    points: list[dict[str, Any]] = []
    """Further cells, each named in full."""
    exclude: list[dict[str, Any]] = []
    """Cells that match all the values of one of these are left out."""
    seeds: Count | list[Seed] | None = None
    """How many seeds (0, 1, ...) or which."""
    search: SearchSpec | None = None
    """Instead of all these: cells that are chosen as results come in."""

    @model_validator(mode="after")
    def _check(self) -> "SweepSpec":
        beside = [name for name in ("grid", "zip", "points", "exclude", "seeds") if getattr(self, name)]
        if self.search is not None and beside:
            raise ValueError(f"search stands alone, and {beside[0]} is there too")
        return self
