"""How far a run has come: the one count of steps and tokens that everything else reads."""

from dataclasses import asdict, dataclass


@dataclass
class Progress:
    """Optimizer steps done, of those that the budget pays for."""

    total_steps: int
    batch_tokens: int
    sequences: int
    """Sequences for each optimizer step, over all devices."""
    steps: int = 0

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return self.steps * self.batch_tokens

    @property
    def samples(self) -> int:
        """Sequences trained on: where the order of data goes on."""
        return self.steps * self.sequences

    @property
    def share(self) -> float:
        """Share of the budget that is spent."""
        return self.steps / self.total_steps

    @property
    def share_after_step(self) -> float:
        """Share that will be spent once the step under way is done; the learning rate follows it, so that
        the first step moves and the last one has the final rate."""
        return (self.steps + 1) / self.total_steps

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.steps >= self.total_steps

    def is_point(self, every: int) -> bool:
        """Whether the curve gets a point now: at the first step, at each `every`-th, and at the last."""
        return self.steps == 1 or self.steps % every == 0 or self.done

    def due(self, every: float) -> bool:
        """Whether what happens at each share `every` of the budget, and at its end, happens now."""
        before = int((self.steps - 1) / self.total_steps / every + 1e-9)
        return self.done or int(self.share / every + 1e-9) > before

    def state_dict(self) -> dict[str, int]:
        """Return what a checkpoint keeps."""
        return asdict(self)
