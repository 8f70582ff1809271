# Runs the stages of dvc.yaml in parallel, here or on a cluster: `snakemake -j8 evaluate`.
# What is stale is DVC's decision (calm/pipeline.py), so `dvc repro` and this agree in any order.
import sys
from pathlib import Path

from snakemake.utils import min_version

from calm.pipeline import groups, plan, planned

min_version("9.27")

# Jobs find `calm` and `dvc` in the environment that snakemake runs in.
shell.prefix(f"export PATH={Path(sys.executable).parent}:$PATH; ")

ROWS = plan() if workflow.is_main_process else planned()


# Everything.
rule all:
    input:
        [row.stamp for row in ROWS],


include: "workflow/rules/stages.smk"
include: "workflow/rules/targets.smk"
