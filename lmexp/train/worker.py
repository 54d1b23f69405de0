"""A run, from its directory: read the config, train, leave the record.

    read config -> open the token store -> task(model) -> Trainer.fit -> final weights -> record

Everything that happens is told in state.json; a run that fails leaves a state with a reason, and its
traceback in log.txt. Several processes of one run (started by torchrun) all come through here; the first
of them writes the files.
"""

import logging
import os
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import get_class
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from torch.utils.data import DataLoader

from lmexp.config.checks import accumulation, micro_batch, world_size
from lmexp.config.identity import run_id
from lmexp.config.schema import RunConfig
from lmexp.cost.device import detect
from lmexp.cost.exclusive import Exclusive
from lmexp.cost.flops import count_model
from lmexp.cost.horizon import horizon
from lmexp.cost.memory import BYTES
from lmexp.cost.meters import MemoryMeter, StepMeter
from lmexp.data.loading import TrainBatches, ValidationBatches
from lmexp.data.order import Order
from lmexp.data.store import prepare
from lmexp.errors import UserError, reason_of
from lmexp.models.build import build_model
from lmexp.runs.directory import RESULTS, STORES, RunDir, State, StateName
from lmexp.runs.mirrors import Mirror, open_mirror
from lmexp.runs.origin import origin_columns, utc
from lmexp.runs.record import Row, complete, identity_columns
from lmexp.tasks.base import Quality, Task
from lmexp.train.callbacks import Clock, Curve, Diverged, Evaluation, Rest, Saving
from lmexp.train.checkpoint import last_checkpoint, resumable_steps, save_final
from lmexp.train.progress import Progress

HEARTBEAT_SECONDS = 2.0


def main(path: Path) -> int:
    """Train the run in the directory `path` and leave its state and record; return the exit code.

    0 when the run is done; 1 when it failed, diverged or ran out of memory, which state.json tells.
    """
    run, started = RunDir(path.resolve()), time.time()
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6's own, of torch's trees
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # tips and banners do not belong in a log
    leader = int(os.environ.get("RANK", "0")) == 0
    outcome: StateName = "done"
    reason: str | None = None
    lock = run.lock(patience=0.5) if leader else None
    if leader and lock is None:
        print("another process is training this run; it is left to it")
        return 1
    if run.read_state().state in RESULTS:  # another coordinator's process has just been faster
        print("this run has its result already")
        return 0
    try:
        config = run.read_config()
        check_identity(config)
        if world_size(config) != int(os.environ.get("WORLD_SIZE", "1")):
            raise UserError(
                f"this run has {world_size(config)} processes: start it with "
                f"torchrun --nproc-per-node {config.trainer.devices} -m lmexp.worker {path}"
            )
        if leader:
            before = run.read_state()
            run.write_state(
                State(
                    state="running",
                    attempts=before.attempts + 1,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    heartbeat=started,
                    started=started,
                )
            )
        train(run, config, started, leader)
    except Diverged as divergence:
        outcome, reason = "diverged", str(divergence)
        print(reason)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns SIGTERM into the second
        outcome, reason = "cancelled", "stopped by a signal"
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # torchrun stops the others when one of them fails
            outcome, reason = "failed", "stopped by a signal, perhaps since another of its processes failed"
    except Exception as error:
        traceback.print_exc()
        outcome, reason = ("oom" if _is_out_of_memory(error) else "failed"), reason_of(error)
    if leader:
        run.update_state(state=outcome, reason=reason, finished=time.time(), pid=None)
    return 0 if outcome == "done" else 1


def check_identity(config: RunConfig) -> None:
    """Raise UserError when a config is not the one that its run is named after."""
    if config.run is None or run_id(config) != config.run.id:
        raise UserError("config.yaml was changed since its run was named: its hash is another")


