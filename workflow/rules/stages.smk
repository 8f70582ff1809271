# One rule per row of calm.pipeline; commands and files are dvc.yaml's.
for row in ROWS:

    rule:
        name:
            row.address
        input:
            row.upstream_stamps,
        output:
            touch(row.stamp),
        log:
            f".state/logs/{row.address}.log",
        conda:
            "../../environment.yml"
        threads: row.threads
        resources:
            **row.resources,
        params:
            address=row.address,
        shell:
            "dvc --wait-for-lock repro --single-item {params.address:q} &> {log:q}"
