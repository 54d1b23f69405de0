"""The progress of a run: the only count of steps, tokens and training time, which everything else reads."""

from dataclasses import dataclass, field
from typing import Any

from lmexp.cost.horizon import Horizon, Milestone
from lmexp.data.order import Method


@dataclass
class Progress:
    """The optimizer steps that are done, and the share of the budget that they have spent.

    A budget of tokens ends after a number of steps that is known from the start. A budget of time ends after the step
    that brings the training time nearest to it. The learning rate, evaluations and checkpoints all follow the share,
    so they work alike for both kinds.

    On the way to a milestone, the steps are those that led to the present weights, and the share is that of a run which
    ends at the milestone.
    """

    length: Horizon
    batch_tokens: int
    sequences: int
    """Sequences of each optimizer step, over all devices."""
    reached: int = 0
    """Milestones that the run has reached, so the number of the next one."""
    order: Method = "sorted"
    """How the training samples are put in order."""
    steps: int = 0
    seconds: float = 0.0
    """Seconds of training steps that led to the present weights, earlier attempts included."""
    step_seconds: float = 0.0
    """Seconds that a step takes at present; 0 until that is known."""
    share: float = 0.0
    """Share of the budget that is spent, 0 to 1."""
    has_stepped: bool = False
    """Whether this process has finished a step."""
    is_ended: bool = False
    """Whether training ends here, whatever is left of the budget."""
    code: str = ""
    """The version of the code that trains now; see origin.code_version."""
    earlier_code: list[str] = field(default_factory=list)
    """The versions that trained up to the checkpoint from which training continues, in order."""
    _share_before: float = 0.0
    """The share before the last step."""

    @property
    def milestone(self) -> Milestone | None:
        """The next milestone; None if the run has none."""
        return self.length.milestones[self.reached] if self.length.milestones else None

    @property
    def steps_to_end(self) -> int | None:
        """Steps of the run until its end or its next milestone; None if the budget is a time."""
        return self.length.steps if self.milestone is None else self.milestone.steps

    @property
    def is_last(self) -> bool:
        """Whether the run itself ends where this progress ends."""
        return self.milestone is None or self.milestone.branch is None

    @property
    def is_branching(self) -> bool:
        """Whether the cool-down to the next milestone begins here, so that the state of the trunk must be kept."""
        return self.milestone is not None and self.steps == self.milestone.branch

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return self.steps * self.batch_tokens

    @property
    def spent_tokens(self) -> int:
        """Tokens trained on since the branch of the last milestone; all without milestones."""
        return self.tokens - (0 if self.milestone is None else self.milestone.start * self.batch_tokens)

    @property
    def run_tokens(self) -> int:
        """Tokens that the whole run has trained on, the cool-downs to its milestones included."""
        earlier = sum(milestone.spent for milestone in self.length.milestones[: self.reached])
        return self.spent_tokens + earlier * self.batch_tokens

    @property
    def run_share(self) -> float:
        """Share of all that the whole run trains, 0 to 1."""
        if self.milestone is None or self.length.spent_steps is None:
            return self.share
        return self.run_tokens / (self.length.spent_steps * self.batch_tokens)

    @property
    def samples(self) -> int:
        """Sequences trained on: the position in the order of the data."""
        return self.steps * self.sequences

    @property
    def share_after_step(self) -> float:
        """Share that will be spent when the step under way is done.

        The learning rate follows it, so that the first step already moves the weights and the last one uses the final
        rate.
        """
        return self._share_at(self.steps + 1, self.seconds + self.step_seconds)

    @property
    def run_share_after_step(self) -> float:
        """The same, as a share of the whole run's length instead of that until the next milestone."""
        if self.milestone is None or self.length.steps is None:
            return self.share_after_step
        return min((self.steps + 1) / self.length.steps, 1.0)

    @property
    def done(self) -> bool:
        """Whether the budget is spent, or training has ended before that."""
        return self.is_ended or self.share >= 1

    def advance(self, seconds: float, step_seconds: float) -> None:
        """Count a finished step.

        Args:
            seconds: training time so far.
            step_seconds: time of one step at present.
        """
        self.steps, self.seconds, self.step_seconds, self.has_stepped = self.steps + 1, seconds, step_seconds, True
        self._share_before, self.share = self.share, self._share_at(self.steps, seconds)

    def is_point(self, every: int) -> bool:
        """Whether the curve gets a point now: at the first step, at every `every`-th one and at the last one."""
        return self.steps == 1 or self.steps % every == 0 or self.done

    def due(self, every: float) -> bool:
        """Whether something that happens at each share `every` of the budget, and at its end, happens now."""
        return self.done or int(self.share / every + 1e-9) > int(self._share_before / every + 1e-9)

    @property
    def trained_by(self) -> list[str]:
        """The versions of the code that train the run, in order; a version counts again if it comes back."""
        return [*self.earlier_code, *([self.code] if self.earlier_code[-1:] != [self.code] else [])]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "reached": self.reached,
            "order": self.order,
            "steps": self.steps,
            "seconds": self.seconds,
            "step_seconds": self.step_seconds,
            "trained_by": self.trained_by,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept; one of an earlier version does not say which code trained it.

        Earlier versions sorted the samples of every text, however long.
        """
        self.order = state.get("order", "sorted")
        self.earlier_code = list(state.get("trained_by", ["unknown"]))
        self.steps = int(state["steps"])
        self.seconds, self.step_seconds = float(state["seconds"]), float(state["step_seconds"])
        self.share = self._share_before = self._share_at(self.steps, self.seconds)

    def _share_at(self, steps: int, seconds: float) -> float:
        if self.steps_to_end is not None:
            return min(steps / self.steps_to_end, 1.0)
        assert self.length.seconds is not None, "a horizon has steps or seconds"
        left = self.length.seconds - seconds
        return 1.0 if left <= self.step_seconds / 2 else seconds / self.length.seconds
