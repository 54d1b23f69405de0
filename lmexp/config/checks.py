"""What the types cannot say: values that do not go together."""

from lmexp.config.base import Section
from lmexp.config.code import load_target
from lmexp.config.data import MAX_CANARY_TOKENS
from lmexp.config.launchers import LocalLauncher
from lmexp.config.models import families
from lmexp.config.models.base import CountedSection, TransformerSection
from lmexp.config.models.mup import MupSection
from lmexp.config.optimizers import MuonConfig
from lmexp.config.privacy_checks import check_privacy
from lmexp.config.schedules import ScheduleConfig
from lmexp.config.schema import RunConfig
from lmexp.config.tasks import tasks
from lmexp.errors import UserError


def check_config(config: RunConfig) -> None:
    """Raise UserError for the first thing in a config that cannot be run anywhere."""
    model, batch = config.model, config.batch
    model.check()
    check_task(config)
    each = model.sequence_tokens
    if batch.tokens % each:
        key = f"model.context={each}" if each == model.context else f"a source and a target together, {each} tokens"
        raise UserError(
            f"batch.tokens={batch.tokens} is not a multiple of {key}; {whole_batch(config, batch.tokens)} would be"
        )
    if batch.by_length and config.data.holds == "text":
        raise UserError(
            f"batch.by_length=true is for pairs, labels and tags; data.source={config.data.source} has running text, "
            "which is cut without padding"
        )
    processes, total = world_size(config), sequences(config)
    if total % processes:
        raise UserError(
            f"batch.tokens={batch.tokens} is {total} sequences, which {processes} devices cannot share evenly; set "
            f"batch.tokens={whole_batch(config, batch.tokens)}"
        )
    if config.trainer.strategy == "fsdp":
        if processes == 1:
            raise UserError("trainer.strategy=fsdp shares weights among devices: set trainer.devices to 2 or more")
        if config.evaluation.patience is not None:
            raise UserError(
                "evaluation.patience keeps a copy of all weights in each process, and with trainer.strategy=fsdp no "
                "process has them all: use ddp, or leave patience out"
            )
        if config.precision.compute in ("fp16", "fp8"):
            raise UserError(
                f"precision={config.precision.name}: trainer.strategy=fsdp goes with fp32, tf32, bf16 and bf16_true"
            )
    if isinstance(batch.micro, int) and (total // processes) % batch.micro:
        raise UserError(
            f"batch.micro={batch.micro} does not divide the {total // processes} sequences "
            f"that each device has of a step; set batch.tokens={whole_batch(config, batch.tokens)}, or batch.micro=auto"
        )
    check_privacy(config)
    if config.evaluation.membership and not config.task.predicts_next:
        raise UserError(
            f"evaluation.membership={config.evaluation.membership} needs a model that predicts the next token, and "
            f"that of task={config.task.name} does not: set evaluation.membership=null, or task=causal_lm"
        )
    _check_optim(config)
    _check_recomputation(config)
    config.launcher.check(config.trainer)
    _check_fp8(config)
    budgets = list(config.budget.amount)
    if len(budgets) > 1:
        first, second = budgets[:2]
        raise UserError(f"two budgets: budget.{first} and budget.{second}; set one of them to null")
    if isinstance(config.schedule, ScheduleConfig):
        config.schedule.check()
    if config.budget.milestones:
        _check_milestones(config)


def check_task(config: RunConfig) -> None:
    """Raise UserError when a task needs another kind of model, or of data."""
    model, task, data = config.model, config.task, config.data
    if config.init.freeze and task.head != "labels":
        with_labels = " and ".join(f"task={_name(section)}" for section in tasks() if section.head == "labels")
        raise UserError(
            f"init.freeze=true trains a head over labels alone, and task={task.name} has none: "
            f"it goes with {with_labels}"
        )
    for metric in task.metrics:
        load_target(metric.target, "metric")
    if model.reads not in task.reads:
        # A family of several kinds, as hf is, comes last: which of them a model is, its config says.
        fitting = [section for section in families() if set(section.ways) & set(task.reads)]
        of_one = ", ".join(_name(section, "family") for section in fitting if len(section.ways) == 1)
        of_several = ", ".join(_name(section, "family") for section in fitting if len(section.ways) > 1)
        raise UserError(
            f"task={task.name} needs a model of {of_one} (or {of_several}), and {model.name} is of {model.family}"
        )
    if task.masks_documents and not model.masks_documents:
        known = ", ".join(_name(section, "family") for section in families() if section.masks_documents)
        raise UserError(f"task.document_masks=true works for models of {known}, and {model.name} is of {model.family}")
    if data.holds != task.holds:
        raise UserError(f"task={task.name} needs {task.holds}, and data.source={data.source} has {data.holds}")
    if data.canaries.count:
        _check_canaries(config)


def _check_canaries(config: RunConfig) -> None:
    """Raise UserError if the model cannot give the probability of a canary."""
    model, task = config.model, config.task
    if not task.predicts_next:
        raise UserError(
            f"data.canaries.count={config.data.canaries.count} needs a model that predicts the next token, and that of "
            f"task={task.name} does not: set data.canaries.count=0, or task=causal_lm"
        )
    if model.context < MAX_CANARY_TOKENS:
        raise UserError(
            f"data.canaries: a canary has up to {MAX_CANARY_TOKENS} tokens, and model.context={model.context} is less"
        )


def _check_milestones(config: RunConfig) -> None:
    """Raise UserError if milestones cannot branch off this run; cost/horizon.py checks where they lie."""
    schedule = config.schedule
    if not isinstance(schedule, ScheduleConfig) or not schedule.has_trunk:
        raise UserError(
            "budget.milestones needs a learning rate that does not depend on where the run ends: schedule=wsd "
            "or wsd_linear, whose cool-down branches off at each milestone, or schedule=constant"
        )
    for kind in {"seconds", "dollars"} & config.budget.amount.keys():
        raise UserError(
            f"budget.milestones needs a budget whose steps are known from the start, and budget.{kind} is not: "
            "set tokens, flops, tokens_per_param or epochs"
        )
    if config.evaluation.patience is not None:
        raise UserError(
            "evaluation.patience may end a run at any evaluation, and budget.milestones says where it ends: "
            "set one of them to null"
        )


def _name(section: type[Section], field: str = "name") -> str:
    """Return the name that a family or a task has by itself."""
    return str(section.model_fields[field].default)


def _check_optim(config: RunConfig) -> None:
    """Raise UserError for an optimizer that does not fit the model or the strategy."""
    model, optim = config.model, config.optim
    optim.check()
    if isinstance(optim, MuonConfig):
        if not isinstance(model, TransformerSection):
            raise UserError(
                f"optim=muon trains the matrices of a Transformer's blocks, and {model.name} is a model of the family "
                f"{model.family}"
            )
        if config.trainer.strategy == "fsdp":
            raise UserError(
                "optim=muon orthogonalises whole matrices, and with trainer.strategy=fsdp each process has a part of "
                "them: use trainer.strategy=ddp, or optim=adamw"
            )
    if isinstance(model, MupSection) and model.mup_base_width is not None:
        if optim.matrix_lr_factor(1.0) is None:
            raise UserError(
                f"model.mup_base_width needs optim=adamw, adam or muon: lmexp has no rule for how the learning rate "
                f"of {optim.target} changes with the width"
            )
        if optim.target == "torch.optim.Adam" and optim.weight_decay:
            raise UserError(
                "model.mup_base_width: optim=adam adds weight decay to the gradient, so its effect changes with the "
                "width: use optim=adamw, or optim.weight_decay=0"
            )


def _check_recomputation(config: RunConfig) -> None:
    """Raise UserError if activation checkpointing would save nothing."""
    how, model = config.trainer.activation_checkpointing, config.model
    if how == "none":
        return
    if not model.has_separate_layers:
        raise UserError(
            f"trainer.activation_checkpointing={how} works layer by layer, and {model.name} is of the family "
            f"{model.family}, whose layers are one module: use none"
        )
    if config.init.freeze:
        raise UserError(
            f"trainer.activation_checkpointing={how}: with init.freeze=true, layers have no backward pass: use none"
        )


def _check_fp8(config: RunConfig) -> None:
    model, batch = config.model, config.batch
    if config.precision.compute != "fp8":
        return
    if not model.supports_fp8:
        known = ", ".join(_name(section, "family") for section in families() if section.supports_fp8)
        raise UserError(f"precision=fp8 is there for models of {known}, and {model.name} is of {model.family}")
    model.check_fp8()
    if not config.precision.emulate:
        tokens = model.context * (1 if batch.micro == "auto" else micro_batch(config))
        if tokens % 16:
            raise UserError(
                f"precision=fp8 multiplies in tiles of 16: a micro-batch of {tokens} tokens is no multiple of it"
            )


def world_size(config: RunConfig) -> int:
    """Return how many processes train a run together."""
    return config.trainer.devices * config.trainer.num_nodes


def copies_the_model(config: RunConfig) -> bool:
    """Whether each process has the whole model and their gradients are added up (DDP)."""
    strategy = config.trainer.strategy
    return strategy == "ddp" or (strategy == "auto" and world_size(config) > 1)


def gathers_in_bf16(config: RunConfig) -> bool:
    """Whether fsdp gathers the layers' weights in bf16, in which autocast would multiply them, and keeps float32."""
    is_autocast = config.precision.lightning == "bf16-mixed" and config.precision.compute == "bf16"
    return config.trainer.strategy == "fsdp" and is_autocast and config.model.computes_in_narrow_weights


def devices_of(config: RunConfig) -> float:
    """Return how many devices a run takes: at least one for each of its processes, or a fraction of one."""
    return config.launcher.devices(world_size(config))


def device_share(config: RunConfig, device_kind: str) -> float:
    """Return the share that a run has of each of its devices, 0 to 1: of the memory, the power and the price.

    It is less than 1 if the launcher lets runs share a GPU, or trains several at a time on the CPU, which they share.
    """
    slots = config.launcher.slots if isinstance(config.launcher, LocalLauncher) and device_kind == "cpu" else None
    return min(1.0, devices_of(config), 1 / (slots or 1))


def has_one_shape(config: RunConfig) -> bool:
    """Whether all batches of a run are windows of the same length."""
    return config.task.label_head() is None and config.model.reads != "source_to_target"


def may_be_compiled(config: RunConfig, device_kind: str) -> bool:
    """Whether a run on a device of this kind (`cpu`, `cuda`, `mps`) uses torch.compile.

    `auto` compiles the families of lmexp on CUDA devices, for tasks whose batches all have the same shape; there it
    saved a fifth of the time or more (docs/gpu.md). On a CPU compiling takes longer than it saves in most runs.
    """
    if config.trainer.compile != "auto":
        return config.trainer.compile
    if config.privacy.is_on:
        return False
    return device_kind == "cuda" and not isinstance(config.model, CountedSection) and has_one_shape(config)


def whole_batch(config: RunConfig, tokens: int) -> int:
    """Return the largest batch of at most `tokens` tokens that devices and micro-batches share evenly, or the smallest
    of all."""
    micro = config.batch.micro if isinstance(config.batch.micro, int) else 1
    unit = config.model.sequence_tokens * world_size(config) * micro
    return max(tokens // unit, 1) * unit


def sequences(config: RunConfig) -> int:
    """Return the sequences of an optimizer step, over all devices."""
    return config.batch.tokens // config.model.sequence_tokens


def device_batch(config: RunConfig) -> int:
    """Return the sequences that each device has of an optimizer step."""
    return sequences(config) // world_size(config)


def micro_batch(config: RunConfig) -> int:
    """Return the sequences of one forward pass on one device; where `auto` is still to find them, the most."""
    return config.batch.micro if isinstance(config.batch.micro, int) else device_batch(config)


def accumulation(config: RunConfig) -> int:
    """Return how many batches of the loader make one optimizer step on each device.

    A private step is one batch, of a size that varies; the task cuts it into micro-batches itself (tasks/private.py).
    """
    return 1 if config.privacy.is_on else device_batch(config) // micro_batch(config)
