# score, twins, interval: answers and scores -> metrics with intervals, without a model.
# REQUIRED INPUTS: results/predictions/, results/data/    OUTPUTS: results/scores/, results/twins/, results/intervals/


rule score:
    input:
        get_inputs("score"),
    output:
        get_outputs("score"),
    log:
        get_log("score"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=get_memory("score"),
        runtime=get_runtime("score"),
    params:
        tracked=get_params("score"),
    shell:
        "python -m medbench score {wildcards.dataset} {wildcards.model} {wildcards.mode} --tracked {params.tracked:q} > {log} 2>&1"


rule twins:
    input:
        get_inputs("twins"),
    output:
        get_outputs("twins"),
    log:
        get_log("twins"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=get_memory("twins"),
        runtime=get_runtime("twins"),
    params:
        tracked=get_params("twins"),
    shell:
        "python -m medbench twins {wildcards.dataset} --tracked {params.tracked:q} > {log} 2>&1"


rule interval:
    input:
        get_inputs("interval"),
    output:
        get_outputs("interval"),
    log:
        get_log("interval"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=get_memory("interval"),
        runtime=get_runtime("interval"),
    params:
        tracked=get_params("interval"),
    shell:
        "python -m medbench interval {wildcards.dataset} {wildcards.model} {wildcards.mode} --tracked {params.tracked:q} > {log} 2>&1"
