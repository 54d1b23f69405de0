"""What a run is made of: the typed schema that every resolved config must meet.

Hydra composes YAML; pydantic checks the result against these classes. A field's docstring is its meaning
and its unit. Two rules keep run identities stable (see identity.py): a default here never changes its
value, and a new field gets the default that reproduces what was done before it existed.

A ``_target_`` may name code from outside lmexp. Nothing is imported that the user has not allowed (trust.py), so a run
directory from somebody else is data. Reading a config imports models and tasks from outside, for the sections that they
bring, and nothing else.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lmexp.config.base import (
    BY_ORIGIN,
    OUTSIDE,
    SHIPPED,
    Compute,
    Count,
    Dtype,
    OutsideSection,
    Positive,
    Section,
    Seed,
    Share,
)
from lmexp.config.code import CodeVersion
from lmexp.config.data import DataConfig
from lmexp.config.launchers import LauncherConfig, LocalLauncher
from lmexp.config.models import ModelConfig
from lmexp.config.optimizers import OptimConfig
from lmexp.config.privacy import PrivacyConfig
from lmexp.config.schedules import AnySchedule
from lmexp.config.tasks import TaskConfig
from lmexp.config.tokenizers import TokenizerConfig
from lmexp.config.trainer import TrainerConfig

SCHEMA_VERSION = 1


class InitConfig(Section):
    """What the weights begin as: drawn from the seed, or those of another run, whose model and tokenizer come along."""

    run: str | None = None
    """A finished run: its directory, or its name among the outputs."""
    run_id: str | None = None
    """That run's identity, filled in when the config is resolved; stands for the directory in identities."""
    pretrain: dict[str, Any] = {}
    """Instead: what such a run, which the sweep then trains first, has otherwise than this one, as in
    {task: masked_lm, data: stdlib, budget.tokens: 1_000_000}."""
    freeze: bool = False
    """Whether only a head over labels is trained."""


DEFAULT_TOKENS = 1_000_000
"""The budget of a run that names none."""


class BudgetConfig(Section):
    """What a run may spend: exactly one amount, or none, which means 1,000,000 tokens; and its milestones."""

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
    milestones: list[Positive] | None = None
    """Points before the end at which the run yields a row of its own, as if a separate run had ended there:
    shares of the budget, up to 1, or tokens, above 1. The end is always a milestone."""

    @field_validator("milestones")
    @classmethod
    def _in_order(cls, milestones: list[float] | None) -> list[float] | None:
        """Sort, and leave out the end, so that equal runs have equal identities."""
        return sorted({float(each) for each in milestones or ()} - {1.0}) or None

    @property
    def amount(self) -> dict[str, float]:
        """The amount by its name, as in `{"flops": 1e13}`; empty if none is set. check_config refuses several."""
        return self.model_dump(exclude_none=True, exclude={"milestones"})


class BatchConfig(Section):
    """The global batch, in tokens, whatever the devices."""

    tokens: Count
    """Tokens for each optimizer step, over all devices; a multiple of the model's context."""
    micro: Count | Literal["auto"] | None = None
    """Sequences for each forward pass and device; null means as many as the batch holds for the device, auto
    the largest divisor of that which fits into its memory."""
    by_length: bool = False
    """Whether a step's examples are of similar length. Short ones then share the positions of one sequence of the full
    context (two halves, four quarters and so on), which otherwise is mostly padding. Not for running text."""


MIN_DOCUMENTS = 20
"""The fewest documents of each split that `evaluation.membership` compares."""


class EvaluationConfig(Section):
    """When the whole validation split is scored, besides the end."""

    every: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the budget between two evaluations."""
    patience: Count | None = None
    """How many evaluations in a row may bring no lower validation loss before the run stops. The final weights are
    then those of the lowest loss, also of a run that spends its whole budget. null: every run spends it, and its last
    weights are final."""
    membership: Annotated[int, Field(ge=MIN_DOCUMENTS)] | None = None
    """At the end of a run, membership attacks compare up to this many training documents with as many validation
    documents (tasks/membership.py); null: no attacks."""


class CheckpointConfig(Section):
    """When the state of training is saved."""

    every: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the budget between two saves of last.ckpt."""


