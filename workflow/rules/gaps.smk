# gaps, overlap: what the run says as a whole.
# REQUIRED INPUTS: the run's intervals and data    OUTPUTS: results/gaps/{run}/, results/overlap/{run}.parquet


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
        rerun_key=get_rerun_key("gaps"),
        handed=get_handed("gaps"),
    shell:
        "python -m medbench gaps {wildcards.run} {params.handed} > {log} 2>&1"


rule overlap:
    input:
        get_inputs("overlap"),
    output:
        get_outputs("overlap"),
    log:
        get_log("overlap"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=get_memory("overlap"),
        runtime=get_runtime("overlap"),
    params:
        rerun_key=get_rerun_key("overlap"),
    shell:
        "python -m medbench overlap {wildcards.run} --fingerprint {params.rerun_key:q} > {log} 2>&1"
