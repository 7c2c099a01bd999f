"""Opening a data directory: migrations, one process at a time, clear errors."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine

from services.store.backup import copy
from services.store.errors import StoreError
from services.store.migrate import MIGRATIONS, migrate, schemas
from services.store.open import DATABASE, open_store
from services.store.tables import Meta, metadata
from services.store.upgrade import config

HEAD = max(schemas())


def schema(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        return {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")}


def set_revision(path: Path, revision: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def files(data: Path) -> dict[str, bytes]:
    """Return all files but the lock by path: they must not change when the store is refused."""
    return {str(f.relative_to(data)): f.read_bytes() for f in data.rglob("*") if f.is_file() and f.name != "sluice.lock"}


def on(connection: Connection) -> object:
    settings = config(MIGRATIONS)
    settings.attributes["connection"] = connection
    return settings


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    """Return a data directory that was opened once before."""
    open_store(tmp_path).close()
    return tmp_path


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory on a file system of 64 KB."""
    place = tmp_path / "tiny"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_migrations_create_declared_tables_and_can_be_downgraded(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.begin() as connection:
        command.upgrade(on(connection), "head")  # type: ignore[arg-type]
        command.check(on(connection))  # type: ignore[arg-type]
    assert set(metadata.tables) < schema(tmp_path / "a.db")
    assert "ux_deployment_one_active" in schema(tmp_path / "a.db")
    with engine.begin() as connection:
        command.downgrade(on(connection), "base")  # type: ignore[arg-type]
    assert schema(tmp_path / "a.db") == {"alembic_version"}
    with engine.begin() as connection:
        command.upgrade(on(connection), "head")  # type: ignore[arg-type]
    engine.dispose()


def test_run_number_increases_with_each_start(tmp_path: Path) -> None:
    numbers = []
    for _ in range(3):
        store = open_store(tmp_path / "new" / "data")
        numbers.append(store.run)
        store.close()
    assert numbers == [1, 2, 3]


def test_data_files_are_readable_by_owner_only(opened: Path) -> None:
    assert all(file.stat().st_mode & 0o077 == 0 for file in opened.iterdir())


def test_second_process_is_refused_and_first_continues(opened: Path) -> None:
    store = open_store(opened)
    second = (
        "import sys, pathlib\n"
        "from services.store.open import open_store\n"
        "from services.store.errors import StoreError\n"
        "try: open_store(pathlib.Path(sys.argv[1]))\n"
        "except StoreError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", second, str(opened)], capture_output=True, text=True, check=True).stdout
    assert f"another Sluice (process {os.getpid()}) runs on the data directory" in said
    with store.read_session() as session:
        assert session.get(Meta, "run") is not None
    store.close()
    open_store(opened).close()


