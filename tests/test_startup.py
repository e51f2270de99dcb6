"""What a server loads before it can answer, and what it leaves until somebody asks for it."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from frontdesk.config import Settings
from frontdesk.startup import loading

MADE = """
import sys
from pathlib import Path
from frontdesk.app import create_app
from frontdesk.cli.settings import load
create_app(load(data_dir=Path(sys.argv[1])))
print(*sys.modules)
"""

LATER = {
    "aiohttp": "the first picture by address, and issuers' keys",
    "alembic": "a store that is not up to date",
    "frontdesk.policies.tokens": "issuers in the settings",
    "frontdesk.protocols.answers": "/openapi.json",
    "frontdesk.protocols.openapi": "/openapi.json",
    "httpx": "a utility model, and payments",
    "jwt": "issuers, and Open WebUI's signature",
    "sqlalchemy.orm": "Postgres",
}
"""What takes long to import, and what it is imported for."""


def test_what_few_servers_need_is_not_loaded_before_it_is_asked_for(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MADE, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert {"fastapi", "sqlalchemy", "frontdesk.policies.images"} <= loaded
    assert loaded & set(LATER) == set()


def test_the_text_under_a_setting_is_not_read_from_the_source_at_each_start() -> None:
    """Pydantic would parse each class anew: a twentieth of the time until a server answers."""
    assert not [name for name, info in Settings.model_fields.items() if info.description]


def test_the_collector_rests_while_a_server_is_made_and_works_afterwards() -> None:
    before = gc.get_freeze_count()
    try:
        with loading():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before, "what is there now need not be looked at again"
        with pytest.raises(LookupError), loading():
            raise LookupError
        assert gc.isenabled(), "also when nothing came of it"
    finally:
        gc.unfreeze()
