"""What the types cannot say: values that do not go together."""

from lmexp.config.launchers import LocalLauncher, RayLauncher, SlurmLauncher
from lmexp.config.models import EncDecConfig, GPTConfig, LlamaSection, ModelConfig, MoEConfig, Reads, TransformerSection
from lmexp.config.schema import RunConfig, SGDConfig
from lmexp.errors import UserError


def check_config(config: RunConfig) -> None:
    """Raise UserError for the first thing in a config that cannot be run anywhere."""
    model, batch = config.model, config.batch
    check_model(model)
    check_task(config)
    each = model.sequence_tokens
    if batch.tokens % each:
        key = f"model.context={each}" if each == model.context else f"a source and a target together, {each} tokens"
        raise UserError(
            f"batch.tokens={batch.tokens} is not a multiple of {key}; {max(batch.tokens // each, 1) * each} would be"
        )
    processes, total = world_size(config), sequences(config)
    if total % processes:
        raise UserError(
            f"batch.tokens={batch.tokens} is {total} sequences, which {processes} devices cannot share evenly"
        )
    if config.trainer.strategy == "fsdp":
        if processes == 1:
            raise UserError("trainer.strategy=fsdp shares weights among devices: set trainer.devices to 2 or more")
        if config.precision.name in ("fp16", "fp8"):
            raise UserError(
                f"precision={config.precision.name}: trainer.strategy=fsdp goes with fp32, tf32, bf16 and bf16_true"
            )
    if isinstance(batch.micro, int) and (total // processes) % batch.micro:
        raise UserError(
            f"batch.micro={batch.micro} does not divide the {total // processes} sequences "
            f"that each device has of a step"
        )
    if isinstance(config.optim, SGDConfig) and config.optim.nesterov and not config.optim.momentum:
        raise UserError("optim.nesterov needs a momentum: set optim.momentum, or optim.nesterov=false")
    _check_places(config)
    if config.precision.compute == "fp8" and not isinstance(model, GPTConfig):
        raise UserError(f"precision=fp8 is there for models of gpt, and {model.name} is of {model.family}")
    if (
        config.precision.compute == "fp8"
        and isinstance(model, GPTConfig)
        and (model.d_model % 16 or model.d_feed_forward % 16)
    ):
        raise UserError(
            f"precision=fp8 multiplies in tiles of 16: model.d_model={model.d_model} and "
            f"model.d_ff={model.d_feed_forward} must be multiples of it"
        )
    if config.precision.compute == "fp8" and not config.precision.emulate:
        tokens = model.context * (1 if batch.micro == "auto" else micro_batch(config))
        if tokens % 16:
            raise UserError(
                f"precision=fp8 multiplies in tiles of 16: a micro-batch of {tokens} tokens is no multiple of it"
            )
    budgets = [name for name, value in config.budget.model_dump().items() if value is not None]
    if len(budgets) > 1:
        first, second = budgets[:2]
        raise UserError(f"two budgets: budget.{first} and budget.{second}; set one of them to null")
    schedule = config.schedule
    if schedule.name == "wsd" and schedule.warmup + schedule.cooldown > 1:
        raise UserError(
            f"schedule.warmup={schedule.warmup} and schedule.cooldown={schedule.cooldown} "
            "are more than the whole budget"
        )


def check_model(model: ModelConfig) -> None:
    """Raise UserError for the first size of a model that does not go with another."""
    if isinstance(model, TransformerSection) and not isinstance(model, LlamaSection) and model.d_model % model.n_heads:
        raise UserError(f"model.d_model={model.d_model} is not divisible by model.n_heads={model.n_heads}")
    if isinstance(model, LlamaSection):
        if model.head_size is None and model.d_model % model.n_heads:
            raise UserError(f"model.d_model={model.d_model} is not divisible by model.n_heads={model.n_heads}")
        if model.d_head % 2:
            raise UserError(f"rotary positions turn pairs of values: a head's width of {model.d_head} is odd")
        if model.n_heads % model.kv_heads:
            raise UserError(f"model.n_heads={model.n_heads} is not a multiple of model.n_kv_heads={model.kv_heads}")
    if isinstance(model, MoEConfig) and model.experts_per_token > model.n_experts:
        raise UserError(
            f"model.experts_per_token={model.experts_per_token} are more than the {model.n_experts} experts"
        )
    if isinstance(model, EncDecConfig) and model.positions == "sinusoidal" and model.d_model % 2:
        raise UserError(f"sinusoidal positions come in pairs: model.d_model={model.d_model} is odd")


def check_task(config: RunConfig) -> None:
    """Raise UserError when a task asks for another kind of model, or of data."""
    if config.init.freeze and config.task.name not in ("classify", "tag"):
        raise UserError(
            f"init.freeze=true trains a head over labels alone, and task={config.task.name} has none: "
            "it goes with task=classify and task=tag"
        )
    model, task, data = config.model, config.task, config.data
    reads = READS[task.name]
    if model.reads not in reads:
        families = {"left_to_right": "gpt, llama, moe, lstm", "both_ways": "bert", "source_to_target": "encdec"}
        fitting = ", ".join(families[way] for way in reads)
        raise UserError(f"task={task.name} needs a model of {fitting} (or hf), and {model.name} is of {model.family}")
    if data.holds != HOLDS[task.name]:
        raise UserError(f"task={task.name} needs {HOLDS[task.name]}, and data.source={data.source} has {data.holds}")


READS: dict[str, tuple[Reads, ...]] = {
    "causal_lm": ("left_to_right",),
    "masked_lm": ("both_ways",),
    "seq2seq": ("source_to_target",),
    "classify": ("both_ways", "left_to_right"),
    "tag": ("both_ways", "left_to_right"),
}
"""What the positions of a task's model may depend on."""
HOLDS = {"causal_lm": "text", "masked_lm": "text", "seq2seq": "pairs", "classify": "labels", "tag": "tags"}
"""What a task's data are."""


def _check_places(config: RunConfig) -> None:
    launcher, trainer = config.launcher, config.trainer
    if trainer.num_nodes > 1 and not isinstance(launcher, SlurmLauncher):
        raise UserError(f"trainer.num_nodes={trainer.num_nodes}: launcher={launcher.name} gives a run one node")
    if isinstance(launcher, SlurmLauncher):  # which gives whole devices only
        if launcher.signal_seconds >= 60 * launcher.minutes:
            raise UserError(
                f"launcher.signal_seconds={launcher.signal_seconds} leaves nothing of "
                f"launcher.minutes={launcher.minutes}"
            )
        return
    if isinstance(launcher, RayLauncher):
        key, share = "gpus", launcher.gpus
    else:
        key, share = "devices_per_run", launcher.devices_per_run
    if share is None or share.is_integer():
        return
    if share > 1:
        raise UserError(f"launcher.{key}={share:g}: a whole number of devices, or less than one")
    if world_size(config) > 1:
        raise UserError(f"launcher.{key}={share:g} is a part of one device; the run has {world_size(config)} processes")
    if launcher.exclusive:
        raise UserError(
            f"launcher.{key}={share:g} lets runs share a device, and slows each other: "
            "launcher.exclusive=false says that this is meant"
        )


def world_size(config: RunConfig) -> int:
    """Return how many processes train a run together."""
    return config.trainer.devices * config.trainer.num_nodes


def devices_of(config: RunConfig) -> float:
    """Return how many devices a run takes: at least one for each of its processes, or a fraction of one."""
    launcher, asked = config.launcher, None
    if isinstance(launcher, LocalLauncher):
        asked = launcher.devices_per_run
    elif isinstance(launcher, RayLauncher):
        asked = launcher.gpus
    return asked if asked and asked < 1 else max(asked or 0.0, world_size(config))


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
    """Return how many forward passes on each device make one optimizer step."""
    return device_batch(config) // micro_batch(config)