def train(run: RunDir, config: RunConfig, started: float, leader: bool) -> None:
    """Train a run from where its last checkpoint stands, and write its final weights and its record.

    Args:
        started: when this process began, seconds since the epoch; wall_seconds counts from there.
        leader: whether this is the first, or only, process of the run.
    """
    store = prepare(config.data, config.tokenizer, run.path.parent.parent / STORES)
    count = count_model(config.model)
    sequences = config.batch.tokens // config.model.context
    length = horizon(config, store.tokens("train"))
    done_steps = resumable_steps(run, leader)
    progress = Progress(length.steps, config.batch.tokens, sequences, done_steps)
    if leader:
        run.keep_curve_up_to(progress.tokens)

    # tf32 is a way of multiplying float32, chosen for the whole process.
    torch.set_float32_matmul_precision("high" if config.precision.compute == "tf32" else "highest")
    trainer = build_trainer(config, run)
    memory = MemoryMeter(trainer.strategy.root_device)
    exclusive = (
        Exclusive(os.environ.get("CUDA_VISIBLE_DEVICES", "0") if _on_cuda(trainer) else "cpu") if leader else None
    )
    task: Task = get_class(config.task.target)(build_model(config.model, config.seed), config)
    meter = StepMeter(config.batch.tokens, trainer.strategy.root_device)

    micro, rank, world = micro_batch(config), trainer.global_rank, trainer.world_size
    order = Order(store.tokens("train"), config.model.context, config.seed)
    batches = TrainBatches(store, order, sequences, micro, rank, world, progress.samples)
    validation = ValidationBatches(store, config.model.context, micro, rank, world)

    mirror = open_mirror(config, run) if leader else Mirror("no")
    curve = Curve(progress, meter, config, run, mirror, count.flops_per_token)
    evaluation = Evaluation(progress, curve, config.evaluation.every, validation, store.bytes("validation"))
    trainer.callbacks += [  # type: ignore[attr-defined]  # set in Trainer.__init__, by a connector
        Clock(progress, meter, config),
        curve,
        evaluation,
        Saving(progress, config.checkpoint.every, last_checkpoint(run)),
        Rest(progress, meter),
    ]
    if leader:
        print(
            f"{run.name}: {count.n_params:,} parameters, {length.steps:,} steps of {config.batch.tokens:,} tokens, "
            f"{config.precision.name} on {world} x {detect(config.trainer.accelerator).name}"
        )
        if done_steps:
            print(f"resuming after step {done_steps:,}")
    origin = origin_columns(started)  # of the code that runs, not of what it is when the run ends
    exit_code, record = 1, None
    try:
        with heartbeat(run, progress, curve) if leader else nullcontext():
            trainer.fit(
                task,
                DataLoader(batches, batch_size=None),
                ckpt_path=last_checkpoint(run) if done_steps else None,
                weights_only=True,
            )
        assert evaluation.quality is not None, "the end of a budget is always scored"
        if leader:
            save_final(run, task.model, config, store)
            record = complete(
                identity_columns(config)
                | _quality_columns(evaluation.quality)
                | {
                    "n_params": count.n_params,
                    "n_params_active": count.n_params_active,
                    "n_params_embedding": count.n_params_embedding,
                    "n_params_matmul": count.n_params_matmul,
                    "flops_per_token": count.flops_per_token,
                    "train_flops": length.flops,
                    "tokens": progress.tokens,
                    "epochs": progress.tokens / store.tokens("train"),
                    "steps": progress.steps,
                    "finished": utc(time.time()),
                    "weights_gb": count.n_params * BYTES[config.precision.weights] / 1e9,
                }
                | {"exclusive": exclusive.release() if exclusive else None}
                | meter.summary()
                | memory.summary()
                | _honesty_columns(config, task, trainer)
                | _price_columns(config, time.time() - started)
                | {
                    "data_fingerprint": store.fingerprint,
                    "tokenizer_fingerprint": store.tokenizer_fingerprint,
                }
                | origin
            )
            run.write_record([record])
            # Said before the mirror closes, which may take seconds: whatever comes now, the run is done.
            run.update_state(state="done", finished=time.time(), pid=None)
        exit_code = 0
    finally:
        mirror.finish(record, exit_code)


def build_trainer(config: RunConfig, run: RunDir) -> pl.Trainer:
    """Return Lightning's Trainer: its own options from the config, the rest set by lmexp."""
    options = config.trainer.model_dump(exclude={"log_every"})
    # Named, so that inside a Slurm allocation Lightning neither checks its tasks nor requeues it by itself.
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return pl.Trainer(
        **options,
        plugins=[LightningEnvironment() if alone else TorchElasticEnvironment()],
        precision=config.precision.lightning,
        max_epochs=-1,  # the Clock stops the run when its budget is spent
        accumulate_grad_batches=accumulation(config),
        default_root_dir=run.path,
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,  # the batches are cut by rank already
    )


@contextmanager
def heartbeat(run: RunDir, progress: Progress, curve: Curve) -> Iterator[None]:
    """Say every few seconds, in state.json, that the run is alive and how far it has come."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            tell()

    def tell() -> None:
        run.update_state(
            state="running",
            heartbeat=time.time(),
            tokens=progress.tokens,
            tokens_total=progress.total_steps * progress.batch_tokens,
            train_loss=curve.train_loss,
        )

    tell()
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        tell()


def _on_cuda(trainer: pl.Trainer) -> bool:
    return trainer.strategy.root_device.type == "cuda"


def _quality_columns(quality: Quality) -> Row:
    finite = quality.perplexity if quality.perplexity != float("inf") else None
    return {
        "loss": quality.loss,
        "perplexity": finite,
        "bits_per_byte": quality.bits_per_byte,
        "accuracy": quality.accuracy,
    }


def _honesty_columns(config: RunConfig, task: Task, trainer: pl.Trainer) -> Row:
    states = trainer.optimizers[0].state.values()
    moments = [value for state in states for value in state.values() if torch.is_tensor(value) and value.ndim]
    compute = "tf32" if config.precision.compute == "tf32" else task.dtypes.get("dtype_compute")
    return {
        **task.dtypes,
        "dtype_compute": compute,
        "dtype_optimizer": str(moments[0].dtype).removeprefix("torch.") if moments else None,
        "world_size": trainer.world_size,
        "device_name": detect(config.trainer.accelerator).name,
    }


def _price_columns(config: RunConfig, wall_seconds: float) -> Row:
    price = config.hardware.dollars_per_hour
    return {
        "wall_seconds": wall_seconds,
        "dollars": None if price is None else price * wall_seconds / 3600,
    }


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the host."""
    said = ("not enough memory", "allocate memory", "out of memory", "ALLOC_FAILED")
    is_said = isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    return is_said or isinstance(error, MemoryError | torch.OutOfMemoryError)
