"""Training speed of Hone beside TRL, and LLaMA-Factory, at their best settings, measured alternately in one run.

    python benchmarks/throughput.py [--case gsm8k-5m|gsm8k-30m|tau-5m|all] [--llamafactory PYTHON] [--json FILE]

It knows the order of measurements and what is compared with what; the sides measure themselves.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median_low as median
from typing import Any

import machine
import peers
import report
from cases import BATCH, CASES, Case, Laid, lay
from child import run
from duel import Duel

Results = dict[str, Any]
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
_FINALISTS = 3  # of the peer's settings, tried twice


def main() -> None:
    """Measure the chosen cases and print the tables."""
    asked = _arguments()
    results: Results = {"machine": machine.describe(), "threads": asked.threads, "cases": {}}
    print(machine.in_words(results["machine"]), flush=True)
    names = list(CASES) if asked.case == "all" else [asked.case]
    for name in names:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            measured = _Measured(CASES[name], asked, Path(folder))
            results["cases"][name] = measured.results
            measured.go(lambda: _keep(asked.json, results))
        print(report.case_tables(name, results["cases"][name]), flush=True)
    _keep(asked.json, results)


def _keep(path: Path | None, results: Results) -> None:
    """Write what is known so far, so that an interruption loses little."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


class _Measured:
    """One case: the peer's trials, the duel, and the share of the matrix products."""

    def __init__(self, case: Case, asked: argparse.Namespace, folder: Path) -> None:
        self.case = case
        self.asked = asked
        self.folder = folder
        self.steps = asked.steps or (3 if asked.small else case.steps)
        self.trial_steps = min(self.steps, 2 if asked.small else case.trial_steps)
        self.results: Results = {"steps": self.steps, "threads": asked.threads}
        self.peers = {} if asked.hone_only else {"TRL": peers.trl()}
        if asked.llamafactory:
            self.peers["LLaMA-Factory"] = peers.llamafactory(asked.llamafactory)

    def go(self, keep: Any) -> None:
        """Measure everything, calling `keep` after each part."""
        size = "1m" if self.asked.small else None
        self.laid = lay(self.case, self.folder, steps=self.steps, size=size)
        self.results["rows"] = self.laid.to_json()
        print(f"\n{self.case.name}: {self.laid.about}", flush=True)
        self.results["auto"] = self._hone(steps=2, precision="auto")
        for precision in self.asked.precision:
            found: Results = {}
            self.results[precision] = found
            found["trials"] = {}
            for peer in self.peers.values():
                found["trials"][peer.name] = self._trials(peer, precision)
                keep()
            found["duel"] = self._duel(precision, found["trials"])
            keep()
            if not self.asked.skip_shares:
                found["shares"] = self._shares(precision, found["duel"])
                keep()

    def _run(
        self,
        script: str,
        *,
        steps: int,
        precision: str,
        peer: peers.Peer | None = None,
        **more: Any,
    ) -> Results:
        job = {
            **Laid.to_json(self.laid),
            "folder": str(self.folder),
            "steps": steps,
            "batch": BATCH,
            "threads": self.asked.threads,
            "precision": precision,
            "environment": _KEEP_MEMORY if self.asked.keep_memory else {},
            **more,
        }
        python = sys.executable if peer is None else peer.python
        return run(script, job, patience=self.asked.patience, python=python)

    def _hone(self, *, precision: str, steps: int | None = None, **settings: str) -> Results:
        named = {name.replace("__", "."): value for name, value in settings.items()}
        return self._run(
            "hone_side.py", steps=steps or self.steps, precision=precision, settings=named
        )

    def _shares(self, precision: str, duel: Results) -> Results:
        """The matrix products' share, at the budget that the measured runs of Hone took."""
        budgets = [r["micro_batch_tokens"] for r in duel["rounds"]["Hone"] if "failed" not in r]
        if not budgets:
            return {"failed": "Hone itself failed"}
        return self._run("shares.py", steps=2, precision=precision, budget=median(budgets))

    def _trials(self, peer: peers.Peer, precision: str) -> Results:
        """Each of a peer's settings once, briefly, and the three best once more: a busy minute decides nothing.

        Of long rows, where a trial takes minutes, further arithmetics are tried at the two best settings.
        """
        trials: Results = {}
        chosen = peer.settings(self.case.kind, compiled=self.asked.compile)
        for arithmetic in peer.precisions[precision]:
            names = [name for name in chosen if not self.asked.trl or name in self.asked.trl]
            if trials and self.case.kind == "airline":
                names = [trials[ranked]["name"] for ranked in report.ranked(trials)[:2]]
            for name in dict.fromkeys(names):
                tried = {"arithmetic": arithmetic, "name": name, "setting": chosen[name]}
                trials[f"{arithmetic}, {name}"] = {**tried, **self._trial(peer, tried)}
        for name in report.ranked(trials)[: 0 if self.asked.small else _FINALISTS]:
            trials[name] = report.better(trials[name], self._trial(peer, trials[name]))
        return trials

    def _trial(self, peer: peers.Peer, tried: Results) -> Results:
        setting = peers.briefly(tried["setting"], self.case.trial_rows)
        trial = self._peer(peer, self.trial_steps, {**tried, "setting": setting})
        about = f"{peer.name} {tried['arithmetic']}, {tried['name']}"
        print(f"  {about}: {report.rate(trial)}", flush=True)
        return trial

    def _peer(self, peer: peers.Peer, steps: int, tried: Results) -> Results:
        return self._run(
            peer.script,
            steps=steps,
            precision=tried["arithmetic"],
            setting=tried["setting"],
            peer=peer,
        )

    def _duel(self, precision: str, trials: Results) -> Results:
        """Hone, its own variants and each peer's best, one after the other, again and again."""
        duel = Duel()
        duel.add("Hone", lambda: self._hone(precision=precision))
        if self.case.kind == "airline":
            duel.add(
                "Hone, share_prefixes=false",
                lambda: self._hone(precision=precision, compute__share_prefixes="false"),
            )
        for peer in self.peers.values():
            best = report.best(trials[peer.name])
            if best is not None:
                tried = trials[peer.name][best]
                side = partial(self._peer, peer, self.steps, tried)
                duel.add(f"{peer.name} ({best})", side)
        duel.go(repeats=1 if self.asked.small else self.asked.repeats)
        duel.add("Hone, pack=false", lambda: self._hone(precision=precision, compute__pack="false"))
        duel.go_last()
        return duel.results()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--case", choices=[*CASES, "all"], default="all")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both sides")
    parser.add_argument("--steps", type=int, help="steps of a measurement, the first not counted")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side")
    parser.add_argument(
        "--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"]
    )
    parser.add_argument(
        "--trl", nargs="+", metavar="SETTING", help="try only these of the peers' settings"
    )
    parser.add_argument(
        "--llamafactory", metavar="PYTHON", help="interpreter of an environment with LLaMA-Factory"
    )
    parser.add_argument("--compile", action="store_true", help="try TRL with torch.compile as well")
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="have glibc keep freed memory, on both sides; neither does by itself",
    )
    parser.add_argument("--hone-only", action="store_true", help="leave the peers out")
    parser.add_argument("--skip-shares", action="store_true", help="leave the matrix products out")
    parser.add_argument(
        "--patience", type=float, default=3600, help="seconds after which one process is stopped"
    )
    parser.add_argument("--small", action="store_true", help="a smoke test: tiny model, few steps")
    parser.add_argument("--json", type=Path, help="file for every figure of the run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