@pytest.fixture
def next_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of an additional migration, which the test may change."""
    scripts = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    more = scripts / "versions" / "9999_more.py"
    more.write_text(
        "from alembic import op\n"
        f"revision, down_revision, branch_labels, depends_on = '9999', '{HEAD}', None, None\n"
        "def upgrade() -> None:\n"
        "    op.execute('CREATE TABLE more (what TEXT)')\n"
    )
    monkeypatch.setattr("services.store.migrate.MIGRATIONS", scripts)
    return more


def test_schema_file_names_match_alembic_revisions() -> None:
    scripts = ScriptDirectory.from_config(config(MIGRATIONS))
    assert schemas() == {script.revision for script in scripts.walk_revisions()}
    assert scripts.get_heads() == [HEAD]


def test_start_without_migration_does_not_import_alembic(opened: Path) -> None:
    again = "import pathlib, sys; import app.main; from services.store.open import open_store\n"
    again += "open_store(pathlib.Path(sys.argv[1])).close(); print('alembic' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", again, str(opened)], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"


def test_existing_database_is_copied_before_migration(opened: Path, next_schema: Path) -> None:
    before = schema(opened / DATABASE)
    open_store(opened).close()
    assert schema(opened / DATABASE) == before | {"more"}
    (copied,) = (opened / "backups").iterdir()
    assert copied.name == f"before-9999-from-{HEAD}.db"
    assert schema(copied) == before
    assert copied.stat().st_mode & 0o777 == 0o600
    open_store(opened).close()
    assert list((opened / "backups").iterdir()) == [copied]


def test_failed_migration_changes_nothing(opened: Path, next_schema: Path) -> None:
    next_schema.write_text(next_schema.read_text() + "    op.execute('DROP TABLE nowhere')\n")
    before = schema(opened / DATABASE)
    with pytest.raises(StoreError, match="could not be migrated and is unchanged: no such table: nowhere"):
        open_store(opened)
    assert schema(opened / DATABASE) == before


def test_newer_schema_is_refused_and_nothing_changes(opened: Path) -> None:
    set_revision(opened / DATABASE, "9999")
    before = files(opened)
    with pytest.raises(StoreError, match=r"schema 9999, newer than this Sluice supports .* newer Sluice wrote it"):
        open_store(opened)
    assert files(opened) == before


@pytest.mark.parametrize("damage", ["head", "middle", "not a database"])
def test_corrupt_database_is_refused_and_nothing_changes(opened: Path, damage: str) -> None:
    database = opened / DATABASE
    content = bytearray(database.read_bytes())
    if damage == "middle":
        content[4096:20480] = os.urandom(16384)
    elif damage == "head":
        content[:512] = bytes(512)
    else:
        content = bytearray(b"hello " * 1000)
    database.write_bytes(content)
    before = files(opened)
    with pytest.raises(StoreError, match=r"is corrupt \(.*\); nothing was changed"):
        open_store(opened)
    assert files(opened) == before


def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / DATABASE)) as other, other:
        other.execute("CREATE TABLE theirs (id INTEGER)")
    with pytest.raises(StoreError, match="not Sluice's"):
        open_store(tmp_path)
    assert schema(tmp_path / DATABASE) == {"theirs"}


def test_full_disk_is_refused_before_any_write(tiny: Path) -> None:
    with pytest.raises(StoreError, match="is full: 0 MB free, 16 MB needed"):
        open_store(tiny)
    assert files(tiny) == {}


def test_migration_that_runs_out_of_disk_space_leaves_nothing(tiny: Path) -> None:
    with pytest.raises(StoreError, match="full"):
        migrate(tiny / DATABASE, tiny / "backups")
    left = tiny / DATABASE
    assert not left.exists() or schema(left) == set()


def test_read_only_directory_is_refused(tiny: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tiny], check=True)
    with pytest.raises(StoreError, match=r"cannot be written: Read-only file system; set SLUICE_DATA"):
        open_store(tiny)


@pytest.mark.slow
def test_package_contains_its_migrations(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=MIGRATIONS.parent, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "unpacked", "zip")
    use = "import pathlib, services.store.open as o; print(o.__file__, o.open_store(pathlib.Path('data')).run)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "unpacked")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", use], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(tmp_path / "unpacked" / "services" / "store" / "open.py"), "1"]


def test_backup_of_running_sluice_is_complete_and_overwrites_nothing(opened: Path, tmp_path: Path) -> None:
    store = open_store(opened)
    with store.write_session() as session:
        session.add(Meta(key="here", value="yes"))
    target = tmp_path / "copies" / "one.db"
    copy(opened / DATABASE, target)
    with pytest.raises(StoreError, match="overwrites no file"):
        copy(opened / DATABASE, target)
    with pytest.raises(StoreError, match="not found"):
        copy(opened / "nowhere.db", tmp_path / "two.db")
    store.close()
    with closing(sqlite3.connect(target)) as database:
        assert database.execute("SELECT value FROM meta WHERE key = 'here'").fetchone() == ("yes",)
    with pytest.raises(StoreError, match="name too long"):
        copy(opened / DATABASE, tmp_path / ("x" * 300))
    assert [file.name for file in target.parent.iterdir()] == ["one.db"]
