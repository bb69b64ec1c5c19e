"""Commands are killed at random moments: is the index that of a commit, and does the next run end where it should?

``python tests/stress/kill.py [--signal KILL|TERM|INT] [--landed 200] [--scenario build-tokens ...] [--seed 1]``

Each command of the command line runs in a process of its own, forked when everything is imported. After a signal that came
before its end, what readers see must be exactly one of the commit before and the commit after; ``check`` must find it sound;
nothing may lie about once the next writer has been there (after TERM and INT at once, and one line must have been told); and
the command, run again, must end at the index of an undisturbed run.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import faiss
from failing import Scenario, Trials, errors_told
from hashed_tokens import HashedTexts, HashedTokens, add_method

from lexmax import Collection
from lexmax.__main__ import main as command
from lexmax.index.check import check_index
from lexmax.retrieval import build, fields

EXIT = {"KILL": -9, "TERM": 143, "INT": 130}


def scenarios(folder):
    """Commands on indexes of BM25, of tokens, of dense vectors, of several fields, and of lists, graphs and encodings."""
    corpus, more, many = (Path(folder) / f"{name}.jsonl" for name in ("corpus", "more", "many"))
    row = '{{"id": "d{i}", "text": "word{a} word{b} ship sea{c}", "year": {i}}}\n'
    corpus.write_text("".join(row.format(i=i, a=i % 97, b=i % 31, c=i % 7) for i in range(600)))
    more.write_text("".join(row.format(i=i, a=i % 89, b=i % 37, c=i % 5) for i in range(500, 800)))
    many.write_text("".join(row.format(i=i, a=i % 97, b=i % 31, c=i % 7) for i in range(1100)))
    text = [{"word1": 1.0, "ship": 0.5, "sea3": 1.0}, {"word5": 1.0}]
    texts = ["word1 sea3", "ship word5 word7"]
    queries = {"bm25": text, "other": text, "hashed": HashedTokens().encode_queries(texts)}
    queries["fde"] = queries["hashed"]
    queries |= dict.fromkeys(("hashed-dense", "lists", "graph"), HashedTexts().encode_queries(texts))
    several = ["bm25", "other=bm25,b=0.1", "hashed", "hashed-dense"]
    encoders = {"bm25": ["bm25"], "tokens": ["hashed"], "dense": ["hashed-dense"], "several": several}
    encoders["structures"] = ["bm25", "hashed", "fde=muvera,of=hashed"]
    encoders["structures"] += ["lists=hashed-dense,structure=ivf,quantise=opq", "graph=hashed-dense,structure=hnsw"]
    flags = {name: [part for spec in specs for part in ("--encoder", spec)] for name, specs in encoders.items()}

    def run(*arguments):
        return lambda path: command([str(path) if each == "IDX" else each for each in arguments])

    def made(name):
        return run("build", str(many if name == "structures" else corpus), "--out", "IDX", *flags[name])

    def half_built(path):
        """A build that was killed when it had committed twice."""
        child = forked(lambda: _killed_after(2, made("several"), path))
        os.waitpid(child, 0)

    found = [Scenario(f"build-{name}", made(name), queries, resumes=True) for name in encoders]
    adding = [run("field", "add", "IDX", name, "--search", f"bm25 > {name}") for name in ("hashed", "hashed-dense")]
    adding.append(run("field", "add", "IDX", "fde=muvera,of=hashed", "--search", "bm25 > fde"))
    deleted, more_deleted = (_after(made(name), run("delete", "IDX", "d7", "d8")) for name in ("several", "structures"))
    found += [
        Scenario("resume", made("several"), queries, half_built, resumes=True),
        Scenario("field-add", adding[0], queries, made("bm25"), resumes=True),
        Scenario("field-add-dense", adding[1], queries, made("bm25"), resumes=True),
        Scenario("field-add-fde", adding[2], queries, made("several"), resumes=True),
        Scenario("field-drop", run("field", "drop", "IDX", "hashed", "--search", "bm25"), queries, made("several")),
        Scenario("add-replace", run("add", "IDX", str(more), "--replace"), queries, made("several"), resumes=True),
        Scenario("delete", run("delete", "IDX", *(f"d{i}" for i in range(0, 600, 3))), queries, made("several")),
        Scenario("compact", run("compact", "IDX"), queries, deleted, resumes=True),
        Scenario("compact-structures", run("compact", "IDX"), queries, more_deleted, resumes=True),
    ]
    return found


def _after(*steps):
    return lambda path: [step(path) for step in steps]


def _killed_after(n, act, path):
    told = []

    def count():
        told.append(1)
        if len(told) == n:
            os.kill(os.getpid(), signal.SIGKILL)

    with Trials.commits(count):
        return act(path)


def forked(act, told=None):
    """Run ``act`` in a child whose exit status is what it returns, and whose stderr goes to ``told``; returns its pid."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        target = os.open(told or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 2)
        os.dup2(target, 1)
        status = act()
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 99
    sys.stderr.flush()
    os._exit(status)


