"""Faults that Hone is built to survive. A test that brings one about says so: `@pytest.mark.fault(number)`."""

from __future__ import annotations

FAULTS = {
    1: "the process is killed at any operation of a checkpoint's writing",
    2: "the power goes: what was not synced is lost",
    3: "the disk is full, over quota, read-only or failing",
    4: "a checkpoint is damaged, cut, incomplete, renamed or of another format",
    5: "links and path tricks in a checkpoint",
    6: "a loss or a gradient that is not a number",
    7: "a loss that jumps",
    8: "signals: SIGTERM, SIGINT, SIGHUP, SIGUSR1, and a second one",
    9: "memory runs out: in a step, an evaluation, while loading or saving",
    10: "a rank hangs: every rank ends within a minute, with the reason",
    11: "a rank dies: every rank ends, and the run resumes",
    12: "a preparing process dies or stands still",
    13: "the machine kills a run: it is not shown as running",
    14: "two trainers of one run: the second is refused, a dead one's lock is free",
    15: "a store that another holds, that is damaged, full or without its log; the clock jumps",
    16: "a port in use, addresses of either kind, proxies in the environment",
    17: "the network: connections refused, lost, stalled, cut short, answered by something else",
    18: "a teacher's API: refusals, limits, faults, half and malformed answers, another model, a budget's end",
    30: "an upload: broken off, of any length, forged, empty, beyond a quota, let go while it is needed",
    31: "requests that are repeated, in the wrong state, for others' things, among ten thousand jobs",
    32: "state of another version, optimizer, decomposition or number of ranks",
    33: "settings or rows changed between a run and its resume",
    34: "the wizard: Ctrl-C at each question, no terminal, a tiny one, pasted lines, a script that is there already",
    35: "a generated script: paths and values full of quotes, braces, backslashes, line ends",
    36: "a model folder that wants to run code, or is no model",
    37: "time zones and locales: the same answers",
    38: "no HOME, a umask that leaves all open: secrets stay closed",
    39: "two servers of one folder",
}
