# fetch, prepare: official files onto the disk -> checked tables.
# REQUIRED INPUTS: the files that a layout names    OUTPUTS: results/raw/, results/data/{dataset}/


localrules:
    fetch,  # compute nodes of a cluster often have no network


rule fetch:
    input:
        get_inputs("fetch"),
    output:
        get_outputs("fetch"),
    log:
        get_log("fetch"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=get_memory("fetch"),
        runtime=get_runtime("fetch"),
    params:
        rerun_key=get_rerun_key("fetch"),
    shell:
        "python -m medbench fetch {wildcards.dataset} > {log} 2>&1"


rule prepare:
    input:
        get_inputs("prepare"),
    output:
        get_outputs("prepare"),
    log:
        get_log("prepare"),
    priority: 3  # everything of a data set waits for it
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=get_memory("prepare"),
        runtime=get_runtime("prepare"),
    params:
        rerun_key=get_rerun_key("prepare"),
    shell:
        "python -m medbench prepare {wildcards.dataset} > {log} 2>&1"
