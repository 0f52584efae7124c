# gaps, ledger: what the run says as a whole.
# REQUIRED INPUTS: the run's intervals and data    OUTPUTS: results/gaps/{run}/, results/ledger/{run}.parquet


rule gaps:
    input:
        [paths.intervals(*cell) for cell in CELLS],
    output:
        paths.gaps("{run}"),
    log:
        paths.log("gaps", "{run}"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        tracked=get_params("gaps", "run"),
        handed=get_handed("gaps", "run"),
    shell:
        "python -m medbench gaps {wildcards.run} {params.handed} > {log} 2>&1"


rule ledger:
    input:
        get_run_data,
    output:
        paths.ledger("{run}"),
    log:
        paths.log("ledger", "{run}"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        tracked=get_params("ledger", "run"),
    shell:
        "python -m medbench ledger {wildcards.run} --tracked {params.tracked:q} > {log} 2>&1"
