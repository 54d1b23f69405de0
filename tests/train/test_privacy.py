"""Differentially private training: the accounting is Opacus's own, and a resumed run is an undisturbed one."""

import math
import os
import signal
from collections.abc import Callable

import pytest
import torch
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from lmexp.cost.accounting import Accounting
from lmexp.data.open_feed import open_feed
from lmexp.data.order import PoissonSamples
from lmexp.data.prepare import prepare
from lmexp.errors import UserError
from lmexp.models.build import build_model
from lmexp.runs.directory import STORES, RunDir
from lmexp.tasks.causal_lm import CausalLM
from lmexp.train.privacy import private_steps
from lmexp.train.worker import main
from tests.train.test_stopping import DROPOUT, Start, results, start, wait_for  # noqa: F401

MakeRun = Callable[..., RunDir]
PRIVATE = "privacy.epsilon=8"


def test_epsilon_is_what_opacus_says_of_the_same_steps():
    accounting = Accounting(epsilon=2.0, delta=1e-5, samples=1000, sample_rate=0.032)
    theirs = PRVAccountant()
    for _ in range(40):  # one call for each step, as Opacus's own engine does
        theirs.step(noise_multiplier=1.1, sample_rate=0.032)
    assert accounting.spent(1.1, steps=40) == pytest.approx(theirs.get_epsilon(delta=1e-5), abs=1e-9)


def test_without_sampling_epsilon_is_that_of_the_gaussian_mechanism():
    """k steps on everything are one release with a k-th of the variance, whose delta has a closed form.

    Balle and Wang 2018, theorem 8, with a sensitivity of 1.
    """
    sigma, steps, delta = 8.0, 10, 1e-5
    one = sigma / math.sqrt(steps)

    def excess(epsilon: float) -> float:
        low, high = -1 / (2 * one) - epsilon * one, 1 / (2 * one) - epsilon * one
        return norm.cdf(high) - math.exp(epsilon) * norm.cdf(low) - delta

    exact = brentq(excess, 0.1, 20)
    spent = Accounting(2.0, delta, samples=100, sample_rate=1.0).spent(sigma, steps)
    assert exact <= spent <= exact + 0.02, "an upper bound; Opacus computes it with an error of 0.01 on either side"


def test_the_published_example_of_the_first_paper_is_a_bound():
    """Abadi et al. 2016, section 3.1: q = 0.01, sigma = 4, 10,000 steps and delta = 1e-5 gave epsilon = 1.26.

    From below, there is the limit for many steps: the Gaussian mechanism of Bu et al. 2020 (arXiv 1911.11607, section
    3), with mu = q sqrt(steps (exp(1 / sigma^2) - 1)) = 0.254, whose epsilon is 0.942.
    """
    accounting = Accounting(2.0, 1e-5, samples=60_000, sample_rate=0.01)
    assert 0.942 < accounting.spent(4.0, steps=10_000) < 1.26


@pytest.mark.slow(5)
def test_the_noise_is_the_least_that_keeps_epsilon():
    accounting = Accounting(epsilon=3.0, delta=1e-4, samples=500, sample_rate=0.064)
    noise = accounting.noise_multiplier(steps=50)
    assert 0.97 * 3.0 < accounting.spent(noise, 50) <= 3.0
    renyi = RDPAccountant()
    renyi.history = [(noise, 0.064, 50)]
    assert renyi.get_epsilon(delta=1e-4) > 3.0, "the looser accountant would have asked for more noise"


def test_a_delta_below_the_rounding_errors_of_the_accountant_is_one_message():
    with pytest.raises(UserError, match=r"privacy.delta=1e-300 is too small: .* over 40 steps"):
        Accounting(epsilon=3.0, delta=1e-300, samples=500, sample_rate=0.064).noise_multiplier(steps=40)


def test_samples_of_a_step_are_a_function_of_seed_and_step_and_each_comes_with_the_same_chance():
    samples, again, other = PoissonSamples(400, 50, 7), PoissonSamples(400, 50, 7), PoissonSamples(400, 50, 8)
    draws = [samples.step(step) for step in range(2000)]
    assert [again.step(step).tolist() for step in (5, 3)] == [draws[5].tolist(), draws[3].tolist()]
    assert other.step(5).tolist() != draws[5].tolist()
    counts = torch.bincount(torch.cat([torch.from_numpy(draw) for draw in draws]), minlength=400)
    spread = math.sqrt(2000 * (1 / 8) * (7 / 8))
    assert abs(float(counts.double().mean()) - 250) < 5 * spread / math.sqrt(400)
    assert int((counts - 250).abs().max()) < 5 * spread
    sizes = torch.tensor([float(len(draw)) for draw in draws])
    assert 0.9 < float(sizes.var()) / (400 * (1 / 8) * (7 / 8)) < 1.1, "batches vary as a binomial number does"


def _task(make_run: MakeRun, noise: float, *words: str, place: str = "outputs") -> tuple[CausalLM, RunDir]:
    run = make_run(PRIVATE, *words, place=place)
    config = run.read_config()
    task = CausalLM(build_model(config.model, config.seed, config.task), config)
    task.private = private_steps(task, noise)
    return task, run


