"""W&B's own agent runs the sweep that lmexp ships. Only the server is replaced: nobody is to be called."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmexp.config import paths
from tests.runs.test_mirrors import read_wandb

SWEEP = paths.shipped_root() / "sweeps" / "wandb" / "bayes_gpt_nano.yaml"
AGENT = """
import json, multiprocessing, sys
import wandb
from wandb.apis.public import sweeps
from wandb.wandb_agent import Agent

config, commands = json.load(sys.stdin)
sweeps._sweep_with_runs = lambda *_, **__: {"config": json.dumps(config)}
sweeps._register_agent = lambda *_, **__: {"id": "agent"}
sweeps._agent_heartbeat = lambda api, agent, metrics, running: [] if running else [commands.pop(0)]
wandb.Api = lambda: None
Agent.POLL_INTERVAL = 0.2
agent = Agent(None, multiprocessing.Queue(), sweep_id="sw12", count=len(commands))
agent.run()
sys.exit(agent._failed)
"""


@pytest.mark.slow
def test_an_agents_suggestions_become_its_runs_and_a_repeated_one_too(tmp_path: Path, small: list[str]) -> None:
    config: dict[str, Any] = yaml.safe_load(SWEEP.read_text())
    config["command"] = [sys.executable, "-m", "lmexp.cli", *config["command"][1:]]
    tried = {"optim.lr": 0.0031, "model.n_layers": 1, "precision": "bf16", "optim.betas": [0.9, 0.95]}
    tried |= dict(word.split("=", 1) for word in small)
    args = {name: {"value": value} for name, value in tried.items()}
    commands = [{"type": "run", "run_id": name, "program": None, "args": args} for name in ("first", "repeated")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"WANDB_SWEEP_ID": "sw12", "WANDB_PROJECT": "theirs", "NETRC": str(tmp_path / "netrc")}
    environment |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_CONFIG_DIR": str(tmp_path / "config")}
    environment |= {"LMEXP_OUTPUTS": str(tmp_path / "outputs")}
    seen = {}
    for command in commands:  # a run of its own keeps both pieces: rebuilding replaces the one on the disk
        ended = subprocess.run(
            [sys.executable, "-c", AGENT],
            input=json.dumps([config, [command]]),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        [piece] = (tmp_path / "outputs").glob("*/*/wandb/*run-*/*.wandb")
        seen[command["run_id"]] = read_wandb(piece)
    for name, found in seen.items():
        assert (found["run"].run_id, found["run"].sweep_id, found["run"].project) == (name, "sw12", "theirs")
        assert found["summary"]["loss"] == pytest.approx(seen["first"]["summary"]["loss"])
        assert found["config"]["optim.lr"] == 0.0031
        assert found["exit_code"] == 0
    assert len(list((tmp_path / "outputs").glob("*/*/config.yaml"))) == 1
