"""What the types cannot say: values that do not go together."""

from lmexp.config.schema import RayLauncher, RunConfig, SGDConfig, SlurmLauncher
from lmexp.errors import UserError


def check_config(config: RunConfig) -> None:
    """Raise UserError for the first thing in a config that cannot be run anywhere."""
    model, batch = config.model, config.batch
    if model.d_model % model.n_heads:
        raise UserError(f"model.d_model={model.d_model} is not divisible by model.n_heads={model.n_heads}")
    if batch.tokens % model.context:
        raise UserError(
            f"batch.tokens={batch.tokens} is not a multiple of model.context={model.context}; "
            f"{max(batch.tokens // model.context, 1) * model.context} would be"
        )
    processes = world_size(config)
    sequences = batch.tokens // model.context
    if sequences % processes:
        raise UserError(
            f"batch.tokens={batch.tokens} is {sequences} sequences, which {processes} devices cannot share evenly"
        )
    if config.trainer.strategy == "fsdp":
        if processes == 1:
            raise UserError("trainer.strategy=fsdp shares weights among devices: set trainer.devices to 2 or more")
        if config.precision.name in ("fp16", "fp8"):
            raise UserError(
                f"precision={config.precision.name}: trainer.strategy=fsdp goes with fp32, tf32, bf16 and bf16_true"
            )
    if isinstance(batch.micro, int) and (sequences // processes) % batch.micro:
        raise UserError(
            f"batch.micro={batch.micro} does not divide the {sequences // processes} sequences "
            f"that each device has of a step"
        )
    if isinstance(config.optim, SGDConfig) and config.optim.nesterov and not config.optim.momentum:
        raise UserError("optim.nesterov needs a momentum: set optim.momentum, or optim.nesterov=false")
    _check_places(config)
    if config.precision.compute == "fp8" and (model.d_model % 16 or model.d_feed_forward % 16):
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


def device_batch(config: RunConfig) -> int:
    """Return the sequences that each device has of an optimizer step."""
    return config.batch.tokens // config.model.context // world_size(config)


def micro_batch(config: RunConfig) -> int:
    """Return the sequences of one forward pass on one device; where `auto` is still to find them, the most."""
    return config.batch.micro if isinstance(config.batch.micro, int) else device_batch(config)


def accumulation(config: RunConfig) -> int:
    """Return how many forward passes on each device make one optimizer step."""
    return device_batch(config) // micro_batch(config)
