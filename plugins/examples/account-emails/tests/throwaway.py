"""A homeserver that is thrown away: a PostgreSQL server with a few of Synapse's tables, and synapse-doctor to look at it."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import unittest

import psycopg2

# What synapse-doctor takes for a homeserver in use, test.example. Add what your check looks at.
SOUND = """
CREATE TABLE schema_version (lock char(1) NOT NULL DEFAULT 'X' UNIQUE, version int NOT NULL, upgraded bool NOT NULL);
INSERT INTO schema_version (version, upgraded) VALUES (94, true);
CREATE TABLE users (name text UNIQUE, deactivated smallint NOT NULL DEFAULT 0);
INSERT INTO users SELECT format('@user%s:test.example', i) FROM generate_series(1, 9) i;
CREATE TABLE state_groups (id bigint PRIMARY KEY, room_id text NOT NULL, event_id text NOT NULL);
INSERT INTO state_groups VALUES (1, '!room:test.example', '$event');
CREATE TABLE user_threepids (
  user_id text NOT NULL, medium text NOT NULL, address text NOT NULL, validated_at bigint NOT NULL, added_at bigint NOT NULL,
  CONSTRAINT medium_address UNIQUE (medium, address));
CREATE TABLE user_threepid_id_server (
  user_id text NOT NULL, medium text NOT NULL, address text NOT NULL, id_server text NOT NULL,
  UNIQUE (user_id, medium, address, id_server));
"""


class Homeserver:
    """Made for one test class: with Homeserver() as home."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Homeserver:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        self.dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="sd", dir="/tmp"))  # short, because a socket's path is
        account: dict[str, object] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(self.dir, user.pw_uid, user.pw_gid)
            account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

        def postgres(program: str, *args: str) -> None:
            subprocess.run([binary(program), *args], check=True, cwd=self.dir, stdout=subprocess.DEVNULL, **account)

        data = os.path.join(self.dir, "data")
        postgres("initdb", "--pgdata", data, "--username=synapse", "--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync")
        log = os.path.join(self.dir, "log")
        options = f"-c listen_addresses= -c unix_socket_directories={self.dir} -c fsync=off"
        postgres("pg_ctl", "start", "--wait", "--pgdata", data, "--log", log, "--options", options)
        stack.callback(postgres, "pg_ctl", "stop", "--wait", "--mode=immediate", "--pgdata", data)
        self.sql("CREATE DATABASE synapse", "postgres")
        self.config = os.path.join(self.dir, "homeserver.yaml")
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(f"server_name: test.example\ndatabase:\n  name: psycopg2\n  args: {{user: synapse, dbname: synapse, host: {self.dir}}}\n")
        self.sql(SOUND)

    def sql(self, statements: str, database: str = "synapse") -> list[tuple]:
        """Runs statements, and returns the rows of the last one."""
        connection = psycopg2.connect(host=self.dir, user="synapse", dbname=database)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statements)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def doctor(self, *args: str) -> dict:
        """Runs synapse-doctor with the plugin, and returns its report."""
        return json.loads(self._doctor(*args, "--format=json", codes=(0, 2)))  # 2: something was found

    def show(self, check: str) -> None:
        """Under make try: prints what synapse-doctor says of what was broken, and ends the test there."""
        if command := os.environ.get("TRY"):
            print(flush=True)
            self._run(*command.split(), check)
            raise unittest.SkipTest("shown")

    def undo(self) -> None:
        """Puts back what the last fix has changed."""
        self._doctor("undo", "--yes", codes=(0,))

    def _doctor(self, *args: str, codes: tuple[int, ...]) -> str:
        done = self._run(*args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode not in codes:
            raise AssertionError(f"{' '.join(done.args)}: exit {done.returncode}\n{done.stderr}{reasons(done.stdout)}")
        return done.stdout

    def _run(self, *args: str, **pipes: int) -> subprocess.CompletedProcess[str]:
        command = [os.environ.get("DOCTOR", "synapse-doctor"), *args, "-c", self.config, "--dev-plugin", os.environ["PLUGIN"]]
        environment = {**os.environ, "SYNAPSE_DOCTOR_STATE_DIR": os.path.join(self.dir, "state"), "SYNAPSE_DOCTOR_ADMIN_DSN": "none"}
        return subprocess.run(command, text=True, env=environment, check=False, **pipes)


def reasons(report: str) -> str:
    """Why checks could not examine, and plans were not applied; the whole report where it does not say."""
    try:
        parts = json.loads(report)
        said = [f"{p['id']} is {p['status']}: {p['reason']}" for kind in ("checks", "plans") for p in parts.get(kind, ()) if p.get("reason")]
    except ValueError:
        said = []
    return "\n".join(said) or report


def binary(name: str) -> str:
    """The newest of Debian's server programs, or what is in PATH. Without any the test is skipped, but not under CI."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: float(path.split("/")[4]))
    path = found[-1] if found else shutil.which(name)
    if path is None:
        missing = "there are no PostgreSQL server programs: apt install postgresql"
        raise RuntimeError(missing) if os.environ.get("CI") == "true" else unittest.SkipTest(missing)
    return path
