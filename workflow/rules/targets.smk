# A target for every stage that dvc.yaml repeats: `snakemake pretrain` is all of pretrain@*. The evaluations end with
# the page that shows them, and with the ablations on it: after `snakemake evaluate` nothing is left to `dvc repro`.
SHOWN = {"evaluate": "report"}
for group, members in groups(ROWS).items():

    rule:
        name:
            group
        input:
            [
                row.stamp
                for row in ROWS
                if row in members or row.address == SHOWN.get(group)
            ],
