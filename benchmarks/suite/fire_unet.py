"""What EmberFormer gains over a plain U-Net that has eight times its steps.

As `fire_skill`, with UNetS of the profile `compare` beside EmberFormer, three seeds each. Any training stands still
when its learning rate has come to zero: whether more steps would help, UNetS in six epochs (the profile `archive`)
beside 24 tells. Further baselines stand in the profile itself.

This takes a night, so it runs only when named. It resumes in the same folder, and takes over what `fire_skill` trained
where MILLRACE_BENCH_SKILL_ROOT names one root for both.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.suite.fire_skill import SUBJECT, gain, judge

ON_REQUEST = True
UNET = "unet_s"


def run(bench: Bench) -> list[Figure]:
    """Train and judge, or find what was made, and read the scores; `RuntimeError` where the archive is absent."""
    found = judge(bench, (SUBJECT, UNET))
    what, aim = "Growth F1", ">= 0.08"
    return [gain(bench, found, "fire_gain_over_unet", other=UNET, measure="growth_f1", what=what, aim=aim)]
