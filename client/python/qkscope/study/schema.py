"""The tables of a file of results.

meta: the study and what else is said once. units: the plan; `content` is
compressed JSON of the item and its prompt. results: one row per unit that is
done; `manifest` is JSON, compressed with the dictionary that it names. answers,
layers, norms, comparisons: what a unit came to, by arm. norms: half floats,
each norm over its head's mean.
"""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT,
  WITHOUT ROWID;
CREATE TABLE models (name TEXT PRIMARY KEY, info TEXT NOT NULL) STRICT,
  WITHOUT ROWID;
CREATE TABLE units (
  place INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, model TEXT NOT NULL,
  task TEXT NOT NULL, item TEXT NOT NULL, seed INTEGER NOT NULL,
  content BLOB NOT NULL) STRICT;
CREATE TABLE dictionaries (id TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT,
  WITHOUT ROWID;
CREATE TABLE results (
  unit INTEGER PRIMARY KEY REFERENCES units(place), seconds REAL NOT NULL,
  prompt_tokens INTEGER NOT NULL, dictionary TEXT NOT NULL,
  manifest BLOB NOT NULL) STRICT;
CREATE TABLE answers (
  unit INTEGER NOT NULL REFERENCES units(place), arm TEXT NOT NULL,
  text TEXT NOT NULL, tokens INTEGER NOT NULL, stop_reason TEXT NOT NULL,
  mean_logprob REAL, alone_mean_logprob REAL, non_finite INTEGER NOT NULL,
  PRIMARY KEY (unit, arm)) STRICT, WITHOUT ROWID;
CREATE TABLE layers (
  unit INTEGER NOT NULL REFERENCES units(place), arm TEXT NOT NULL,
  point TEXT NOT NULL, layer INTEGER NOT NULL, massive_count INTEGER NOT NULL,
  ratio REAL, max REAL, top_dim INTEGER, top_dim_share REAL,
  low_frequency_share REAL, no_rope INTEGER NOT NULL,
  PRIMARY KEY (unit, arm, point, layer)) STRICT, WITHOUT ROWID;
CREATE TABLE norms (
  unit INTEGER NOT NULL REFERENCES units(place), arm TEXT NOT NULL,
  point TEXT NOT NULL, layer INTEGER NOT NULL, shape TEXT NOT NULL,
  data BLOB NOT NULL, PRIMARY KEY (unit, arm, point, layer)) STRICT;
CREATE TABLE comparisons (
  unit INTEGER NOT NULL REFERENCES units(place), arm TEXT NOT NULL,
  mean_kl REAL, top1_flips INTEGER NOT NULL, mean_logprob REAL,
  PRIMARY KEY (unit, arm)) STRICT, WITHOUT ROWID;
"""
