# A target for every stage that dvc.yaml repeats: `snakemake evaluate` is all of evaluate@*.
for group, members in groups(ROWS).items():

    rule:
        name:
            group
        input:
            [row.stamp for row in members],
