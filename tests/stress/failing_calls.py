"""Every system call of every change to an index fails once: is the index old or new, and does the error say which?

``python tests/stress/failing_calls.py [--scenario build ...] [--how once lasting memory interrupt] [--step 1]``

Prints, for each scenario, how many calls failed and what was wrong then; exit status 1 when anything was.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from failing import HOWS, Trials, scenarios, structures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", nargs="*", help="names of scenarios (default: all)")
    parser.add_argument("--how", nargs="*", default=HOWS, choices=HOWS, help="how calls fail (default: all ways)")
    parser.add_argument("--step", type=int, default=1, help="let only each STEP-th call fail")
    options = parser.parse_args()
    n_all = n_wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for scenario in [*scenarios(folder), *structures(folder)]:
            if options.scenario and scenario.name not in options.scenario:
                continue
            trials = Trials(scenario, Path(folder) / scenario.name)
            for how in options.how:
                start, n_failed, wrong, n = time.monotonic(), 0, 0, 1
                while True:
                    call, problems = trials.trial(n, how)
                    if call is None:
                        break
                    n_failed, wrong, n = n_failed + 1, wrong + bool(problems), n + options.step
                    for problem in problems:
                        print(f"  {scenario.name}, {how}, call {n - options.step}, {call}: {problem}", flush=True)
                took = time.monotonic() - start
                print(f"{scenario.name:15} {how:10} {n_failed:5} failures {wrong:3} wrong {took:6.0f} s", flush=True)
                n_all, n_wrong = n_all + n_failed, n_wrong + wrong
    print(f"{n_all} failing calls, {n_wrong} with something wrong")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
