# gaps, ledger: what the run says as a whole.
# REQUIRED INPUTS: the run's intervals and data    OUTPUTS: results/gaps/{run}/, results/ledger/{run}.parquet


rule gaps:
    input:
        get_inputs("gaps"),
    output:
        get_outputs("gaps"),
    log:
        get_log("gaps"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=get_memory("gaps"),
        runtime=get_runtime("gaps"),
    params:
        tracked=get_params("gaps"),
        handed=get_handed("gaps"),
    shell:
        "python -m medbench gaps {wildcards.run} {params.handed} > {log} 2>&1"


rule ledger:
    input:
        get_inputs("ledger"),
    output:
        get_outputs("ledger"),
    log:
        get_log("ledger"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=get_memory("ledger"),
        runtime=get_runtime("ledger"),
    params:
        tracked=get_params("ledger"),
    shell:
        "python -m medbench ledger {wildcards.run} --tracked {params.tracked:q} > {log} 2>&1"
