"""The schema of the store, version by version. It knows SQL and no meaning."""

from __future__ import annotations

from typing import Final

_FIRST: Final = """
CREATE TABLE owners (
  name TEXT PRIMARY KEY, priority INTEGER NOT NULL, max_running INTEGER NOT NULL, quotas TEXT NOT NULL,
  created INTEGER NOT NULL
) STRICT;
CREATE TABLE keys (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL REFERENCES owners, hash BLOB NOT NULL UNIQUE, is_admin INTEGER NOT NULL,
  created INTEGER NOT NULL, revoked INTEGER
) STRICT;
CREATE TABLE files (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, purpose TEXT NOT NULL,
  filename TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, status TEXT NOT NULL, rows INTEGER,
  details TEXT, created INTEGER NOT NULL, expires_at INTEGER
) STRICT;
CREATE INDEX files_of ON files (owner, seq);
CREATE TABLE uploads (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, filename TEXT NOT NULL, purpose TEXT NOT NULL, mime_type TEXT NOT NULL,
  bytes INTEGER NOT NULL, status TEXT NOT NULL, created INTEGER NOT NULL, expires_at INTEGER NOT NULL,
  file_expires_s INTEGER, file TEXT
) STRICT;
CREATE TABLE parts (
  id TEXT PRIMARY KEY, upload TEXT NOT NULL REFERENCES uploads ON DELETE CASCADE, bytes INTEGER NOT NULL,
  created INTEGER NOT NULL
) STRICT;
CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL REFERENCES owners,
  model TEXT NOT NULL, base TEXT NOT NULL, tuned_name TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
  wanted TEXT NOT NULL DEFAULT 'run', priority INTEGER NOT NULL DEFAULT 0,
  body TEXT NOT NULL, config TEXT NOT NULL, metadata TEXT NOT NULL, hyperparameters TEXT NOT NULL, seed INTEGER NOT NULL,
  suffix TEXT, training_file TEXT NOT NULL, validation_file TEXT, result_files TEXT NOT NULL DEFAULT '[]',
  trained_tokens INTEGER, fine_tuned_model TEXT, error TEXT, progress TEXT NOT NULL DEFAULT '{}',
  created INTEGER NOT NULL, started INTEGER, finished INTEGER, estimated_finish INTEGER,
  lease_owner TEXT, lease_boot TEXT, lease_until REAL, fence INTEGER NOT NULL DEFAULT 0,
  events_offset INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX jobs_of ON jobs (owner, seq);
CREATE INDEX jobs_by_status ON jobs (status, seq);
CREATE INDEX jobs_by_training ON jobs (training_file);
CREATE INDEX jobs_by_validation ON jobs (validation_file);
CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL REFERENCES jobs (id),
  level TEXT NOT NULL, type TEXT NOT NULL, message TEXT NOT NULL, data TEXT, mark TEXT, created INTEGER NOT NULL,
  UNIQUE (job, mark)
) STRICT;
CREATE INDEX events_of ON events (job, seq);
CREATE TABLE checkpoints (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL REFERENCES jobs (id),
  step INTEGER NOT NULL, name TEXT NOT NULL UNIQUE, path TEXT NOT NULL, metrics TEXT NOT NULL, created INTEGER NOT NULL,
  UNIQUE (job, step)
) STRICT;
CREATE TABLE models (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, job TEXT, base TEXT NOT NULL,
  kind TEXT NOT NULL, path TEXT NOT NULL, created INTEGER NOT NULL
) STRICT;
CREATE TABLE trainables (
  owner TEXT NOT NULL, project TEXT NOT NULL, name TEXT NOT NULL, base TEXT NOT NULL, step INTEGER NOT NULL,
  gradient_steps INTEGER NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (owner, project, name)
) STRICT;
CREATE TABLE permissions (
  id TEXT PRIMARY KEY, seq INTEGER NOT NULL, checkpoint TEXT NOT NULL REFERENCES checkpoints (name) ON DELETE CASCADE,
  project TEXT NOT NULL, created INTEGER NOT NULL, UNIQUE (checkpoint, project)
) STRICT;
CREATE TABLE creates (
  owner TEXT NOT NULL, digest TEXT NOT NULL, body TEXT NOT NULL, job TEXT NOT NULL, created INTEGER NOT NULL,
  PRIMARY KEY (owner, digest)
) STRICT;
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, key TEXT, owner TEXT, action TEXT NOT NULL,
  subject TEXT NOT NULL, detail TEXT NOT NULL
) STRICT;
CREATE TABLE hooks (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL, type TEXT NOT NULL,
  created INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_at INTEGER NOT NULL, done INTEGER, said TEXT,
  UNIQUE (job, type)
) STRICT;
"""

VERSIONS: Final = (_FIRST,)
"""Scripts that lead from each version to the next; `user_version` counts those that have run."""
