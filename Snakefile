# Runs the stages of dvc.yaml in parallel, here or on a cluster: `snakemake -j8 evaluate`.
# What is stale is DVC's decision (calm/pipeline.py), so `dvc repro` and this agree in any order.
import os
import sys
from pathlib import Path

from snakemake.utils import min_version

from calm.pipeline import groups, plan, planned

min_version("9.27")

# Jobs find `calm` and `dvc` in the environment that snakemake runs in.
PREFIX = f"export PATH={Path(sys.executable).parent}:$PATH; "
CORES = workflow.resource_settings.cores or 1  # no number where a cluster decides
if CORES > (os.cpu_count() or 1):
    # Threads that spin while they wait slow each other down tenfold when jobs share cores.
    PREFIX += "export OMP_WAIT_POLICY=PASSIVE; "
shell.prefix(PREFIX)

ROWS = plan() if workflow.is_main_process else planned()


# Everything.
rule all:
    input:
        [row.stamp for row in ROWS],


include: "workflow/rules/stages.smk"
include: "workflow/rules/targets.smk"