class DivergenceConfig(Section):
    """When a training loss that is still a number ends the run all the same."""

    multiple: Positive | None = 1.5
    """The training loss must not stay above this multiple of the first step's loss; null means no limit."""
    share: Share = 0.05
    """Share of the budget for which it may."""


LIGHTNING_PLUGINS: dict[str, tuple[Dtype, tuple[Compute, ...]]] = {
    "32-true": ("fp32", ("fp32", "tf32")),
    "bf16-mixed": ("fp32", ("bf16", "fp8")),
    "16-mixed": ("fp32", ("fp16",)),
    "bf16-true": ("bf16", ("bf16",)),
    "16-true": ("fp16", ("fp16",)),
}
"""What each of Lightning's precision plugins stores weights in, and what it can multiply in."""


class PrecisionConfig(Section):
    """What each tensor is stored and multiplied in; a combination of known types needs one file in conf/precision/."""

    name: str
    """As in tables."""
    weights: Dtype
    gradients: Dtype
    optimizer: Dtype
    compute: Compute
    """What matrices are multiplied in."""
    lightning: Literal["32-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true"]
    """The name of the Lightning precision plugin that does it."""
    emulate: bool = False
    """Whether fp8 products may be computed in float32 from operands rounded to 8 bits: to study its effect on
    quality on a device that lacks it. Slow, and its speed says nothing."""

    @model_validator(mode="after")
    def _check(self) -> "PrecisionConfig":
        weights, computes = LIGHTNING_PLUGINS[self.lightning]
        if {self.weights, self.gradients, self.optimizer} != {weights} or self.compute not in computes:
            raise ValueError(
                f"lightning={self.lightning} stores weights, gradients and optimizer in {weights}, and multiplies in "
                f"{' or '.join(computes)}"
            )
        return self


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
    dollars_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of one device; an example that a user overrides with their own."""
    price_source: str | None = None
    """Whose price, and when."""


class LoggerConfig(Section):
    """A mirror of the curve and the record; it may fail without harm to the run."""

    name: Literal["none", "wandb", "tensorboard", "mlflow", "trackio"]
    project: str = "lmexp"
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = []
    """Tags beside those that every run gets: its model, family, task and precision."""
    artifacts: list[Literal["model", "report"]] = []
    """Files to copy as well, in W&B and MLflow: the final weights of each run, the sweep's report page (by `sync`)."""
    system_metrics: bool = True
    """Whether W&B and trackio sample the machine while a run trains: CPU, memory, GPUs."""
    console: bool = True
    """W&B only: whether it gets what the run prints."""
    mode: Literal["offline", "online", "disabled"] = "offline"
    """W&B only."""
    entity: str | None = None
    """W&B only."""
    uri: str | None = None
    """MLflow only: the tracking server; null means a folder in the sweep's folder."""


class OutsideLogger(OutsideSection):
    """A mirror from outside: a class as runs/mirrors/mirror.py describes it, made with the other keys."""

    @property
    def name(self) -> str:
        """The class's own name."""
        return self.target.rsplit(".", 1)[-1]


class CallbackConfig(OutsideSection):
    """A Lightning callback: a class that is made with the other keys."""


class RunInfo(Section):
    """The run's identity, and its name in a sweep."""

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
    target_tokenizer: TokenizerConfig | None = None
    """The tokenizer of the targets of pairs; null means one tokenizer for both sides, built from both."""
    task: TaskConfig
    optim: OptimConfig
    schedule: AnySchedule
    budget: BudgetConfig
    batch: BatchConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    divergence: DivergenceConfig = DivergenceConfig()
    precision: PrecisionConfig
    trainer: TrainerConfig
    hardware: HardwareConfig = HardwareConfig()
    init: InitConfig = InitConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    callbacks: list[CallbackConfig] = []
    """Lightning callbacks, called before lmexp's own at each hook. Validation is lmexp's: its hooks are not called."""
    logger: Annotated[Annotated[LoggerConfig, SHIPPED] | Annotated[OutsideLogger, OUTSIDE], BY_ORIGIN]
    launcher: LauncherConfig = LocalLauncher()
    code: dict[str, CodeVersion] = {}
    """The version of each `_target_` from outside lmexp, filled in when the config is resolved."""
    run: RunInfo | None = None