class Victim:
    """The child that runs a scenario's command, and the count of its commits."""

    def __init__(self, trials, folder):
        self.told = Path(folder) / "stderr"
        self._reader, writer = os.pipe()

        def act():
            os.write(writer, b"r")
            with Trials.commits(lambda: os.write(writer, b".")):
                return trials.scenario.act(trials.path)

        self.pid = forked(act, str(self.told))
        os.close(writer)
        os.read(self._reader, 1)
        time.sleep(0.01)  # a signal before the command has begun tells nothing

    def end(self):
        """Wait; returns how it ended, negative for a signal, and how many commits returned."""
        _, status = os.waitpid(self.pid, 0)
        n_commits = len(os.read(self._reader, 1 << 16))
        os.close(self._reader)
        return os.waitstatus_to_exitcode(status), n_commits


def one(trials, name, after_s, folder):
    """Send a signal after some seconds; returns whether it landed, and what is wrong."""
    trials.fresh()
    victim = Victim(trials, folder)
    time.sleep(after_s)
    os.kill(victim.pid, signal.Signals[f"SIG{name}"])
    status, n_commits = victim.end()
    if status == 0:
        return False, []
    return True, list(_problems(trials, name, status, n_commits, victim.told.read_text()))


def _problems(trials, name, status, n_commits, told):
    if status != EXIT[name]:
        yield f"exit status {status}: {told}"
    if name != "KILL":
        if len(errors_told(told)) != 1 or "Traceback" in told or "Exception ignored" in told:
            yield f"not one line: {told}"
        yield from trials.litter(not (trials.path / "manifest.json").exists())
    state = trials.digest()
    # A build that is interrupted commits what it has, which is one of the states of an undisturbed one.
    possible = trials.states[n_commits : n_commits + 2]
    if state not in possible:
        yield f"the index is of no commit near the {n_commits}th"
        return
    if state is not None:
        problems = check_index(trials.path)
        if problems:
            yield f"check: {problems[0]}"
        with Collection.open(trials.path):
            pass
        yield from trials.litter(False)
    if trials.scenario.resumes or state != trials.states[-1]:
        child = forked(lambda: trials.scenario.act(trials.path), str(trials.path.parent / "again"))
        again = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if again != 0:
            yield f"run again, it ends with {again}: {(trials.path.parent / 'again').read_text()}"
        elif trials.digest() != trials.states[-1]:
            yield "run again, it ends at another index"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signal", default="KILL", choices=EXIT)
    parser.add_argument("--landed", type=int, default=200, help="signals that must land, over all scenarios (default 200)")
    parser.add_argument("--scenario", nargs="*", help="names of scenarios (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    add_method()
    faiss.omp_set_num_threads(1)  # OpenMP's threads do not come along when a process is forked
    build.build_index.__kwdefaults__["commit_every_s"] = fields.add_field.__kwdefaults__["commit_every_s"] = 0.0
    rng, n_landed, n_wrong, n_sent = random.Random(options.seed), Counter(), Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        chosen = [each for each in scenarios(folder) if not options.scenario or each.name in options.scenario]
        all_trials = []
        for scenario in chosen:
            trials = Trials(scenario, Path(folder) / scenario.name)
            trials.fresh()
            start = time.monotonic()
            status, _ = Victim(trials, folder).end()
            if status != 0 or trials.digest() != trials.states[-1]:
                raise SystemExit(f"{scenario.name} ends with {status} undisturbed: {(Path(folder) / 'stderr').read_text()}")
            all_trials.append((trials, time.monotonic() - start))
            print(f"{scenario.name}: {trials.n_commits} commits in {all_trials[-1][1]:.2f} s", flush=True)
        while sum(n_landed.values()) < options.landed:
            trials, duration = all_trials[n_sent % len(all_trials)]
            n_sent += 1
            landed, problems = one(trials, options.signal, rng.uniform(0, duration), folder)
            n_landed[trials.scenario.name] += landed
            n_wrong[trials.scenario.name] += bool(problems)
            for problem in problems:
                print(f"  {trials.scenario.name}: {problem}", flush=True)
    for name in n_landed:
        print(f"{name:18} {n_landed[name]:4} landed, {n_wrong[name]} wrong")
    print(f"SIG{options.signal}: {sum(n_landed.values())} landed of {n_sent}, {sum(n_wrong.values())} with something wrong")
    return 1 if any(n_wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
