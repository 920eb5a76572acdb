"""`socket-server doctor`: its output and its exit status."""

from pathlib import Path

import pytest

from socket_server.cli import doctor, main
from tests.servers import ROOT, free_port
from tests.unit.cli.conftest import SECRET


def test_the_mode_of_a_folder_that_make_run_has_set_up_is_development(
    env: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env.delenv("ENV_FILE")
    env.setenv("PORT", str(free_port()))
    env.setenv("MAX_CONNECTIONS", "100")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert doctor.MADE_BY_MAKE in makefile
    (tmp_path / ".env").write_text(f"{doctor.MADE_BY_MAKE}; production wants its own.\nJWT_SECRET={SECRET}\n")
    env.delenv("JWT_SECRET")
    assert main(["doctor"]) == 0
    printed = capsys.readouterr()
    assert "mode development" in printed.out
    assert printed.err.strip() == "nothing to fix"
    env.setenv("APP_ENV", "production")
    assert main(["doctor"]) == 1


def test_each_finding_that_must_be_fixed_is_a_line(env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    env.setenv("APP_ENV", "production")
    env.setenv("CLIENT_URL", "*")
    assert main(["doctor"]) == 1
    printed = capsys.readouterr()
    assert "FIX  API_KEYS" in printed.out
    assert "FIX  CLIENT_URL" in printed.out
    assert "2 to fix" in printed.err
