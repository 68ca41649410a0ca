"""Every option that a training script does not take: giving it ends the script before anything else, and says whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.config.load import load_settings
from library.config.scripts import CACHING, SCRIPTS
from library.config.settings import OPTIONS, options_for
from library.errors import UserError
from library.train.app import USER_MISTAKE, main

TRAINING = [script for script in SCRIPTS if script not in CACHING]


@pytest.mark.parametrize("script", TRAINING)
def test_each_is_told_wherever_it_is_given(script: str, tmp_path: Path) -> None:
    others = OPTIONS.keys() - options_for(script).keys()
    assert others
    config = tmp_path / "run.toml"
    config.write_text("".join(f"{name} = 1\n" for name in others), encoding="utf-8")
    for arguments in ([f"--{name}" for name in others], ["--config_file", str(config)]):
        with pytest.raises(UserError) as caught:
            load_settings(script, arguments)
        told = [message for message in caught.value.messages if "this is an option of" in message]
        assert len(told) == len(others)
        for name in others:
            (message,) = (message for message in told if message.split(":")[-2].split()[-1].lstrip("-") == name)
            takers = [taker for taker in SCRIPTS if OPTIONS[name].is_of(taker)]
            assert all(taker in message for taker in takers)
            assert message.endswith(f"not of {script}; delete it")


@pytest.mark.parametrize("script", TRAINING)
def test_the_exit_code_is_that_of_a_mistake(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = min(OPTIONS.keys() - options_for(script).keys())
    with pytest.raises(SystemExit) as stopped:
        main(SCRIPTS[script], [f"--{name}"])
    assert stopped.value.code == USER_MISTAKE
    assert f"error: --{name}: this is an option of" in capsys.readouterr().err