def _drawn(run: RunDir) -> dict[str, torch.Tensor]:
    """Return the sequences that step 5 of a run draws: more than the 8 that are expected."""
    config = run.read_config()
    feed = open_feed(config, prepare(config, run.path.parent.parent / STORES))
    return {**feed.disjoint_batch(PoissonSamples(feed.disjoint_sequences, 8, 0).step(5), 5), "step": torch.tensor(5)}


def test_a_step_without_noise_is_the_mean_of_clipped_gradients_whatever_the_micro_batch(make_run: MakeRun):
    task, run = _task(make_run, 0.0, "batch.micro=4")
    batch = _drawn(run)
    assert task.private is not None and len(batch["targets"]) == 10, "two micro-batches and a half"
    rows, losses = [], []
    for row in range(10):
        nll, targets = task.sequence_nll({name: each[row : row + 1] for name, each in batch.items() if each.ndim})
        losses.append(float((nll / targets).detach()))
        rows.append(torch.autograd.grad((nll / targets).sum(), list(task.parameters())))
    norms = [float(torch.stack([gradient.norm() for gradient in row]).norm()) for row in rows]
    task.private.clip = clip = sorted(norms)[5]  # the gradients of some sequences are longer, of others shorter

    shown = task.private.add_gradients(batch, task.sequence_nll)
    task.private.finish(task.parameters(), task.device)
    for index, weight in enumerate(task.parameters()):
        clipped = [row[index] * min(1.0, clip / norm) for row, norm in zip(rows, norms, strict=True)]
        expected = torch.stack(clipped).sum(0) / 8  # 8 sequences are expected, whatever was drawn
        torch.testing.assert_close(weight.grad, expected, rtol=1e-4, atol=1e-7)
    assert shown is not None and float(shown) == pytest.approx(sum(losses) / 10, rel=1e-5)
    assert task.private.sampled == 10


def test_noise_comes_once_a_step_from_seed_and_step_alone(make_run: MakeRun):
    def noised(step: int, micro: int) -> torch.Tensor:
        words = [f"batch.micro={micro}", "privacy.clip=0.5"]
        task, run = _task(make_run, 3.0, *words, place=f"noise, {step}, {micro}")
        clean, _ = _task(make_run, 0.0, *words, place=f"clean, {step}, {micro}")
        for each in (task, clean):
            assert each.private is not None
            each.private.add_gradients(_drawn(run) | {"step": torch.tensor(step)}, each.sequence_nll)
            each.private.finish(each.parameters(), each.device)
        pairs = zip(task.parameters(), clean.parameters(), strict=True)
        return torch.cat([(one.grad - other.grad).flatten() for one, other in pairs])  # type: ignore[operator]

    noise = noised(step=5, micro=8)
    torch.testing.assert_close(noised(step=5, micro=1), noise, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(noised(step=4, micro=8), noise)
    std = 3.0 * 0.5 / 8
    assert float(noise.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * len(noise)))
    assert abs(float(noise.mean())) < 5 * std / math.sqrt(len(noise))


@pytest.mark.slow(15)
@pytest.mark.parametrize("model", [["model=gpt_nano"], ["model=lstm_nano", "model.context=32"]])
def test_a_private_run_that_was_stopped_goes_on_as_if_nothing_had_been(
    make_run: MakeRun,
    start: Start,  # noqa: F811
    model: list[str],
):
    words = [PRIVATE, DROPOUT, *model, "batch.micro=4"]  # so that most steps have several micro-batches
    stopped, undisturbed = make_run(*words), make_run(*words, place="undisturbed")
    process = start(stopped, "wait for a signal", 7)
    wait_for((stopped.path / "here").exists)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(60)
    assert stopped.read_state().state == "cancelled"
    assert "after step 7" in (stopped.read_state().reason or "") and main(stopped.path) == 0
    assert main(undisturbed.path) == 0
    assert results(stopped) == results(undisturbed)
    weights = [(run.final / "model.safetensors").read_bytes() for run in (stopped, undisturbed)]
    assert weights[0] == weights[1], "bit for bit, the noise included"
    (record,) = undisturbed.read_record()
    config = undisturbed.read_config()
    assert 7.5 < record["epsilon"] <= 8 and record["delta"] == record["privacy_samples"] ** -1.1
    spent = PRVAccountant()
    spent.history = [(record["noise_multiplier"], 8 / record["privacy_samples"], record["steps"])]
    assert record["epsilon"] == pytest.approx(spent.get_epsilon(delta=record["delta"]), abs=1e-9)
    assert record["tokens"] == record["steps"] * config.batch.tokens == 5120
    assert record["sampled_tokens"] % 32 == 0 and 0.6 < record["sampled_tokens"] / 5120 < 1.4


@pytest.mark.slow
def test_a_run_that_stops_early_has_spent_less(make_run: MakeRun):
    run = make_run(PRIVATE, "evaluation.patience=1", "evaluation.every=0.1", "optim.lr=1", "divergence.multiple=null")
    assert main(run.path) == 0
    (record,) = run.read_record()
    assert record["steps"] < 20 and record["epsilon"] < 7.5
